import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from '@jest/globals';

import {
  CMD_FLAG_FAST_ZERO,
  CMD_FLAG_FUA,
  CMD_FLAG_NO_HOLE,
  NbdCommandError,
  NbdConnection,
  type NbdConnectionOptions,
  type NbdError,
  STRICT_COMMANDS,
  STRICT_FLAGS,
  STRICT_MASK,
  STRICT_ZERO_SIZE,
} from '../../lib/index.js';
import { caught, rejection } from '../support/caught.js';
import { content } from '../support/golden.js';
import { atAnyPace } from '../support/pace.js';
import { describeWith, type NbdkitOptions, type RealServer, startNbdkit } from '../support/real-servers.js';

const MIB = 1 << 20;

const connections: NbdConnection[] = [];
const servers: RealServer[] = [];
afterEach(async () => {
  await Promise.all(connections.splice(0).map((each) => each.shutdown()));
  await Promise.all(servers.splice(0).map((each) => each.stop()));
});

async function start(options: NbdkitOptions): Promise<RealServer> {
  const server = await startNbdkit(options);
  servers.push(server);
  return server;
}

async function open(options: NbdkitOptions, client: NbdConnectionOptions = {}): Promise<NbdConnection> {
  const connection = await NbdConnection.connect((await start(options)).uri(), client);
  connections.push(connection);
  return connection;
}

describeWith(['nbdkit'], 'errors of nbdkit', () => {
  it.each([
    ['cache', 'EIO', (c: NbdConnection) => c.cache(512, 4096)],
    ['cache', 'ENOSPC', (c: NbdConnection) => c.cache(512, 4096)],
    ['cache', 'EPERM', (c: NbdConnection) => c.cache(512, 4096)],
    ['pread', 'ENOMEM', (c: NbdConnection) => c.pread(512, 4096)],
    ['pread', 'ESHUTDOWN', (c: NbdConnection) => c.pread(512, 4096)],
    ['pwrite', 'ENOSPC', (c: NbdConnection) => c.pwrite(Buffer.alloc(512), 4096)],
    ['trim', 'EIO', (c: NbdConnection) => c.trim(512, 4096)],
    ['zero', 'ENOTSUP', (c: NbdConnection) => c.zero(512, 4096, CMD_FLAG_FAST_ZERO)],
    ['extents', 'EIO', (c: NbdConnection) => c.blockStatus(512, 4096)],
  ] as const)('%s with %s fails this command only', async (command, code, call) => {
    // nbdkit's names for them.
    const name = code === 'ENOTSUP' ? 'EOPNOTSUPP' : code;
    // To nbdkit, a script that does not read its input is another failure (EIO), if it ends before nbdkit has written.
    const input = command === 'pwrite' ? 'cat >/dev/null; ' : '';
    const connection = await open(
      { plugin: 'eval', args: evalPlugin({ [command]: `${input}echo ${name} it is broken >&2; exit 1` }) },
      { metaContexts: ['base:allocation'] },
    );
    const error = await rejection(call(connection));
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error).toMatchObject({ code, cookie: 1n, count: 512n, offset: 4096n });
    if (code === 'ESHUTDOWN') return;
    expect(connection.aioIsReady()).toBe(true);
    if (command !== 'pread') expect((await connection.pread(512, 0)).length).toBe(512);
  });

  it('the error filter: a raw cache fails with its errno, and the next works', async () => {
    const connection = await open({ filters: ['error'], args: ['1M', 'error-cache=ENOSPC', 'error-cache-rate=50%'] });
    const told: (string | undefined)[] = [];
    const cookies = Array.from({ length: 100 }, () =>
      connection.aioCache(512, 0, (error) => void told.push(error?.code)),
    );
    while (connection.aioInFlight() > 0) await new Promise((resolve) => setImmediate(resolve));
    const polled = cookies.map((cookie) => {
      try {
        return connection.aioCommandCompleted(cookie) ? undefined : 'pending';
      } catch (error) {
        return (error as NbdError).code;
      }
    });
    expect([...polled].sort()).toEqual([...told].sort());
    expect(new Set(told)).toEqual(new Set([undefined, 'ENOSPC']));
    expect(cookies.every((cookie) => !connection.aioCommandCompleted(cookie))).toBe(true);
    expect(connection.aioIsReady()).toBe(true);
  });

  it('reads that fail now and then: the others are right', async () => {
    const connection = await open({
      ...{ plugin: 'pattern', filters: ['error'], args: ['1M', 'error-pread=EIO', 'error-pread-rate=20%'] },
    });
    const results = await Promise.allSettled(Array.from({ length: 500 }, (_, i) => connection.pread(800, i * 800)));
    const good = results.flatMap((result, i) => (result.status === 'fulfilled' ? [[i, result.value] as const] : []));
    const bad = results.flatMap((result) => (result.status === 'rejected' ? [(result.reason as NbdError).code] : []));
    expect(bad.length).toBeGreaterThan(10);
    expect(new Set(bad)).toEqual(new Set(['EIO']));
    for (const [i, data] of good) {
      // The pattern plugin gives each 8 bytes their own offset.
      for (let at = 0; at < 800; at += 8) {
        if (data.readBigUInt64BE(at) !== BigInt(i * 800 + at)) throw new Error(`wrong data at ${i * 800 + at}`);
      }
    }
  });
});

/** A small plugin in shell, with some of its functions replaced. */
function evalPlugin(over: Record<string, string>): string[] {
  const functions = {
    get_size: 'echo 1M',
    pread: 'dd if=/dev/zero count=$3 iflag=count_bytes 2>/dev/null',
    ...{ pwrite: 'cat >/dev/null', trim: ':', zero: ':', cache: ':', flush: ':', can_cache: 'echo native' },
    ...{ can_zero: 'exit 0', can_trim: 'exit 0', can_fast_zero: 'exit 0', can_flush: 'exit 0', can_fua: 'echo native' },
    ...{ can_write: 'exit 0', can_extents: 'exit 0', extents: 'echo 0 1M' },
    ...over,
  };
  return Object.entries(functions).map(([name, script]) => `${name}=${script}`);
}

describeWith(['nbdkit'], 'checks that are switched off', () => {
  it('an unadvertised cache goes out, and the server refuses it', async () => {
    const connection = await open({ filters: ['nocache'], args: ['1M', 'cachemode=none'] });
    expect(connection.canCache()).toBe(false);
    expect(await rejection(connection.cache(512, 0))).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
    connection.setStrictMode(STRICT_MASK & ~STRICT_COMMANDS);
    expect(await rejection(connection.cache(512, 0))).toMatchObject({ name: 'NbdCommandError', code: 'EINVAL' });
    expect(connection.aioIsReady()).toBe(true);
  });

  it.each([
    ['FLAGS', STRICT_FLAGS, (c: NbdConnection) => c.cache(512, 0, CMD_FLAG_NO_HOLE)],
    ['ZERO_SIZE', STRICT_ZERO_SIZE, (c: NbdConnection) => c.cache(0, 0)],
  ] as const)('%s: the server answers EINVAL', async (_name, bit, call) => {
    const connection = await open({ args: ['1M'] });
    expect(await rejection(call(connection))).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
    connection.setStrictMode(STRICT_MASK & ~bit);
    const sent = connection.statsBytesSent();
    expect(await rejection(call(connection))).toMatchObject({ name: 'NbdCommandError', code: 'EINVAL' });
    expect(connection.statsBytesSent()).toBe(sent + 28n);
    expect((await connection.pread(1, 0)).length).toBe(1);
  });
});

describeWith(['nbdkit'], 'what nbdkit sees', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-log-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('is what was requested, with its flags', async () => {
    const logfile = join(folder, 'log');
    const connection = await open(
      { filters: ['log'], args: ['1M', `logfile=${logfile}`] },
      { metaContexts: ['base:allocation'] },
    );
    await connection.pread(512, 4096);
    await connection.pwrite(Buffer.alloc(1000), 1, CMD_FLAG_FUA);
    await connection.pwrite(Buffer.alloc(1000), 2);
    await connection.trim(4096, 8192, CMD_FLAG_FUA);
    await connection.zero(4096, 16384, CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO).catch(() => undefined);
    await connection.cache(65536, 32768);
    await connection.blockStatus(512, 1024);
    await connection.flush();
    await connection.shutdown();
    const log = await readFile(logfile, 'utf8');
    for (const line of [
      / Read .*offset=0x1000 count=0x200 /,
      / Write .*offset=0x1 count=0x3e8 fua=1 /,
      / Write .*offset=0x2 count=0x3e8 fua=0 /,
      / Trim .*offset=0x2000 count=0x1000 fua=1 /,
      / Zero .*offset=0x4000 count=0x1000 trim=0 fua=0 fast=1 /,
      / Cache .*offset=0x8000 count=0x10000 /,
      / Extents .*offset=0x400 count=0x200 /,
      / Flush /,
    ]) {
      expect(log).toMatch(line);
    }
  });

  it('many commands at once, and answers them out of order', async () => {
    const connection = await open({ filters: ['delay'], args: ['1M', 'rdelay=1'] }, { maxInFlight: 16 });
    const order: string[] = [];
    const slow = Array.from({ length: 10 }, (_, i) =>
      connection.pread(512, i * 512).then(() => order.push(`read ${i}`)),
    );
    await connection.cache(512, 0).then(() => order.push('cache'));
    // The server had received every read before it, and has answered no read.
    expect(order).toEqual(['cache']);
    expect(connection.aioInFlight()).toBe(10);
    await Promise.all(slow);
    expect(order).toHaveLength(11);
  });
});

describeWith(['nbdkit'], 'exports of nbdkit', () => {
  it('read-only: EPERM, nothing sent', async () => {
    const connection = await open({ args: ['1M'], options: ['-r'] });
    expect(connection.isReadOnly()).toBe(true);
    const sent = connection.statsBytesSent();
    // What it does not advertise on a read-only export is EINVAL, which comes first.
    expect(await rejection(connection.pwrite(Buffer.alloc(512), 0))).toMatchObject({ code: 'EPERM' });
    expect(caught(() => connection.aioPwrite(Buffer.alloc(512), 0))).toMatchObject({ code: 'EPERM' });
    expect(connection.statsBytesSent()).toBe(sent);
    await connection.cache(512, 0);
  });

  it('of the largest size', async () => {
    const connection = await open({ args: [String(2n ** 63n - 1n)] });
    expect(connection.getSize()).toBe(2n ** 63n - 1n);
    await connection.pwrite(content(0, 512), 2n ** 63n - 513n);
    expect((await connection.pread(512, 2n ** 63n - 513n)).equals(content(0, 512))).toBe(true);
    await connection.cache(2 ** 32 - 1, 2n ** 62n);
  });

  it('without structured replies', async () => {
    const connection = await open({ args: ['1M'], options: ['--no-sr'] }, { metaContexts: ['base:allocation'] });
    expect(connection.getStructuredRepliesNegotiated()).toBe(false);
    expect(connection.canDf()).toBe(false);
    await connection.pwrite(content(0, 4096), 0);
    expect((await connection.pread(4096, 0)).equals(content(0, 4096))).toBe(true);
    expect(await rejection(connection.blockStatus(512, 0))).toMatchObject({ code: 'ENOTSUP' });
  });

  it.each([
    ['oldstyle', ['-o'], 'oldstyle'],
    ['plain newstyle', ['--mask-handshake=0'], 'newstyle'],
    ['newstyle without NO_ZEROES', ['--mask-handshake=1'], 'newstyle-fixed'],
  ])('%s', async (_title, options, protocol) => {
    const connection = await open({ args: ['1M'], options });
    expect(connection.getProtocol()).toBe(protocol);
    expect(connection.getSize()).toBe(BigInt(MIB));
    await connection.pwrite(content(0, 512), 512);
    expect((await connection.pread(512, 512)).equals(content(0, 512))).toBe(true);
    // nbdkit advertises it to oldstyle clients, too, and refuses it then.
    if (protocol !== 'oldstyle') await connection.cache(512, 0);
  });

  it('oldstyle cannot choose an export', async () => {
    const server = await start({ args: ['1M'], options: ['-o'] });
    expect(await rejection(NbdConnection.connect(server.uri('disk')))).toMatchObject({ code: 'ENOTSUP' });
  });

  it('that needs TLS is reported as such', async () => {
    const server = await start({ args: ['1M'], tls: { psk: '/dev/null' } });
    const error = await rejection(NbdConnection.connect({ path: server.socketPath! }));
    expect(error).toMatchObject({ code: 'ENOTSUP', name: 'NbdOptionError' });
    expect((error as Error).message).toMatch(/requires TLS.*nbds:\/\//);
  });

  it('of any name', async () => {
    const server = await start({ plugin: 'info', args: ['mode=exportname'] });
    for (const name of ['', 'disk', 'a b/c?d', 'é'.repeat(40)]) {
      const connection = await NbdConnection.connect(server.uri(name), { fullInfo: true });
      connections.push(connection);
      const size = Number(connection.getSize());
      expect(size).toBe(Buffer.byteLength(name));
      if (size > 0) expect((await connection.pread(size, 0)).toString()).toBe(name);
    }
  });

  it('with block sizes', async () => {
    const connection = await open({
      filters: ['blocksize-policy'],
      args: ['1M', 'blocksize-minimum=4096', 'blocksize-maximum=65536', 'blocksize-error-policy=error'],
    });
    expect([0, 1, 2, 3].map((kind) => connection.getBlockSize(kind))).toEqual([4096, 4096, 65536, MIB]);
    expect(await rejection(connection.cache(512, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    expect(await rejection(connection.cache(4096, 512))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    await connection.cache(4096, 4096);
    connection.setStrictMode(0);
    expect(await rejection(connection.pread(512, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdCommandError' });
  });
});

/** Stops the process and waits until it has: the signal alone only requests it. */
async function suspend(server: RealServer): Promise<void> {
  server.kill('SIGSTOP');
  while (!(await readFile(`/proc/${server.pid}/stat`, 'utf8')).includes(') T ')) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describeWith(['nbdkit'], 'an nbdkit that goes away', () => {
  it('killed: every command ends, and the next connection works', async () => {
    const server = await start({ filters: ['delay'], args: ['1M', 'rdelay=10'] });
    const connection = await NbdConnection.connect(server.uri());
    const pending = Array.from({ length: 100 }, () => rejection(connection.pread(512, 0)));
    const closed = new Promise((resolve) => connection.once('close', resolve));
    await new Promise((resolve) => setTimeout(resolve, 20));
    server.kill('SIGKILL');
    for (const error of await Promise.all(pending)) expect(error).toMatchObject({ code: 'ENOTCONN', syscall: 'pread' });
    expect(await closed).toMatchObject({ code: 'ENOTCONN' });
    expect(connection.aioIsDead()).toBe(true);
    expect(await rejection(NbdConnection.connect(server.uri()))).toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('stopped: requestTimeout gives up, and nothing hangs', async () => {
    const server = await start({ args: ['1M'] });
    await atAnyPace(async (pace) => {
      const connection = await NbdConnection.connect(server.uri(), { requestTimeout: 150 * pace });
      await connection.cache(512, 0);
      await suspend(server);
      expect(await rejection(connection.cache(512, 0))).toMatchObject({ code: 'ETIMEDOUT' });
      expect(connection.aioIsDead()).toBe(true);
      server.kill('SIGCONT');
    });
  });

  it('stopped and continued: goes on', async () => {
    const server = await start({ args: ['1M'] });
    const connection = await NbdConnection.connect(server.uri());
    connections.push(connection);
    await suspend(server);
    const reading = connection.pread(512, 0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    server.kill('SIGCONT');
    expect((await reading).length).toBe(512);
  });
});
