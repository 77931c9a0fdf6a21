// What a user reads where the handshake comes to nothing: the peer speaks another protocol, hangs up, or answers
// NBD_OPT_EXPORT_NAME with a reply. And the option that reaches servers which know no other option.

import { describe, expect, it } from '@jest/globals';

import { type NbdConnectionOptions, type NbdError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { listenRaw, newConnection, openRaw, type RawPeer } from '../../support/raw-server.js';

const MAGIC = Buffer.from('0003e889045565a9', 'hex');

async function failed(
  play: (peer: RawPeer) => Promise<void> | void,
  client: NbdConnectionOptions = {},
  over: 'unix' | 'tcp' = 'unix',
): Promise<NbdError> {
  const server = await listenRaw(over);
  const connection = newConnection({ exportName: 'disk', ...client });
  const { target } = server;
  const error = rejection(
    'path' in target ? connection.connectUnix(target.path) : connection.connectTcp(target.host, target.port),
  );
  const peer = await server.accept();
  await play(peer);
  return (await error) as NbdError;
}

describe('a peer that is not an NBD server is shown', () => {
  it.each<[string, string | Buffer, string | RegExp]>([
    ['ssh', 'SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n', '"SSH-2.0-OpenSSH_9.2p1 Debian-2\\x0d\\x0a"'],
    ['smtp', '220 mail.example ESMTP\r\n', '"220 mail.example ESMTP\\x0d\\x0a"'],
    ['http', 'HTTP/1.1 400 Bad Request\r\n\r\n', '"HTTP/1.1 400 Bad Request'],
    ['a line that steers a terminal', 'welcome \x1b[2J\u202e\n', '"welcome \\x1b[2J\\xe2\\x80\\xae\\x0a"'],
    ['more than a line', 'x'.repeat(5000), /"x{100}…"$/],
    ['MySQL', Buffer.concat([Buffer.from([74, 0, 0, 0, 10]), Buffer.from('8.0.33\0')]), /0x4a0000000a382e30$/],
  ])('%s', async (_name, greeting, shown) => {
    const error = await failed((peer) => peer.write(greeting));
    expect(error).toMatchObject({ name: 'NbdProtocolError', code: 'EPROTO', syscall: 'connect' });
    expect(error.message).toContain('the peer is not an NBD server: it greets with 0x');
    if (typeof shown === 'string') expect(error.message).toContain(shown);
    else expect(error.message).toMatch(shown);
  });

  it('after fewer bytes than a greeting has, too', async () => {
    const error = await failed((peer) => {
      peer.write('no\r\n');
      peer.stream.end();
    });
    expect(error).toMatchObject({ code: 'ENOTCONN' });
    expect(error.message).toContain('not an NBD server: it greets with 0x6e6f0d0a, "no\\x0d\\x0a"');
  });
});

/** Plays the server until the client sends an option, which is not answered. */
async function untilOption(peer: RawPeer, wanted: number, greeting = 3): Promise<void> {
  peer.write(g.greeting(greeting));
  await peer.take(4);
  for (;;) {
    const { number } = await peer.option();
    if (number === wanted) return;
    peer.write(g.reply(number, number === g.OPT.STRUCTURED_REPLY ? g.ACK : g.ERR_UNSUP));
  }
}

describe('a server that hangs up', () => {
  const hangUp = (peer: RawPeer): void => void peer.stream.end();

  it.each<[string, (peer: RawPeer) => Promise<void> | void, RegExp]>([
    [
      'before its greeting',
      () => undefined,
      /, before it had greeted: it may not accept connections from this address/,
    ],
    [
      'at NBD_OPT_GO',
      (peer) => untilOption(peer, g.OPT.GO),
      /at NBD_OPT_GO: it probably has no export "disk", or does not accept .* this address; .* try exportNameOnly$/,
    ],
    [
      'at NBD_OPT_EXPORT_NAME',
      (peer) => untilOption(peer, g.OPT.EXPORT_NAME),
      /at NBD_OPT_EXPORT_NAME: it probably has no export "disk", or does not accept connections from this address$/,
    ],
    [
      'at NBD_OPT_EXPORT_NAME of the plain handshake',
      (peer) => untilOption(peer, g.OPT.EXPORT_NAME, 0),
      /at NBD_OPT_EXPORT_NAME: it probably has no export "disk", or does not accept connections from this address$/,
    ],
    [
      'at an option that it does not know',
      (peer) => untilOption(peer, g.OPT.EXTENDED),
      /at NBD_OPT_EXTENDED_HEADERS; .* try exportNameOnly$/,
    ],
  ])('%s', async (_moment, reach, says) => {
    const error = await failed(async (peer) => {
      await reach(peer);
      hangUp(peer);
    });
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
    expect(error.message).toMatch(/^(connect to .*: )?the server closed the connection during the handshake/);
    expect(error.message).toMatch(says);
  });

  it('with a reset', async () => {
    const error = await failed(
      async (peer) => {
        await untilOption(peer, g.OPT.GO);
        peer.reset();
      },
      {},
      'tcp',
    );
    expect(error).toMatchObject({ code: 'ENOTCONN' });
    expect(error.message).toMatch(/ECONNRESET, at NBD_OPT_GO: it probably has no export "disk"/);
  });

  it('shows no name that is masked', async () => {
    const error = await failed(
      async (peer) => {
        await untilOption(peer, g.OPT.GO);
        hangUp(peer);
      },
      { maskExportName: true },
    );
    expect(error.message).toContain('no export "***"');
    expect(error.message).not.toContain('disk');
  });
});

describe('NBD_OPT_EXPORT_NAME answered with a reply', () => {
  it.each<[string, Buffer, object, RegExp]>([
    [
      'an error',
      g.reply(g.OPT.EXPORT_NAME, g.ERR_UNKNOWN, 'no such thing'),
      { name: 'NbdOptionError', code: 'ENOENT', serverMessage: 'no such thing' },
      /NBD_REP_ERR_UNKNOWN.*probably has no such export, or does not accept connections from this address/,
    ],
    [
      'not an error',
      g.reply(g.OPT.EXPORT_NAME, g.ACK),
      { name: 'NbdProtocolError', code: 'EPROTO' },
      /a reply to NBD_OPT_EXPORT_NAME in place of the export/,
    ],
    ['a reply to another option', g.reply(g.OPT.GO, g.ERR_UNKNOWN), { code: 'EPROTO' }, /a reply to NBD_OPT_GO/],
  ])('%s', async (_name, reply, details, says) => {
    expect(reply.subarray(0, 8)).toEqual(MAGIC);
    const error = await failed(async (peer) => {
      await untilOption(peer, g.OPT.EXPORT_NAME);
      peer.write(reply);
    });
    expect(error).toMatchObject(details);
    expect(error.message).toMatch(says);
  });
});

describe('exportNameOnly', () => {
  /** A server of old: it hangs up at every option but the one. */
  async function old(peer: RawPeer): Promise<void> {
    peer.write(g.greeting());
    await peer.take(4);
    const { number, data } = await peer.option();
    if (number !== g.OPT.EXPORT_NAME) return void peer.stream.end();
    expect(data.toString()).toBe('disk');
    peer.write(g.u64(1 << 20), g.u16(g.ALL_FLAGS));
    peer.structured = false;
    await peer.serve();
  }

  it.each<[string, NbdConnectionOptions]>([
    ['alone', {}],
    [
      'with every other option requested',
      { metaContexts: ['base:allocation'], fullInfo: true, requestBlockSize: true },
    ],
  ])('sends nothing else, %s', async (_title, client) => {
    const server = await listenRaw();
    const connection = newConnection({ exportName: 'disk', exportNameOnly: true, ...client });
    expect(connection.getExportNameOnly()).toBe(true);
    const connected = connection.connectUnix((server.target as { path: string }).path);
    const peer = await server.accept();
    const played = old(peer);
    await connected;
    expect([connection.getProtocol(), connection.getSize()]).toEqual(['newstyle-fixed', 1n << 20n]);
    expect(connection.canMetaContext('base:allocation')).toBe(false);
    expect(await connection.pread(16, 0)).toEqual(g.content(0, 16));
    await connection.shutdown();
    await played;
    expect(peer.options.map(({ number }) => number)).toEqual([g.OPT.EXPORT_NAME]);
  });

  it('in option mode, optGo is the way', async () => {
    const server = await listenRaw();
    const connection = newConnection({ exportName: 'disk', exportNameOnly: true, optMode: true });
    const connected = connection.connectUnix((server.target as { path: string }).path);
    const played = server.accept().then(old);
    await connected;
    for (const method of ['optInfo', 'optList', 'optStructuredReply', 'optSetMetaContext'] as const) {
      expect(await rejection(connection[method]())).toMatchObject({ code: 'ENOTSUP', syscall: method });
    }
    expect(connection.aioIsNegotiating()).toBe(true);
    await connection.optGo();
    expect(connection.getSize()).toBe(1n << 20n);
    await connection.shutdown();
    await played;
  });

  it('such a server is out of reach without, and the error names the way', async () => {
    const error = await failed(old);
    expect(error.message).toContain('exportNameOnly');
  });

  it('is set before connecting, and off by default', async () => {
    const { connection } = await openRaw();
    expect(connection.getExportNameOnly()).toBe(false);
    expect(() => connection.setExportNameOnly(true)).toThrow(/invalid state/);
    const created = newConnection();
    created.setExportNameOnly(true);
    expect(created.getExportNameOnly()).toBe(true);
  });
});
