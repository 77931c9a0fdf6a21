// A random workload, many commands at once, against a model: what is read must be what the model holds.

import { expect, it } from '@jest/globals';

import { CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, type NbdConnection } from '../../lib/index.js';
import { randomNumbers } from '../support/deliver.js';
import { describeWith } from '../support/real-servers.js';
import { KINDS } from './client-servers.js';

const BLOCK = 4096;
const BLOCKS = 2048;
const STEPS = 800;

class Workload {
  readonly #c: NbdConnection;
  readonly #next: () => number;
  readonly #model = Buffer.alloc(BLOCK * BLOCKS);
  /** Blocks that a write in flight may be changing: nothing else may touch them. */
  readonly #writing = new Set<number>();
  readonly #reading = new Map<number, number>();
  /** Blocks that were trimmed: their contents are up to the server. */
  readonly #unknown = new Set<number>();
  readonly counts: Record<string, number> = {};

  constructor(connection: NbdConnection, next: () => number) {
    this.#c = connection;
    this.#next = next;
  }

  #random(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  async run(): Promise<void> {
    const running = new Set<Promise<void>>();
    for (let step = 0; step < STEPS; step++) {
      const work = this.#step(step);
      if (work !== null) {
        running.add(work);
        void work.finally(() => running.delete(work)).catch(() => undefined);
      }
      if (running.size >= 24) await Promise.race(running);
    }
    await Promise.all(running);
    await this.#read(0, BLOCKS);
  }

  #step(step: number): Promise<void> | null {
    const from = this.#random(BLOCKS);
    const count = 1 + this.#random(Math.min(24, BLOCKS - from));
    const kind = this.#random(100);
    if (kind < 45) return this.#isFree(from, count, false) ? this.#read(from, count) : null;
    if (kind < 50)
      return this.#count('cache', this.#c.canCache() ? this.#c.cache(count * BLOCK, from * BLOCK) : Promise.resolve());
    if (kind < 53) return this.#count('flush', this.#c.flush());
    if (!this.#isFree(from, count, true)) return null;
    const fua = this.#c.canFua() && this.#random(4) === 0 ? CMD_FLAG_FUA : 0;
    if (kind < 80) return this.#write(from, count, step, fua);
    if (kind < 92) return this.#zero(from, count, fua | (this.#random(2) === 0 ? CMD_FLAG_NO_HOLE : 0));
    return this.#trim(from, count, fua);
  }

  #isFree(from: number, count: number, toWrite: boolean): boolean {
    for (let block = from; block < from + count; block++) {
      if (this.#writing.has(block) || (toWrite && this.#reading.has(block))) return false;
    }
    return true;
  }

  async #count(name: string, work: Promise<unknown>): Promise<void> {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    await work;
  }

  async #read(from: number, count: number): Promise<void> {
    const blocks = Array.from({ length: count }, (_, i) => from + i);
    for (const block of blocks) this.#reading.set(block, (this.#reading.get(block) ?? 0) + 1);
    // Not from the first byte of a block to the last of another.
    const cut = this.#random(BLOCK);
    const data = await this.#c.pread(count * BLOCK - cut, from * BLOCK + cut);
    for (const block of blocks) {
      const left = (this.#reading.get(block) ?? 0) - 1;
      if (left === 0) this.#reading.delete(block);
      else this.#reading.set(block, left);
      if (this.#unknown.has(block)) continue;
      const begin = Math.max(block * BLOCK, from * BLOCK + cut);
      const end = (block + 1) * BLOCK;
      const at = from * BLOCK + cut;
      if (this.#model.compare(data, begin - at, end - at, begin, end) !== 0) throw new Error(`block ${block} is wrong`);
    }
    await this.#count('read', Promise.resolve());
  }

  async #change(name: string, from: number, count: number, work: Promise<void>, apply: () => void): Promise<void> {
    for (let block = from; block < from + count; block++) this.#writing.add(block);
    await this.#count(name, work);
    apply();
    for (let block = from; block < from + count; block++) this.#writing.delete(block);
  }

  #write(from: number, count: number, step: number, flags: number): Promise<void> {
    const data = Buffer.alloc(count * BLOCK, (step % 255) + 1);
    for (let i = 0; i < data.length; i += 512) data.writeUInt32BE(step * 65536 + i, i);
    return this.#change('write', from, count, this.#c.pwrite(data, from * BLOCK, flags), () => {
      data.copy(this.#model, from * BLOCK);
      for (let block = from; block < from + count; block++) this.#unknown.delete(block);
    });
  }

  #zero(from: number, count: number, flags: number): Promise<void> {
    return this.#change('zero', from, count, this.#c.zero(count * BLOCK, from * BLOCK, flags), () => {
      this.#model.fill(0, from * BLOCK, (from + count) * BLOCK);
      for (let block = from; block < from + count; block++) this.#unknown.delete(block);
    });
  }

  #trim(from: number, count: number, flags: number): Promise<void> {
    return this.#change('trim', from, count, this.#c.trim(count * BLOCK, from * BLOCK, flags), () => {
      for (let block = from; block < from + count; block++) this.#unknown.add(block);
    });
  }
}

for (const kind of KINDS.filter(({ name }) => !name.includes('tcp'))) {
  describeWith(kind.needs, kind.name, () => {
    it('reads what was written, whatever else goes on', async () => {
      const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 32));
      await using server = await kind.start(BLOCK * BLOCKS);
      const connection = await server.connect({ maxInFlight: 1 + (seed % 32), maxInFlightBytes: 256 * 1024 });
      const workload = new Workload(connection, randomNumbers(seed));
      try {
        await workload.run();
      } catch (error) {
        throw new Error(`SEED=${seed}`, { cause: error });
      }
      expect(Math.min(...['read', 'write', 'zero', 'trim'].map((name) => workload.counts[name] ?? 0))).toBeGreaterThan(
        0,
      );
      expect(connection.aioInFlight()).toBe(0);
      await connection.shutdown();
    });
  });
}
