// Random copies over real pools whose servers die: with dirty bitmaps, ranges, checkpoints and aborts. A destination that
// dies forgets what was not flushed, or a part of it. What resolves is right to the last byte after one more death; what
// was interrupted goes on from its checkpoint and reads no more again than a checkpoint's worth for each interruption.

import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';

import {
  type CheckpointStore,
  copy,
  type CopyOptions,
  createReadStream,
  createWriteStream,
  NbdPool,
  NbdUnflushedError,
} from '../../lib/index.js';
import { type BackendExtent, ExtentMap, type NbdBackend } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { Place } from '../pool/place.js';
import { IS_LONG } from '../support/long.js';

const CASES = Math.ceil(Number(process.env['LIVES'] ?? (IS_LONG ? 1600 : 240)) / 40);
const ENOUGH = 40;
const BITMAP = 'qemu:dirty-bitmap:b0';
const UNIT = 512;
const OLD = 0xaa;
const STOPPED = new Error('the process was stopped');

/** A source that counts the reads of each unit. */
class CountingBackend implements NbdBackend {
  readonly size: number;
  readonly readOnly = true;
  readonly bytes: Buffer;
  readonly reads: Uint8Array;
  readonly #zeroes: ExtentMap;

  constructor(random: Random, size: number) {
    this.size = size;
    this.bytes = Buffer.alloc(size);
    this.reads = new Uint8Array(size);
    this.#zeroes = new ExtentMap(size);
    for (let at = 0; at < size;) {
      const length = Math.min(UNIT * random.pick([1, 2, 16, 64]), size - at);
      if (random.oneIn(3)) this.#zeroes.set(at, length, random.pick([2, 3]));
      else this.bytes.fill(random.between(1, 255), at, at + length);
      at += length;
    }
  }

  read(buffer: Buffer, offset: number): void {
    // By byte: ranges need not begin and end at the same places as requests.
    for (let at = offset; at < offset + buffer.length; at++) this.reads[at] = (this.reads[at] ?? 0) + 1;
    this.bytes.copy(buffer, 0, offset, offset + buffer.length);
  }

  extents(offset: number, count: number): Iterable<BackendExtent> {
    return this.#zeroes.extents(offset, count);
  }

  /** Bytes that were read more than once, each time counted. */
  get again(): number {
    return this.reads.reduce((sum, times) => sum + Math.max(times - 1, 0), 0);
  }
}

/** A destination with a write-back cache. */
class CachingBackend implements NbdBackend {
  readonly size: number;
  readonly multiConn: boolean;
  readonly #random: Random;
  readonly disk: Buffer;
  /** What clients see. */
  #seen: Buffer;
  writes = 0;
  /** Units that were written since the last flush. */
  readonly #dirty = new Set<number>();

  constructor(random: Random, size: number) {
    this.size = size;
    this.#random = random;
    this.multiConn = random.oneIn(2);
    this.disk = Buffer.alloc(size, OLD);
    this.#seen = Buffer.from(this.disk);
  }

  read(buffer: Buffer, offset: number): void {
    this.#seen.copy(buffer, 0, offset, offset + buffer.length);
  }

  async write(data: Buffer, offset: number): Promise<void> {
    this.writes++;
    if (this.#random.oneIn(3)) await sleep(this.#random.below(3));
    data.copy(this.#seen, offset);
    this.#touch(offset, data.length);
  }

  zero(offset: number, count: number): void {
    this.#seen.fill(0, offset, offset + count);
    this.#touch(offset, count);
  }

  #touch(offset: number, count: number): void {
    for (let at = offset - (offset % UNIT); at < offset + count; at += UNIT) this.#dirty.add(at);
  }

  async flush(): Promise<void> {
    const dirty = [...this.#dirty];
    for (const at of dirty) {
      this.#seen.copy(this.disk, at, at, Math.min(at + UNIT, this.size));
      this.#dirty.delete(at);
    }
    if (this.#random.oneIn(2)) await sleep(this.#random.below(3));
  }

  /** Power is lost: some of what was not flushed had reached the disk already. */
  crash(): void {
    const kept = this.#random.pick([0, 0, 50]);
    for (const at of this.#dirty) {
      if (this.#random.below(100) < kept) this.#seen.copy(this.disk, at, at, Math.min(at + UNIT, this.size));
    }
    this.#dirty.clear();
    this.#seen = Buffer.from(this.disk);
  }
}

interface Span {
  readonly offset: number;
  readonly length: number;
}

function someSpans(random: Random, size: number): Span[] {
  const spans: Span[] = [];
  for (let at = random.below(size); at < size;) {
    const length = Math.min(random.pick([UNIT, 5 * UNIT, 40_000]), size - at);
    spans.push({ offset: at, length });
    at += length + random.between(1, 60_000);
  }
  return spans;
}

/** One copy, from its first attempt to the one that succeeds. */
class Case {
  readonly random: Random;
  readonly source: CountingBackend;
  readonly destination: CachingBackend;
  readonly dirty: ExtentMap;
  readonly expected: Buffer;
  readonly options: CopyOptions;
  readonly every: number;
  readonly hasCheckpoint: boolean;
  #text: string | null = null;
  readonly seen: Record<string, number>;
  /** Deaths and aborts. */
  interruptions = 0;

  constructor(random: Random, seen: Record<string, number>) {
    this.random = random;
    this.seen = seen;
    const size = random.between(1, 200) * 4096 + random.pick([0, 0, UNIT, 5 * UNIT]);
    this.source = new CountingBackend(random, size);
    this.destination = new CachingBackend(random, size + random.pick([0, 0, 4096]));
    this.dirty = new ExtentMap(size);
    this.every = random.pick([1, 2, 4]) * 65_536;
    this.hasCheckpoint = !random.oneIn(3);
    this.expected = Buffer.from(this.destination.disk);
    const spans = someSpans(random, size);
    const which = random.pick(['bitmap', 'ranges', 'part', 'all']);
    const chosen = which === 'all' ? [{ offset: 0, length: size }] : which === 'part' ? spans.slice(0, 1) : spans;
    for (const { offset, length } of chosen) {
      this.source.bytes.copy(this.expected, offset, offset, offset + length);
      if (which === 'bitmap') this.dirty.set(offset, length, 1);
    }
    const [part = { offset: 0, length: 0 }] = chosen;
    this.options = {
      requestSize: random.pick([4096, 16_384, 65_536]),
      requests: random.between(1, 8),
      ...(which === 'bitmap' ? { bitmap: 'b0' } : which === 'ranges' ? { ranges: chosen } : part),
    };
  }

  get #checkpoint(): CheckpointStore {
    return {
      every: this.every,
      load: () => this.#text,
      save: async (text) => {
        if (this.random.oneIn(3)) await sleep(this.random.below(3));
        this.#text = text;
      },
      clear: () => {
        this.#text = null;
      },
    };
  }

  async run(): Promise<void> {
    await using from = await Place.open(null);
    await using to = await Place.open(null);
    const startSource = (): Promise<unknown> =>
      from.start({ exports: { '': { backend: this.source, metaContexts: { [BITMAP]: this.dirty } } } });
    const startDestination = (): Promise<unknown> => to.start({}, this.destination);
    await Promise.all([startSource(), startDestination()]);
    const { random } = this;
    const reconnect = { within: 60_000, minDelay: 1, maxDelay: 10 };
    for (let attempt = 0; ; attempt++) {
      const stop = new AbortController();
      await using source = await NbdPool.connect(from.target, {
        ...{ reconnect, metaContexts: ['base:allocation', BITMAP], connections: random.between(1, 3) },
      });
      const isRewriting = random.oneIn(5);
      const rewrite = ({ offset, length }: { offset: bigint; length: bigint }): Buffer =>
        this.expected.subarray(Number(offset), Number(offset + length));
      const destination = await NbdPool.connect(to.target, {
        ...{ reconnect, connections: random.between(1, 3), ...(isRewriting ? { rewrite } : {}) },
      });
      const isStopped = this.hasCheckpoint && attempt < 4 && random.oneIn(2);
      const run = { isOver: false };
      const copying = copy(source, destination, {
        ...this.options,
        ...(this.hasCheckpoint ? { checkpoint: this.#checkpoint } : {}),
        signal: stop.signal,
      }).finally(() => (run.isOver = true));
      const isOver = (): boolean => run.isOver;
      const killing = (async (): Promise<void> => {
        for (let left = attempt < 4 ? random.below(4) : 0; left > 0; left--) {
          await sleep(random.below(25));
          if (isOver()) return;
          this.interruptions++;
          if (random.oneIn(3)) {
            this.#count('deaths of the source');
            await from.stop();
            await startSource();
          } else {
            this.#count('deaths of the destination');
            await to.stop();
            this.destination.crash();
            await startDestination();
          }
        }
        if (!isStopped || isOver()) return;
        await sleep(random.below(25));
        if (isOver()) return;
        this.interruptions++;
        stop.abort(STOPPED);
      })();
      const outcome = await copying.catch((error: unknown) => error);
      await killing;
      const ending = await destination.shutdown().catch((error: unknown) => error);
      if (outcome === STOPPED) {
        this.#count('stopped');
        // What a process that is gone had written last may be lost too.
        if (random.oneIn(2)) this.destination.crash();
        if (ending !== undefined) expect(ending).toBeInstanceOf(NbdUnflushedError);
        continue;
      }
      if (outcome instanceof Error) throw outcome;
      expect(ending).toBeUndefined();
      this.#count('replayed', source.statistics.replayed + destination.statistics.replayed);
      break;
    }
    this.#count('copies');
    this.destination.crash();
    // The size of the destination may be odd to the source's.
    const at = this.expected.findIndex((byte, index) => byte !== this.destination.disk[index]);
    expect(at).toBe(-1);
    if (!this.hasCheckpoint) return;
    expect(this.#text).toBeNull();
    this.#count('read again', this.source.again);
    expect(this.source.again).toBeLessThanOrEqual(this.interruptions * this.every);
  }

  #count(what: string, by = 1): void {
    this.seen[what] = (this.seen[what] ?? 0) + by;
  }
}

describe(withSeed('whole exports over pools'), () => {
  it('copy() is right whatever dies meanwhile', async () => {
    const seen: Record<string, number> = {};
    for (let number = 0; number < CASES; number++) {
      const case_ = new Case(new Random(seedOf(SEED, number)), seen);
      try {
        await case_.run();
      } catch (error) {
        const { options, hasCheckpoint, interruptions, every } = case_;
        const where = JSON.stringify({ number, seed: SEED, options, hasCheckpoint, interruptions, every });
        throw new Error(`${where}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      }
    }
    if (process.env['LIVES'] !== undefined) process.stderr.write(`${JSON.stringify(seen)}\n`);
    // A few cases need not have met with everything.
    if (CASES < ENOUGH) return;
    for (const what of ['deaths of the source', 'deaths of the destination', 'stopped', 'replayed', 'read again']) {
      expect([what, seen[what] ?? 0]).not.toEqual([what, 0]);
    }
  }, 600_000);

  it('streams are right whatever dies meanwhile, or are destroyed with what was lost', async () => {
    const seen = { finished: 0, unflushed: 0 };
    for (let number = 0; number < CASES; number++) {
      const random = new Random(seedOf(SEED + 1, number));
      const size = random.between(1, 100) * 4096;
      const source = new CountingBackend(random, size);
      const destination = new CachingBackend(random, size);
      await using from = await Place.open(null);
      await using to = await Place.open(null);
      await Promise.all([from.start({}, source), to.start({}, destination)]);
      const reconnect = { within: 60_000, minDelay: 1, maxDelay: 10 };
      const isRewriting = random.oneIn(3);
      await using reading = await NbdPool.connect(from.target, { reconnect, metaContexts: ['base:allocation'] });
      const writing = await NbdPool.connect(to.target, {
        reconnect,
        ...(isRewriting
          ? {
              rewrite: ({ offset, length }): Buffer => source.bytes.subarray(Number(offset), Number(offset + length)),
            }
          : {}),
      });
      const readable = createReadStream(reading, { requestSize: 4096, requests: random.between(1, 4) });
      const writable = createWriteStream(writing, { requestSize: 4096, sparse: random.pick([0, 512]) });
      const run = { isOver: false };
      const isOver = (): boolean => run.isOver;
      const outcome = new Promise<unknown>((resolve) => {
        writable.once('finish', () => resolve('finished')).once('error', resolve);
        readable.once('error', resolve).pipe(writable);
      }).finally(() => (run.isOver = true));
      for (let left = random.below(3); left > 0; left--) {
        const writes = destination.writes + random.below(20);
        while (destination.writes < writes && !isOver()) await sleep(1);
        if (isOver()) break;
        if (random.oneIn(3)) {
          await from.stop();
          await from.start({}, source);
        } else {
          await to.stop();
          destination.crash();
          await to.start({}, destination);
        }
      }
      const ended = await outcome;
      const shutdown = await writing.shutdown().catch((error: unknown) => error);
      destination.crash();
      if (ended === 'finished') {
        seen.finished++;
        expect([number, shutdown]).toEqual([number, undefined]);
        expect([number, destination.disk.compare(source.bytes)]).toEqual([number, 0]);
      } else {
        seen.unflushed++;
        expect([number, isRewriting]).toEqual([number, false]);
        expect(ended).toBeInstanceOf(NbdUnflushedError);
        expect(ended).toMatchObject({ syscall: 'createWriteStream' });
        expect((ended as NbdUnflushedError).ranges.length).toBeGreaterThan(0);
      }
    }
    if (CASES >= ENOUGH) expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
  }, 600_000);
});
