// The pool against a model: any order of writes, zeroes, reads, flushes, aborts, cuts and crashes of a server that
// forgets what was not flushed.

import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { NbdPool, NbdUnflushedError } from '../../lib/index.js';
import type { NbdBackend } from '../../lib/server/index.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { Block } from '../soak/shadow.js';
import { IS_LONG } from '../support/long.js';
import { Place } from './place.js';

const SLOT = 512;
const SLOTS = 6;
const RUNS = Number(process.env['LIVES'] ?? (IS_LONG ? 25 : 8));

/** Forgets what was not flushed. */
class ForgetfulBackend implements NbdBackend {
  readonly size = SLOT * SLOTS;
  readonly multiConn: boolean;
  #now = Buffer.alloc(this.size);
  #stable = Buffer.alloc(this.size);

  constructor(multiConn: boolean) {
    this.multiConn = multiConn;
  }

  async read(buffer: Buffer, offset: number): Promise<void> {
    await sleep(0);
    this.#now.copy(buffer, 0, offset);
  }

  async write(data: Buffer, offset: number): Promise<void> {
    data.copy(this.#now, offset);
    await sleep(0);
  }

  flush(): void {
    this.#stable = Buffer.from(this.#now);
  }

  crash(): void {
    this.#now = Buffer.from(this.#stable);
  }
}

type Action =
  | { readonly do: 'write' | 'zero' | 'read'; readonly slot: number; readonly abortAfter: number | null }
  | { readonly do: 'flush' | 'cut' | 'crash' | 'pause' | 'settle' };

const ACTION: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('write' as const, 'zero' as const, 'read' as const),
      slot: fc.nat(SLOTS - 1),
      abortAfter: fc.option(fc.nat(4), { freq: 5 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('flush' as const, 'settle' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('cut' as const, 'crash' as const, 'pause' as const) }) },
);

class Life {
  readonly #place: Place;
  readonly #pool: NbdPool;
  readonly #backend: ForgetfulBackend;
  readonly #isRewriting: boolean;
  readonly #blocks = Array.from({ length: SLOTS }, () => new Block());
  /** One command at a time for each slot; flushes besides. */
  readonly #turns: Promise<void>[] = Array<Promise<void>>(SLOTS).fill(Promise.resolve());
  readonly #flushes: Promise<void>[] = [];
  readonly #signals: AbortSignal[] = [];
  #next = 1;

  constructor(place: Place, pool: NbdPool, backend: ForgetfulBackend, isRewriting: boolean) {
    this.#place = place;
    this.#pool = pool;
    this.#backend = backend;
    this.#isRewriting = isRewriting;
    pool.on('lost', () => {
      if (!isRewriting) for (const block of this.#blocks) block.lose();
    });
  }

  supply(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at += SLOT) {
      bytes.fill(this.#blocks[(offset + at) / SLOT]?.last ?? 0, at, at + SLOT);
    }
    return bytes;
  }

  async act(action: Action): Promise<void> {
    switch (action.do) {
      case 'write':
      case 'zero':
      case 'read': {
        const { slot } = action;
        const turn = this.#turns[slot] as Promise<void>;
        this.#turns[slot] = turn.then(() => this.#command(action.do, slot, action.abortAfter));
        return;
      }
      case 'flush':
        this.#flushes.push(this.#flush());
        return;
      case 'cut':
        this.#place.cut();
        return;
      case 'crash':
        await this.crash();
        return;
      case 'pause':
        await sleep(3);
        return;
      case 'settle':
        await this.settle();
    }
  }

  async crash(): Promise<void> {
    await this.#place.stop();
    this.#backend.crash();
    await this.#place.start({ exports: { '': this.#backend } });
  }

  async settle(): Promise<void> {
    await Promise.all([...this.#turns, ...this.#flushes.splice(0)]);
  }

  async #command(what: 'write' | 'zero' | 'read', slot: number, abortAfter: number | null): Promise<void> {
    const block = this.#blocks[slot] as Block;
    const controller = new AbortController();
    const { signal } = controller;
    this.#signals.push(signal);
    if (abortAfter !== null) setTimeout(() => controller.abort('mine'), abortAfter);
    const value = what === 'write' ? (this.#next++ % 250) + 1 : 0;
    if (what !== 'read') block.write(value);
    try {
      if (what === 'write') await this.#pool.pwrite(Buffer.alloc(SLOT, value), slot * SLOT, 0, signal);
      else if (what === 'zero') await this.#pool.zero(SLOT, slot * SLOT, 0, signal);
      else this.#look(slot, await this.#pool.pread(SLOT, slot * SLOT, 0, signal));
      if (what !== 'read') block.acknowledge();
    } catch (error) {
      if (error !== 'mine') throw error;
      // It may have been carried out, or be on its way: what is there now is found out.
      if (what === 'read') return;
      await this.#pool.pwrite(Buffer.alloc(SLOT, value), slot * SLOT);
      block.acknowledge();
    }
  }

  #look(slot: number, bytes: Buffer): void {
    const block = this.#blocks[slot] as Block;
    const [found] = bytes;
    if (!block.allows(found) || !bytes.equals(Buffer.alloc(SLOT, found))) {
      throw new Error(`slot ${slot} holds ${String(found)} in place of ${String(block)}`);
    }
  }

  async #flush(): Promise<void> {
    const acked = this.#blocks.map((block) => block.acked);
    let named = new Set<number>();
    try {
      await this.#pool.flush();
    } catch (error) {
      if (!(error instanceof NbdUnflushedError) || this.#isRewriting) throw error;
      const slots = error.ranges.flatMap(({ offset, length }) =>
        Array.from({ length: Number(length) / SLOT }, (_, i) => Number(offset) / SLOT + i),
      );
      named = new Set(slots);
    }
    this.#blocks.forEach((block, i) => {
      if (named.has(i)) block.report();
      else block.cover(acked[i] as number);
    });
  }

  /** The end: everything flushed, the server's memory gone. */
  async verify(): Promise<void> {
    await this.settle();
    await this.#flush();
    for (const [slot, block] of this.#blocks.entries()) {
      this.#look(slot, await this.#pool.pread(SLOT, slot * SLOT));
      if (!block.isDoubtful) continue;
      block.write(99);
      await this.#pool.pwrite(Buffer.alloc(SLOT, 99), slot * SLOT);
      block.acknowledge();
    }
    await this.#flush();
    await this.crash();
    for (let slot = 0; slot < SLOTS; slot++) this.#look(slot, await this.#pool.pread(SLOT, slot * SLOT));
    expect(this.#signals.flatMap((signal) => getEventListeners(signal, 'abort'))).toEqual([]);
  }
}

describe(withSeed('a pool under a server that crashes'), () => {
  it.each([
    ['one connection, reports', false, false],
    ['several connections, reports', true, false],
    ['one connection, rewrite', false, true],
    ['several connections, rewrite', true, true],
  ])(
    '%s: holds what a flush has covered, and reports the rest',
    async (_title, multiConn, isRewriting) => {
      await fc.assert(
        fc.asyncProperty(fc.array(ACTION, { maxLength: 40 }), async (actions) => {
          const backend = new ForgetfulBackend(multiConn);
          await using place = await Place.open({ exports: { '': backend } });
          const holder: { life: Life | null } = { life: null };
          const pool = await NbdPool.connect(place.target, {
            reconnect: { minDelay: 1, maxDelay: 10 },
            ...(isRewriting
              ? { rewrite: ({ offset, length }) => holder.life!.supply(Number(offset), Number(length)) }
              : {}),
          });
          const life = new Life(place, pool, backend, isRewriting);
          holder.life = life;
          try {
            for (const action of actions) await life.act(action);
            await life.verify();
          } finally {
            pool.close();
          }
        }),
        { numRuns: RUNS, seed: SEED, endOnFailure: true },
      );
    },
    120_000,
  );
});
