import { Duplex, PassThrough } from 'node:stream';
import { createServer, Socket } from 'node:net';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import {
  NbdConnection,
  NbdConnectionError,
  type NbdError,
  NbdOptionError,
  NbdProtocolError,
  NbdStateError,
  NbdStrictError,
} from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { listenRaw, memoryPeer, newConnection, openRaw, RawPeer } from '../../support/raw-server.js';
import { freePort } from '../../support/server-process.js';

const path = (target: object): string => (target as { path: string }).path;
const port = (target: object): number => (target as { port: number }).port;

describe('every way to connect', () => {
  it('connect() takes { path }, { host, port }, a URI, a URL and a Duplex', async () => {
    const unix = await listenRaw('unix');
    const tcp = await listenRaw('tcp');
    const uri = `NBD+UNIX:///%64isk?socket=${path(unix.target)}`;
    const ways = [
      [unix, unix.target],
      [tcp, tcp.target],
      [tcp, { port: String(port(tcp.target)) }],
      [unix, uri],
      [unix, new URL(uri)],
      [tcp, `nbd://127.0.0.1:${port(tcp.target)}/disk`],
    ] as const;
    for (const [server, target] of ways) {
      const connecting = NbdConnection.connect(target, { requestExtendedHeaders: false });
      const peer = await server.accept();
      await peer.handshake();
      const connection = await connecting;
      expect(connection.aioIsReady()).toBe(true);
      const isNamed = typeof target === 'string' || target instanceof URL;
      expect(connection.getExportName()).toBe(isNamed ? 'disk' : '');
      const go = peer.options.find(({ number }) => number === g.OPT.GO)!;
      expect(go.data.toString('latin1', 4, 4 + go.data.readUInt32BE(0))).toBe(isNamed ? 'disk' : '');
      connection.close();
    }
    const { stream, peer } = memoryPeer();
    const [connection] = await Promise.all([NbdConnection.connect(stream), peer.handshake()]);
    expect(connection.aioIsReady()).toBe(true);
    connection.close();
    expect(stream.destroyed).toBe(true);
  });

  it('connectUri, connectTcp, connectUnix and connectSocket, and their raw twins', async () => {
    const unix = await listenRaw('unix');
    const tcp = await listenRaw('tcp');
    const socket = (): Socket => new Socket().connect(path(unix.target));
    const ways: [typeof unix, (c: NbdConnection) => Promise<void> | void][] = [
      [unix, (c) => c.connectUri(`nbd+unix:///?socket=${path(unix.target)}`)],
      [unix, (c) => c.connectUnix(path(unix.target))],
      [tcp, (c) => c.connectTcp('localhost', port(tcp.target))],
      [unix, (c) => c.connectSocket(socket())],
      [unix, (c) => c.aioConnectUri(`nbd+unix:///?socket=${path(unix.target)}`)],
      [unix, (c) => c.aioConnectUnix(path(unix.target))],
      [tcp, (c) => c.aioConnectTcp('127.0.0.1', String(port(tcp.target)))],
      [unix, (c) => c.aioConnectSocket(socket())],
    ];
    for (const [server, connect] of ways) {
      const connection = newConnection();
      const ready = new Promise((resolve) => {
        connection.on('stateChange', (state) => state === 'ready' && resolve(undefined));
      });
      const connecting = connect(connection);
      expect(connection.aioIsConnecting()).toBe(true);
      const peer = await server.accept();
      await peer.handshake();
      await Promise.all([connecting, ready]);
      void peer.serve();
      expect(await connection.pread(16, 0)).toEqual(g.content(0, 16));
    }
  });

  it('a name in the URI becomes the export name, no name leaves the one that was set', async () => {
    const server = await listenRaw();
    for (const [uri, name] of [
      ['/a%20b%C3%A9', 'a bé'],
      ['/', 'set'],
    ]) {
      const connection = newConnection({ exportName: 'set' });
      const connecting = connection.connectUri(`nbd+unix://${uri}?socket=${path(server.target)}`);
      await (await server.accept()).handshake();
      await connecting;
      expect(connection.getExportName()).toBe(name);
    }
  });
});

describe('what cannot be connected to', () => {
  it.each<[string, (c: NbdConnection) => Promise<void>, RegExp]>([
    ['an invalid URI', (c) => c.connectUri('http://x/'), /^connectUri: /],
    ['a URI that is not a string', (c) => c.connectUri(7 as never), /^connectUri: /],
    ['a URI of a bad port', (c) => c.connectUri('nbd://x:99999/'), /port/],
    ['no host', (c) => c.connectTcp('', 10809), /^connectTcp: host/],
    ['a host with a NUL', (c) => c.connectTcp('a\0b', 10809), /^connectTcp: host/],
    ['a host that is not a string', (c) => c.connectTcp({} as never, 10809), /^connectTcp: host/],
    ['port 0', (c) => c.connectTcp('x', 0), /port must be from 1 to 65535, not 0/],
    ['port 65536', (c) => c.connectTcp('x', 65536), /not 65536/],
    ['port 1.5', (c) => c.connectTcp('x', 1.5), /not 1.5/],
    ['port "ssh"', (c) => c.connectTcp('x', 'ssh'), /not ssh/],
    ['port ""', (c) => c.connectTcp('x', ''), /port/],
    ['no path', (c) => c.connectUnix(''), /^connectUnix: path/],
    ['a path that is not a string', (c) => c.connectUnix(null as never), /^connectUnix: path/],
    ['a path with a NUL', (c) => c.connectUnix('/a\0b'), /^connectUnix: path/],
    ['a stream that is not a Duplex', (c) => c.connectSocket({} as never), /^connectSocket: must be a Duplex/],
    ['a stream in object mode', (c) => c.connectSocket(new PassThrough({ objectMode: true })), /object mode/],
    ['a destroyed stream', (c) => c.connectSocket(new PassThrough().destroy()), /destroyed/],
  ])('%s: EINVAL, and the connection is as it was', async (_title, connect, says) => {
    const connection = newConnection({ exportName: 'x' });
    const error = await rejection(connect(connection));
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL' });
    expect((error as Error).message).toMatch(says);
    expect(connection.connectionState()).toBe('created');
    expect(connection.getExportName()).toBe('x');
    expect(caught(() => connection.aioConnectTcp('', 1))).toMatchObject({ code: 'EINVAL', syscall: 'aioConnectTcp' });
  });

  it.each([undefined, null, 7, {}, { host: 7 }, { path: '' }, 'ftp://x'])('connect(%p) rejects', async (target) => {
    expect(await rejection(NbdConnection.connect(target as never))).toMatchObject({ code: 'EINVAL' });
  });

  it('connect() rejects, and never throws, for bad options', async () => {
    for (const options of [null, 7, { nonsense: 1 }, { signal: 'x' }, { maxInFlight: 0 }]) {
      expect(await rejection(NbdConnection.connect({ path: '/nowhere' }, options as never))).toMatchObject({
        code: 'EINVAL',
      });
    }
  });
});

describe('a server that does not answer', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nbd-connect-'));
    writeFileSync(join(folder, 'file'), '');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('a closed port: ECONNREFUSED, and the connection may try again', async () => {
    const free = await freePort();
    const connection = newConnection();
    const states: string[] = [];
    connection.on('stateChange', (state) => states.push(state));
    const error = await rejection(connection.connectTcp('127.0.0.1', free));
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect', cause: { code: 'ECONNREFUSED' } });
    expect((error as Error).message).toContain(`connect to 127.0.0.1:${free}`);
    expect(states).toEqual(['connecting', 'created']);

    const server = createServer((socket) => void new RawPeer(socket).handshake());
    await new Promise<void>((resolve) => server.listen(free, '127.0.0.1', resolve));
    await connection.connectTcp('127.0.0.1', free);
    expect(connection.aioIsReady()).toBe(true);
    connection.close();
    await new Promise((resolve) => server.close(resolve));
  });

  it('a host of two addresses that both refuse: one error, not an AggregateError', async () => {
    const error = await rejection(newConnection().connectTcp('localhost', await freePort()));
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code: 'ECONNREFUSED', cause: { code: 'ECONNREFUSED' } });
  });

  it('an unknown host name', async () => {
    const error = await rejection(newConnection().connectTcp('no-such-host.invalid', 10809));
    expect(error).toBeInstanceOf(NbdConnectionError);
    // Without a network the resolver reports that it cannot be reached, not that the name is unknown.
    expect(['ENOTFOUND', 'EAI_AGAIN', 'ENOTCONN']).toContain((error as NbdError).code);
    expect((error as Error).message).toContain('no-such-host.invalid:10809');
  });

  it.each<[string, () => string, string]>([
    ['a path where nothing is', () => join(folder, 'nothing'), 'ENOENT'],
    ['a file that is not a socket', () => join(folder, 'file'), 'ECONNREFUSED'],
  ])('%s', async (_title, where, code) => {
    const connection = newConnection();
    const closed = new Promise((resolve) => connection.once('close', resolve));
    const error = await rejection(connection.connectUnix(where()));
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code, syscall: 'connect' });
    expect((error as Error).message).toContain('connect to /');
    expect(await closed).toBe(error);
    expect(connection.aioIsDead()).toBe(true);
    expect(await rejection(connection.connectUnix('/elsewhere'))).toBeInstanceOf(NbdStateError);
  });

  it('a path of 108 bytes is refused, and the connection is as it was', async () => {
    const connection = newConnection();
    const error = await rejection(connection.connectUnix(`/${'x'.repeat(107)}`));
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'ENAMETOOLONG' });
    expect(connection.aioIsCreated()).toBe(true);
  });

  it('aioConnect reports the outcome by close and by the state', async () => {
    const connection = newConnection();
    const closed = new Promise((resolve) => connection.once('close', resolve));
    connection.aioConnectUnix(join(folder, 'nothing'));
    expect(await closed).toMatchObject({ code: 'ENOENT' });
    expect(connection.aioIsDead()).toBe(true);
  });
});

describe('a server that refuses or breaks the rules', () => {
  /** Connects to a server that plays `script` after the greeting was answered. */
  async function refused(
    script: (peer: RawPeer) => Promise<void> | void,
    options = {},
  ): Promise<{ error: unknown; peer: RawPeer; connection: NbdConnection }> {
    const server = await listenRaw();
    const connection = newConnection({ requestExtendedHeaders: false, requestStructuredReplies: false, ...options });
    const connecting = rejection(connection.connectUnix(path(server.target)));
    const peer = await server.accept();
    peer.write(g.greeting());
    await peer.take(4);
    await script(peer);
    return { error: await connecting, peer, connection };
  }
  const answerGo =
    (...replies: Buffer[]) =>
    async (peer: RawPeer): Promise<void> => {
      await peer.option();
      peer.write(...replies);
    };

  it('an unknown export: ENOENT with the words of the server, after NBD_OPT_ABORT', async () => {
    const { error, peer, connection } = await refused(answerGo(g.reply(g.OPT.GO, g.ERR_UNKNOWN, 'no \x1bdisk')), {
      exportName: 'disk\n',
    });
    expect(error).toBeInstanceOf(NbdOptionError);
    expect(error).toMatchObject({ code: 'ENOENT', exportName: 'disk\n', serverMessage: 'no \\x1bdisk' });
    expect((error as Error).message).toMatch(/NBD_OPT_GO for export "disk\\n": the server has no such export/);
    expect(await peer.option()).toMatchObject({ number: g.OPT.ABORT });
    await peer.ended;
    expect(peer.buffered).toBe(0);
    expect(connection.aioIsDead()).toBe(true);
  });

  it('TLS is required: ENOTSUP, and how to have it', async () => {
    const { error, peer } = await refused(answerGo(g.reply(g.OPT.GO, g.ERR_TLS_REQD)));
    expect(error).toMatchObject({ name: 'NbdOptionError', code: 'ENOTSUP' });
    expect((error as Error).message).toMatch(/requires TLS.*nbds:\/\//);
    expect(await peer.option()).toMatchObject({ number: g.OPT.ABORT });
  });

  it('a reply out of place: EPROTO, and nothing more is sent', async () => {
    const { error, peer, connection } = await refused(answerGo(g.reply(g.OPT.LIST, g.ACK)));
    expect(error).toBeInstanceOf(NbdProtocolError);
    expect(error).toMatchObject({ code: 'EPROTO' });
    await peer.ended;
    expect(peer.buffered).toBe(0);
    expect(connection.aioIsDead()).toBe(true);
  });

  it('a server that goes away: ENOTCONN', async () => {
    const { error } = await refused(async (peer) => {
      await peer.option();
      peer.stream.end();
    });
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code: 'ENOTCONN' });
    expect((error as Error).message).toMatch(/closed the connection during the handshake/);
  });

  it('a plain newstyle server that goes away may not have the export', async () => {
    const server = await listenRaw();
    const connecting = rejection(newConnection({ exportName: 'disk' }).connectUnix(path(server.target)));
    const peer = await server.accept();
    peer.write(g.greeting(0));
    await peer.take(4);
    await peer.option();
    peer.stream.end();
    const error = await connecting;
    expect(error).toMatchObject({ code: 'ENOTCONN' });
    expect((error as Error).message).toContain('probably has no export "disk"');
  });

  it('a stream that hands out text', async () => {
    const { stream, peer } = memoryPeer();
    stream.setEncoding('utf8');
    const connecting = rejection(newConnection().connectSocket(stream));
    peer.write(g.greeting());
    expect(await connecting).toMatchObject({ name: 'NbdConnectionError', cause: expect.any(TypeError) });
  });

  it('a stream that fails', async () => {
    const stream = new Duplex({ read: () => undefined, write: (_c, _e, done) => done() });
    const connecting = rejection(newConnection().connectSocket(stream));
    const mine = Object.assign(new Error('broken'), { code: 'EBROKEN' });
    stream.destroy(mine);
    expect(await connecting).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN', cause: mine });
  });
});

describe('a second connect', () => {
  it('is EINVAL while connecting, when connected, and after the end', async () => {
    const { connection, peer } = await openRaw();
    const closed = newConnection();
    closed.close();
    const server = await listenRaw();
    const connecting = newConnection();
    connecting.aioConnectUnix(path(server.target));
    for (const each of [connection, closed, connecting]) {
      const state = each.connectionState();
      for (const error of [
        await rejection(each.connectUnix(path(server.target))),
        caught(() => each.aioConnectTcp('localhost', 1)),
        await rejection(each.connectUri('nonsense')),
      ]) {
        expect(error).toBeInstanceOf(NbdStateError);
        expect(error).toMatchObject({ code: 'EINVAL' });
        expect((error as Error).message).toMatch(
          new RegExp(`invalid state: ${state === 'ready' ? 'connected' : state}: the connection must be created`),
        );
      }
      expect(each.connectionState()).toBe(state);
    }
    void peer.serve();
    await connection.flush();
  });
});
