// README, "Coming from libnbd": every row of the table has its check here, and every check its row.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from '@jest/globals';

import * as nbd from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { nbd as cli, out } from '../cli/support.js';
import { caught, rejection } from '../support/caught.js';
import * as g from '../support/golden.js';
import { listenRaw, newConnection, openRaw, type RawPeer } from '../support/raw-server.js';
import { ROOT } from '../support/root.js';

const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

/** The first cells of the table, which name what libnbd does. */
const rows = (README.split('## Coming from libnbd')[1]?.split('\n## ')[0] ?? '')
  .split('\n')
  .filter((line) => line.startsWith('|') && !/^\| (-|libnbd )/.test(line))
  .map((line) => line.split('|').map((cell) => cell.trim()));

const has = (name: string): boolean => name in nbd.NbdConnection.prototype;
const closed = (c: nbd.NbdConnection): Promise<unknown> => new Promise((resolve) => c.once('close', resolve));
const pathOf = (server: Awaited<ReturnType<typeof listenRaw>>): string => (server.target as { path: string }).path;

/** A connection in option mode whose next option gets the answer. */
async function refusedInfo(type: number): Promise<nbd.NbdError> {
  const server = await listenRaw();
  const c = newConnection({ optMode: true, requestStructuredReplies: false });
  const connected = c.connectUnix(pathOf(server));
  const peer: RawPeer = await server.accept();
  peer.write(g.greeting());
  await peer.take(4);
  await connected;
  const error = rejection(c.optInfo());
  await peer.option();
  peer.write(g.reply(g.OPT.INFO, type));
  return (await error) as nbd.NbdError;
}

type Check = () => Promise<void> | void;

/** By the beginning of the row. */
const CHECKS: Readonly<Record<string, Check>> = {
  '`nbd_poll`': () => {
    for (const name of ['poll', 'poll2', 'aioGetFd', 'aioGetDirection', 'aioNotifyRead', 'aioNotifyWrite']) {
      expect([name, has(name)]).toEqual([name, false]);
    }
    expect(Object.keys(nbd).filter((name) => name.startsWith('AIO_'))).toEqual([]);
  },
  '`nbd_get_error`': async () => {
    expect([has('getError'), has('getErrno')]).toEqual([false, false]);
    expect(await rejection(newConnection().flush())).toMatchObject({ code: 'ENOTCONN', errno: 107 });
  },
  '`nbd_close`': async () => {
    const { connection, peer } = await openRaw();
    let calls = 0;
    connection.aioFlush(() => void calls++);
    const request = await peer.request();
    peer.answer(request);
    while (connection.aioInFlight() > 0) await new Promise(setImmediate);
    connection.close();
    await new Promise(setImmediate);
    expect(calls).toBe(1);
  },
  'Commands that a connection': async () => {
    const { connection, peer } = await openRaw();
    const order: bigint[] = [];
    const issued = [1, 2, 3, 4].map(() => connection.aioFlush((_error, cookie) => void order.push(cookie)));
    await peer.requests(4);
    const end = closed(connection);
    peer.stream.destroy();
    await end;
    expect(order).toEqual(issued);
  },
  'The end of the stream': async () => {
    const { connection, peer } = await openRaw();
    const flushed = rejection(connection.flush());
    await peer.request();
    peer.stream.end();
    expect(await flushed).toMatchObject({ code: 'ENOTCONN' });
    expect(connection.aioIsDead()).toBe(true);
  },
  "A server's ESHUTDOWN": async () => {
    const { connection, peer } = await openRaw();
    const flushed = rejection(connection.flush());
    const end = closed(connection);
    peer.write(g.simple((await peer.request()).cookie, 108));
    expect(await flushed).toMatchObject({ code: 'ESHUTDOWN' });
    expect((await peer.request()).type).toBe(g.CMD.DISC);
    peer.stream.end();
    await end;
    expect(connection.aioIsClosed()).toBe(true);
  },
  '`nbd_shutdown`': async () => {
    await newConnection().shutdown();
    const { connection } = await openRaw();
    connection.close();
    await connection.shutdown();
    expect(connection.aioIsClosed()).toBe(true);
  },
  '`nbd_connect_uri` without': async () => {
    const c = newConnection({ exportName: 'disk' });
    await rejection(c.connectUri('nbd+unix:///?socket=/nowhere'));
    expect(c.getExportName()).toBe('disk');
  },
  '`nbd_aio_connect_*`': async () => {
    const c = newConnection();
    const error = await new Promise((resolve) => c.aioConnectUnix('/nowhere/at/all', resolve));
    expect(error).toMatchObject({ code: 'ENOENT' });
    expect(caught(() => newConnection().aioConnectUnix(''))).toMatchObject({ code: 'EINVAL' });
  },
  'Errno 0': async () => {
    expect(await refusedInfo(g.ERR_POLICY)).toMatchObject({ code: 'EACCES', errno: 13 });
    expect(await refusedInfo(0x800000ff)).toMatchObject({ code: 'EINVAL', errno: 22 });
  },
  'URIs as libxml2': async () => {
    for (const uri of ['nbd://h/#x', 'nbd://h/a%00', 'nbd://u:p@h/', 'nbd://h:0/', 'nbd://h:70000/', 'nbd://h:1x/']) {
      expect([uri, await rejection(newConnection().connectUri(uri))]).toMatchObject([uri, { code: 'EINVAL' }]);
    }
  },
  'A URI overrides': async () => {
    const uri = 'nbds+unix:///?socket=/nowhere';
    const set = { tlsVerifyPeer: true, tlsHostname: 'good.example' };
    for (const parameter of ['tls-verify-peer=no', 'tls-hostname=bad.example']) {
      expect(await rejection(newConnection(set).connectUri(`${uri}&${parameter}`))).toMatchObject({ code: 'EPERM' });
    }
  },
  "A URI's `session_id`": async () => {
    const c = newConnection();
    await rejection(c.connectUri('nbd+unix:///uuid?socket=/nowhere&session_id=a'));
    expect(c.getExportName()).toBe('/uuid?session_id=a');
  },
  'Sizes above': async () => {
    const { connection } = await openRaw({ size: 2n ** 64n - 1n });
    expect(connection.getSize()).toBe(2n ** 64n - 1n);
  },
  '`nbd_set_tls_priority`': () => {
    newConnection().setTlsPriority('ECDHE-RSA-AES256-GCM-SHA384');
    expect(caught(() => newConnection().setTlsPriority('NORMAL:-VERS-ALL'))).toMatchObject({ code: 'EINVAL' });
  },
  '`nbd_connect_tcp`': async () => {
    expect(await rejection(newConnection().connectTcp('localhost', 'nbd'))).toMatchObject({ code: 'EINVAL' });
  },
  '`nbd_get_handshake_flags`': async () => {
    const { connection } = await openRaw({ over: 'tcp' });
    expect([connection.getHandshakeFlags(), connection.getTlsHostname()]).toEqual([nbd.HANDSHAKE_FLAG_MASK, '']);
  },
  'A short read': async () => {
    for (const raw of [false, true]) {
      const { connection, peer } = await openRaw();
      const error = raw
        ? new Promise((resolve) => connection.aioPread(Buffer.alloc(64), 0, (failure) => void resolve(failure)))
        : rejection(connection.pread(64, 0));
      const { cookie } = await peer.request();
      peer.write(g.dataChunk(cookie, 0, g.content(0, 32)));
      expect(await error).toMatchObject({ code: 'EPROTO' });
    }
  },
  'Limits of what': async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1, maxQueued: 1 } });
    const settled = [connection.flush(), connection.flush()];
    expect(await rejection(connection.flush())).toMatchObject({ code: 'EAGAIN' });
    void peer.serve();
    await Promise.all(settled);
  },
  '`nbddump -n` shortens': async () => {
    const server = new NbdServer();
    server.addExport('', { backend: new MemoryBackend(512) });
    await server.listenTcp(0, '127.0.0.1');
    const codes: (number | null)[] = [];
    for (const option of ['-n1k', '--limit=1k']) codes.push((await cli(['dump', option, server.uri()])).code);
    await server.close();
    expect(codes).toEqual([1, 0]);
  },
  '`nbdzero` always': async () => {
    expect(await out(['zero', '--help'])).toContain('--allocate');
  },
  '`nbdcopy` waits': async () => {
    for (const [size, request] of [
      [8, 256 * 1024],
      [16, 1024 * 1024],
    ] as const) {
      const counts = new Set<number>();
      await using server = new NbdServer({
        exports: { '': new MemoryBackend(size * 1024 * 1024) },
        maxConnections: 1,
        onRequest: ({ command, count }) => void (command === 'pread' && counts.add(Number(count))),
      });
      await server.listenTcp();
      expect((await cli(['copy', '--no-extents', server.uri(), 'null:'])).code).toBe(0);
      expect([size, [...counts]]).toEqual([size, [request]]);
    }
  },
  '`NBD_OPT_GO`': () => {
    expect(newConnection({ exportNameOnly: true }).getExportNameOnly()).toBe(true);
  },
};

describe('README: coming from libnbd', () => {
  const firsts = rows.map(([, first]) => first ?? '');

  it('has a check for each row, and a row for each check', () => {
    const beginnings = Object.keys(CHECKS);
    expect(firsts.filter((first) => beginnings.filter((each) => first.startsWith(each)).length !== 1)).toEqual([]);
    expect(beginnings.filter((each) => firsts.filter((first) => first.startsWith(each)).length !== 1)).toEqual([]);
  });

  it('explains in each row what differs and why', () => {
    for (const [, first, here, why] of rows) expect([first, here, why].every((cell) => (cell ?? '') !== '')).toBe(true);
  });

  it.each(Object.entries(CHECKS))('%s', async (_row, check) => {
    await check();
  });
});
