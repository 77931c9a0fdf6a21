// The pool under a server that dies: random work from several workers against a shadow copy, while nbdkit with a
// write-back cache is killed with SIGKILL and started again, and whatever it had not flushed is gone.

import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { NbdPool, NbdUnflushedError } from '../../lib/index.js';
import type { Random } from '../fuzz/random.js';
import { Block, type Value } from './shadow.js';
import { type RealServer, startNbdkit } from '../support/real-servers.js';

const BLOCK = 4096;
const BLOCKS = 1024;
const WORKERS = 8;
/** Blocks of one worker: nobody else writes there, so that the order of its writes is known. */
const SHARE = BLOCKS / WORKERS;

export interface PoolSoakOptions {
  readonly random: Random;
  /** Ends after so many deaths of the server, or when the time is over. */
  readonly kills: number;
  readonly until: number;
  readonly isMultiConn: boolean;
  /** Whether the pool is given `rewrite`. */
  readonly isRewriting: boolean;
}

/** The value that fills a block, or undefined where it is not one value. */
function valueOf(bytes: Buffer): number | undefined {
  const value = bytes.readUInt32LE(0);
  const whole = Buffer.alloc(BLOCK);
  whole.fill(bytes.subarray(0, 4));
  return whole.equals(bytes) ? value : undefined;
}

const filled = (value: number): Buffer => {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(value);
  return Buffer.alloc(BLOCK, word);
};

class Soak {
  readonly #options: PoolSoakOptions;
  readonly #blocks = Array.from({ length: BLOCKS }, () => new Block());
  readonly counts: Record<string, number> = {};
  readonly #folder: string;
  #server: RealServer | null = null;
  #next = 1;
  #isOver = false;
  #kills = 0;

  constructor(options: PoolSoakOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
  }

  #count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  async #start(): Promise<void> {
    const { isMultiConn } = this.#options;
    this.#server = await startNbdkit({
      socketPath: join(this.#folder, 'socket'),
      plugin: 'file',
      // The cache filter of nbdkit 1.32 copies a block to its disk in two steps: a write between them, which only a second
      // thread can bring, is lost to the flush that was called after it.
      options: ['-t1'],
      filters: isMultiConn ? ['cache'] : ['multi-conn', 'cache'],
      args: [join(this.#folder, 'disk'), 'cache=writeback', ...(isMultiConn ? [] : ['multi-conn-mode=disable'])],
    });
  }

  async #restart(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    server.kill('SIGKILL');
    await server.ended;
    await server.stop();
    await rm(join(this.#folder, 'socket'), { force: true });
    this.#kills++;
    await sleep(this.#options.random.below(40));
    await this.#start();
  }

  async #killer(): Promise<void> {
    const { random, kills, until } = this.#options;
    while (this.#kills < kills && performance.now() < until) {
      await sleep(10 + random.below(150));
      await this.#restart();
    }
    this.#isOver = true;
  }

  async run(): Promise<Record<string, number>> {
    const disk = join(this.#folder, 'disk');
    await writeFile(disk, '');
    await truncate(disk, BLOCKS * BLOCK);
    await this.#start();
    const { isRewriting } = this.#options;
    const pool = await NbdPool.connect(
      { path: join(this.#folder, 'socket') },
      {
        reconnect: { minDelay: 5, maxDelay: 100 },
        ...(isRewriting ? { rewrite: (range) => this.#supply(Number(range.offset), Number(range.length)) } : {}),
      },
    );
    pool.on('lost', () => {
      // With rewrite nobody ever sees an older version.
      if (!isRewriting) for (const block of this.#blocks) block.lose();
    });
    const workers = Array.from({ length: WORKERS }, (_, number) => this.#work(pool, number * SHARE));
    await Promise.all([this.#killer(), ...workers]);
    await this.#settle(pool);
    // Nothing that a flush has covered needs the server's memory.
    await this.#restart();
    for (let block = 0; block < BLOCKS; block++) await this.#check(pool, block);
    this.#count('kills', this.#kills);
    const { reconnects, replayed } = pool.statistics;
    this.#count('reconnects', reconnects);
    this.#count('replayed', replayed);
    await pool.shutdown();
    return this.counts;
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#server?.stop();
  }

  #supply(offset: number, length: number): Buffer {
    this.#count('rewritten');
    const blocks = this.#blocks.slice(offset / BLOCK, (offset + length) / BLOCK);
    return Buffer.concat(blocks.map(({ last }) => filled(last ?? 0)));
  }

  async #work(pool: NbdPool, first: number): Promise<void> {
    const { random } = this.#options;
    while (!this.#isOver) {
      const block = first + random.below(SHARE);
      const count = Math.min(1 + random.below(8), first + SHARE - block);
      const what = random.below(100);
      if (what < 40) await this.#write(pool, block, count);
      else if (what < 48) await this.#zero(pool, block, count);
      else if (what < 52) await this.#trim(pool, block, count);
      else if (what < 90) for (let i = 0; i < count; i++) await this.#check(pool, block + i);
      else if (what < 95) await pool.cache(count * BLOCK, block * BLOCK);
      else await this.#flush(pool);
    }
  }

  async #change(block: number, count: number, values: readonly Value[], send: () => Promise<void>): Promise<void> {
    const blocks = this.#blocks.slice(block, block + count);
    blocks.forEach((each, i) => {
      each.write(values[i] as Value);
    });
    await send();
    for (const each of blocks) each.acknowledge();
  }

  async #write(pool: NbdPool, block: number, count: number): Promise<void> {
    const values = Array.from({ length: count }, () => this.#next++);
    const bytes = Buffer.concat(values.map(filled));
    this.#count('writes');
    await this.#change(block, count, values, () => pool.pwrite(bytes, block * BLOCK));
  }

  async #zero(pool: NbdPool, block: number, count: number): Promise<void> {
    this.#count('zeroes');
    await this.#change(block, count, Array<Value>(count).fill(0), () => pool.zero(count * BLOCK, block * BLOCK));
  }

  async #trim(pool: NbdPool, block: number, count: number): Promise<void> {
    this.#count('trims');
    await this.#change(block, count, Array<Value>(count).fill(null), () => pool.trim(count * BLOCK, block * BLOCK));
  }

  async #check(pool: NbdPool, number: number): Promise<void> {
    const block = this.#blocks[number] as Block;
    const bytes = await pool.pread(BLOCK, number * BLOCK);
    this.#count('reads');
    const found = valueOf(bytes);
    if (block.allows(found)) return;
    throw new Error(`block ${number} holds ${String(found)} in place of ${String(block)}`);
  }

  /** What it covers is what was acknowledged before, to any worker. */
  async #flush(pool: NbdPool): Promise<void> {
    const acked = this.#blocks.map((block) => block.acked);
    try {
      await pool.flush();
      this.#count('flushes');
      this.#blocks.forEach((block, i) => {
        block.cover(acked[i] as number);
      });
    } catch (error) {
      if (!(error instanceof NbdUnflushedError) || this.#options.isRewriting) throw error;
      this.#count('reports');
      this.#report(error, acked);
    }
  }

  #report(error: NbdUnflushedError, acked: readonly number[]): void {
    const named = new Set<number>();
    for (const { offset, length } of error.ranges) {
      for (let at = offset; at < offset + length; at += BigInt(BLOCK)) named.add(Number(at) / BLOCK);
    }
    this.#count('blocks reported', named.size);
    this.#blocks.forEach((block, i) => {
      if (named.has(i)) block.report();
      else block.cover(acked[i] as number);
    });
  }

  /** With nobody at work: what is doubtful is looked at, written again and flushed. */
  async #settle(pool: NbdPool): Promise<void> {
    await this.#flush(pool);
    for (let number = 0; number < BLOCKS; number++) await this.#check(pool, number);
    for (let number = 0; number < BLOCKS; number++) {
      const block = this.#blocks[number] as Block;
      if (block.isDoubtful)
        await this.#change(number, 1, [block.last ?? 0], () => pool.pwrite(filled(block.last ?? 0), number * BLOCK));
    }
    await this.#flush(pool);
  }
}

/** Runs one soak; resolves with what was counted, rejects at the first difference. */
export async function soakPool(options: PoolSoakOptions): Promise<Record<string, number>> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-pool-soak-'));
  const soak = new Soak(options, folder);
  try {
    return await soak.run();
  } finally {
    await soak.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
