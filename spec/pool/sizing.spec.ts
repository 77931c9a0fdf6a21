// How many connections a pool makes, to which servers; and that one which does not come costs nobody anything.

import { describe, expect, it, jest } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';

import { NbdPool } from '../../lib/index.js';
import { Sizing } from '../../lib/pool/connections/sizing.js';
import { MemoryBackend, type NbdBackend, NbdServer } from '../../lib/server/index.js';
import { describeWith, startNbdkit, startQemuNbd } from '../support/real-servers.js';

/** Reads, many at a time, until `isDone` or for so many rounds. */
async function work(pool: NbdPool, rounds: number, isDone: () => boolean = () => false): Promise<void> {
  for (let round = 0; round < rounds && !isDone(); round++) {
    await Promise.all(Array.from({ length: 32 }, (_, i) => pool.pread(65536, i * 65536)));
  }
}

/** A millisecond for every read. */
class SlowBackend implements NbdBackend {
  readonly size = 4 * 2 ** 20;
  readonly multiConn: boolean;

  constructor(multiConn = true) {
    this.multiConn = multiConn;
  }

  async read(buffer: Buffer): Promise<void> {
    await sleep(1);
    buffer.fill(1);
  }
}

describe('the size of a pool', () => {
  it('grows with the work, up to what it may be, and goes where there is least', async () => {
    await using server = new NbdServer({ exports: { '': new SlowBackend() } });
    await server.listenTcp();
    await using pool = await NbdPool.connect(server.uri(), { connections: 3 });
    await pool.pread(512, 0);
    await pool.pread(512, 0);
    expect(pool.statistics.connections).toBe(1);
    await work(pool, 1000, () => pool.statistics.connections === 3);
    await work(pool, 5);
    expect(pool.statistics).toEqual({ connections: 3, reconnects: 0, retries: 0, replayed: 0 });
    expect(server.statistics.connections).toBe(3);
  });

  it.each<[string, boolean, number]>([
    ['a server without multi-conn', false, 4],
    ['connections: 1', true, 1],
  ])('stays at one for %s', async (_title, multiConn, connections) => {
    await using server = new NbdServer({ exports: { '': new SlowBackend(multiConn) } });
    await server.listenTcp();
    await using pool = await NbdPool.connect(server.uri(), { connections });
    await work(pool, 5);
    expect(server.statistics.connections).toBe(1);
  });

  it('one frozen connection delays nobody else', async () => {
    await using server = new NbdServer({ exports: { '': new MemoryBackend(4 * 2 ** 20) }, closeTimeout: 1 });
    await server.listenTcp();
    const pool = await NbdPool.connect(server.uri(), { connections: 2, requestTimeout: 0 });
    server.faults.push({ command: 'read', when: ({ connection }) => connection === 1, stall: true });
    const frozen = pool.pread(65536, 0);
    frozen.catch(() => undefined);
    while (pool.statistics.connections < 2) {
      void pool.pread(65536, 0).catch(() => undefined);
      await sleep(5);
    }
    for (let i = 0; i < 50; i++) await pool.pread(512, 0);
    pool.close();
    await expect(frozen).rejects.toMatchObject({ code: 'ENOTCONN' });
  });

  it('a server that closes further connections is asked again only after a while', async () => {
    await using server = new NbdServer({ exports: { '': new SlowBackend() }, maxConnections: 1 });
    await server.listenTcp();
    await using pool = await NbdPool.connect(server.uri());
    await work(pool, 20);
    expect(pool.statistics).toMatchObject({ connections: 1, reconnects: 0 });
    expect(server.statistics.refusedConnections).toBe(1);
  });
});

describe('sizing', () => {
  it('pays for what did not come with pauses that grow, and lets go of what rests', async () => {
    jest.useFakeTimers();
    try {
      const grown: boolean[] = [];
      let isComing = false;
      let members = 1;
      const sizing = new Sizing({
        grow: async () => {
          grown.push(isComing);
          if (isComing) members++;
          return isComing;
        },
        shrink: () => --members > 1,
      });
      const attempts = async (ms: number): Promise<number> => {
        const before = grown.length;
        for (let at = 0; at < ms; at += 1000) {
          sizing.grow();
          await jest.advanceTimersByTimeAsync(1000);
        }
        return grown.length - before;
      };
      expect(await attempts(5000)).toBe(1);
      expect(await attempts(10_000)).toBe(1);
      expect(await attempts(20_000)).toBe(1);
      isComing = true;
      expect(await attempts(40_000)).toBeGreaterThan(0);
      members = 3;
      await jest.advanceTimersByTimeAsync(120_000);
      expect(members).toBe(1);
      sizing.stop();
      expect(jest.getTimerCount()).toBe(0);
    } finally {
      jest.useRealTimers();
    }
  });
});

describeWith(['qemu-nbd'], 'qemu-nbd -e 2', () => {
  it('gives two connections; the third hangs and is given up, and nothing waits for it', async () => {
    await using server = await startQemuNbd({ shared: 2, size: 4 * 2 ** 20 });
    await using pool = await NbdPool.connect(server.uri(), { connections: 4, growTimeout: 100 });
    if (!pool.canMultiConn()) return;
    await work(pool, 2000, () => pool.statistics.connections === 2);
    const until = performance.now() + 400;
    await work(pool, 100_000, () => performance.now() > until);
    expect(pool.statistics).toMatchObject({ connections: 2, reconnects: 0, replayed: 0 });
  });
});

describeWith(['nbdkit'], 'programs that serve', () => {
  it('are one at a time, for each is another server', async () => {
    await using pool = await NbdPool.connect({ command: ['nbdkit', '-s', 'memory', '4M'] }, { connections: 4 });
    expect(pool.canMultiConn()).toBe(true);
    await pool.pwrite(Buffer.alloc(512, 7), 0);
    await work(pool, 5);
    expect(pool.statistics.connections).toBe(1);
    expect((await pool.pread(512, 0)).equals(Buffer.alloc(512, 7))).toBe(true);
  });

  it('of a list, the next one that answers takes the place of one that has died', async () => {
    await using first = await startNbdkit({ args: ['4M'] });
    await using second = await startNbdkit({ args: ['4M'] });
    const targets = [first, second].map(({ socketPath }) => ({ path: socketPath ?? '' }));
    await using pool = await NbdPool.connect([{ path: '/nowhere' }, ...targets], { reconnect: { minDelay: 1 } });
    await pool.pread(512, 0);
    first.kill('SIGKILL');
    await first.ended;
    await Promise.all(Array.from({ length: 20 }, (_, i) => pool.pread(512, 512 * i)));
    expect(pool.statistics.reconnects).toBeGreaterThan(0);
    expect(inspect(pool)).toContain(second.socketPath);
  });
});
