// Faults that nbdkit makes itself, with its filters: errors at random, delays, a slow link, limits; and exports that
// change between two connections.

import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';

import { NbdCommandError, NbdConnection, type NbdConnectionOptions, type NbdError } from '../../lib/index.js';
import { randomNumbers } from '../support/deliver.js';
import { content } from '../support/golden.js';
import { type NbdkitOptions, type RealServer, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { outcome } from './invariants.js';

const MIB = 1 << 20;
const BLOCK = 4096;

let folder: string;
const servers: RealServer[] = [];
const connections: NbdConnection[] = [];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-filters-'));
});
afterEach(async () => {
  await Promise.all(connections.splice(0).map((each) => each.shutdown()));
  await Promise.all(servers.splice(0).map((each) => each.stop()));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function start(options: NbdkitOptions): Promise<RealServer> {
  const server = await startNbdkit(options);
  servers.push(server);
  return server;
}

async function open(server: RealServer, options: NbdConnectionOptions = {}): Promise<NbdConnection> {
  const connection = await NbdConnection.connect(server.uri(), options);
  connections.push(connection);
  return connection;
}

describeWith(['nbdkit'], 'F13: the error filter', () => {
  const OPERATIONS = 300;

  it.each([
    ['EIO', 1],
    ['EIO', 50],
    ['EPERM', 10],
    ['ENOSPC', 25],
    ['ENOMEM', 50],
    ['EINVAL', 10],
  ])('%s at %d %%: only those commands fail, everything else is right', async (code, rate) => {
    const args = ['4M', `error=${code}`, `error-rate=${rate}%`];
    const connection = await open(await start({ filters: ['error'], args }), { metaContexts: ['base:allocation'] });
    const seed = Math.floor(Math.random() * 2 ** 32);
    const next = randomNumbers(seed);
    // What the export must hold; each round changes and reads other blocks, so that order does not matter.
    const model = Buffer.alloc(4 * MIB);
    const failed: NbdError[] = [];
    const wrong: string[] = [];
    const note = async (what: string, promise: Promise<unknown>, done: (value: unknown) => void): Promise<void> => {
      const { word, error } = await outcome(promise.then(done));
      if (word === 'ok') return;
      failed.push(error as NbdError);
      if (word !== code) wrong.push(`${what}: ${word}`);
    };
    for (let round = 0; round < 3; round++) {
      const works = Array.from({ length: OPERATIONS }, (_, i) => {
        const at = i * BLOCK;
        const part = model.subarray(at, at + BLOCK);
        switch (Math.floor(next() * 7)) {
          case 0:
          case 1: {
            const bytes = content(at + round, BLOCK);
            return note('pwrite', connection.pwrite(bytes, at), () => part.set(bytes));
          }
          case 2:
            return note('trim', connection.trim(BLOCK, at), () => part.fill(0));
          case 3:
            return note('zero', connection.zero(BLOCK, at), () => part.fill(0));
          case 4:
            return note('blockStatus', connection.blockStatus(BLOCK, at), () => undefined);
          default:
            return note('pread', connection.pread(BLOCK, at), (bytes) => {
              if (!part.equals(bytes as Buffer)) wrong.push(`pread at ${at}: success with wrong data`);
            });
        }
      });
      await Promise.all(works);
    }
    expect({ seed, wrong }).toEqual({ seed, wrong: [] });
    expect(failed.every((error) => error instanceof NbdCommandError && error.cookie !== undefined)).toBe(true);
    // At 1 % the chance of no failure at all is 1 in 8,000.
    if (rate > 1) expect(failed.length).toBeGreaterThan(0);
    expect(connection.aioIsReady()).toBe(true);
    // A failed write has changed nothing: the filter is in front of the memory.
    for (let at = 0; at < OPERATIONS * BLOCK;) {
      const { word } = await outcome(
        connection
          .pread(BLOCK, at)
          .then((bytes) =>
            expect({ at, seed, same: bytes.equals(model.subarray(at, at + BLOCK)) }).toMatchObject({ same: true }),
          ),
      );
      if (word === 'ok') at += BLOCK;
      else expect(word).toBe(code);
    }
  });

  it('ESHUTDOWN: that command fails, what is under way settles, then the client leaves', async () => {
    const args = ['1M', 'error-pwrite=ESHUTDOWN', 'error-pwrite-rate=100%'];
    const connection = await open(await start({ filters: ['error'], args }));
    const closed = new Promise((resolve) => connection.once('close', resolve));
    const [read, write] = await Promise.all([
      outcome(connection.pread(512, 0)),
      outcome(connection.pwrite(Buffer.alloc(512), 0)),
    ]);
    expect([read.word, write.word]).toEqual(['ok', 'ESHUTDOWN']);
    expect((await outcome(connection.pread(512, 0))).word).toBe('EINVAL');
    expect(await closed).toBeUndefined();
    expect(connection.connectionState()).toBe('closed');
  });
});

describeWith(['nbdkit'], 'slow servers', () => {
  it('F14: replies in any order go to the right commands', async () => {
    const names = {
      ...{ get_size: 'echo 1M', thread_model: 'echo parallel' },
      // Each block contains its own number; the first request is not answered first.
      pread: 'n=$(($4 / 512)); sleep 0.$((n * 7 % 5)); printf "%512d" $n',
    };
    const args = Object.entries(names).map(([name, script]) => `${name}=${script}`);
    const connection = await open(await start({ plugin: 'eval', args }));
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 16 }, async (_, n) => {
        expect((await connection.pread(512, n * 512)).toString()).toBe(String(n).padStart(512));
        order.push(n);
      }),
    );
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
    expect(connection.aioIsReady()).toBe(true);
  });

  it('F15: a slow link delivers everything, under back-pressure', async () => {
    // Two seconds' worth, which is half of it, goes through at once.
    const connection = await open(await start({ filters: ['rate'], args: ['2M', 'rate=2M'] }), { maxInFlight: 2 });
    const begun = performance.now();
    await Promise.all(
      Array.from({ length: 10 }, async (_, i) => {
        await connection.pwrite(content(i, 64 * 1024), i * 64 * 1024);
        expect((await connection.pread(64 * 1024, i * 64 * 1024)).equals(content(i, 64 * 1024))).toBe(true);
      }),
    );
    // It was slow at all.
    expect(performance.now() - begun).toBeGreaterThan(150);
  });

  it('F12: pause, then resume: nothing is lost', async () => {
    const socket = join(folder, 'pause');
    const connection = await open(await start({ filters: ['pause'], args: ['1M', `pause-control=${socket}`] }));
    const control = connect(socket);
    const say = (letter: string): Promise<string> =>
      new Promise((resolve) => {
        control.once('data', (answer) => resolve(answer.toString()));
        control.write(letter);
      });
    expect(await say('p')).toBe('P');
    const all = [connection.pread(512, 0), connection.pwrite(Buffer.alloc(512), 512), connection.trim(512, 1024)];
    await delay(50);
    expect(connection.aioInFlight()).toBe(3);
    expect(await say('r')).toBe('R');
    await Promise.all(all);
    control.destroy();
  });

  it('F07: an export that takes long to open is waited for, up to connectTimeout', async () => {
    const server = await start({ filters: ['delay'], args: ['1M', 'delay-open=1500ms'] });
    const { word } = await outcome(NbdConnection.connect(server.uri(), { connectTimeout: 300 }));
    expect(word).toBe('ETIMEDOUT');
    await open(server, { connectTimeout: 20_000 });
  });
});

describeWith(['nbdkit'], 'limits', () => {
  it('F16: what the server would refuse is not sent', async () => {
    const sizes = ['blocksize-minimum=4096', 'blocksize-preferred=4096', 'blocksize-maximum=65536'];
    const connection = await open(
      await start({ filters: ['blocksize-policy'], args: ['1M', ...sizes, 'blocksize-error-policy=error'] }),
    );
    const sent = connection.statsBytesSent();
    const refused = [
      connection.pread(512, 0),
      connection.pread(4096, 512),
      connection.pwrite(Buffer.alloc(4095), 0),
      connection.trim(512, 0),
      connection.zero(4096, 1),
      connection.cache(512, 4096),
    ];
    for (const refusal of refused)
      expect(await outcome(refusal)).toMatchObject({ word: 'EINVAL', error: { name: 'NbdStrictError' } });
    // Above the server's maximum for payloads, and above that of the protocol.
    const tooLarge = [connection.pwrite(Buffer.alloc(65 * MIB), 0), connection.pread(65 * MIB, 0)];
    for (const refusal of tooLarge) expect((await outcome(refusal)).word).toMatch(/^(ERANGE|EINVAL|ENOSPC)$/);
    expect(connection.statsBytesSent()).toBe(sent);
    await connection.pwrite(Buffer.alloc(65536), 0);
    await connection.pread(65536, 4096);
  });

  it('F24: a server at its limit: a clear error at once, and success when another client has left', async () => {
    const server = await start({ filters: ['limit'], args: ['1M', 'limit=1'] });
    const first = await open(server);
    const refused = await outcome(NbdConnection.connect(server.uri(), { connectTimeout: 0 }));
    expect(refused.word).toBe('ENOTCONN');
    expect((refused.error as Error).message).toMatch(/closed the connection during the handshake/);
    await first.pread(512, 0);
    await first.shutdown();
    // It counts a client until its thread has ended, which is a moment after the connection has.
    for (;;) {
      const { word } = await outcome(open(server));
      if (word === 'ok') break;
      expect(word).toBe('ENOTCONN');
      await delay(10);
    }
  });
});

describeWith(['nbdkit', 'qemu-nbd', 'qemu-img'], 'an export that changes between two connections', () => {
  it('F22: the new connection sees the new size', async () => {
    const socketPath = join(folder, 'sized');
    for (const [arg, size] of [
      ['1M', BigInt(MIB)],
      ['3M', 3n * BigInt(MIB)],
    ] as const) {
      const server = await start({ args: ['512k', `truncate=${arg}`], filters: ['truncate'], socketPath });
      const connection = await open(server);
      expect(connection.getSize()).toBe(size);
      expect((await outcome(connection.pread(512, size - 512n))).word).toBe('ok');
      expect((await outcome(connection.pread(512, size))).word).toBe('EINVAL');
      await connection.shutdown();
      await server.stop();
      await rm(socketPath, { force: true });
    }
  });

  it('F23: an export that is gone is ENOENT', async () => {
    const socketPath = join(folder, 'named');
    const first = await startQemuNbd({ socketPath, size: MIB, exportName: 'here' });
    await using before = await NbdConnection.connect(first.uri('here'));
    const closed = new Promise((resolve) => before.once('close', resolve));
    first.kill('SIGKILL');
    await closed;
    await first.stop();
    await rm(socketPath, { force: true });
    const second = await startQemuNbd({ socketPath, size: MIB, exportName: 'there' });
    servers.push(second);
    expect(await outcome(NbdConnection.connect(second.uri('here')))).toMatchObject({
      ...{ word: 'ENOENT', error: { name: 'NbdOptionError' } },
    });
  });
});

describeWith(['qemu-nbd', 'qemu-img'], 'a write that is too large for qemu-nbd, which hangs up', () => {
  it('F16: is refused; sent all the same, it fails, and what is with it too', async () => {
    const server = await startQemuNbd();
    servers.push(server);
    const large = Buffer.alloc(33 * MIB);
    const strict = await open(server);
    expect(await outcome(strict.pwrite(large, 0))).toMatchObject({ word: 'ERANGE', error: { name: 'NbdStrictError' } });
    await strict.shutdown();

    const lax = await open(server, { strictMode: 0 });
    const [write, read] = await Promise.all([outcome(lax.pwrite(large, 0)), outcome(lax.pread(512, 0))]);
    // The server may answer before it hangs up.
    expect(write.word).toMatch(/^(EINVAL|ENOTCONN)$/);
    expect(read.word).toBe('ENOTCONN');
    expect(lax.connectionState()).toBe('dead');
  });
});
