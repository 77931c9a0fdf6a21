// What every measured Node program shares: its arguments, the offsets that it requests, the check of what it read, and
// the line of JSON that it prints. peers/libnbd.c does the same things in the same way.

import { readFileSync } from 'node:fs';

/** Where the random offsets begin, here and in the peers in C: every run reads the same places. */
export const SEED = 0x9e3779b9;

/** The arguments, `key=value` each. Sizes in bytes, times in seconds. */
export interface Work {
  readonly uri: string;
  readonly op: string;
  readonly size: number;
  /** Callers, each of which has one command at a time. */
  readonly depth: number;
  /** Commands on the wire at once. */
  readonly window: number;
  /** Commands to run in all; 0 to run for `seconds` after `warmup`. */
  readonly ops: number;
  readonly seconds: number;
  readonly warmup: number;
  /** The warm-up goes on until this many commands have run: before, the code is not compiled. */
  readonly warmops: number;
  /** Bytes of the export that are used. */
  readonly image: number;
  /** Extents that a block status must contain. */
  readonly extents: number;
  /** Connections of the pool that it goes through; 0 for none. */
  readonly pool: number;
  readonly simple: boolean;
  readonly initialize: boolean;
  readonly checkPattern: boolean;
}

export function readWork(args: readonly string[]): Work {
  const given = new Map<string, string>();
  for (const arg of args) {
    const at = arg.indexOf('=');
    given.set(arg.slice(0, at), arg.slice(at + 1));
  }
  const text = (key: string, otherwise: string): string => given.get(key) ?? otherwise;
  const number = (key: string, otherwise: number): number => Number(given.get(key) ?? otherwise);
  const depth = number('depth', 1);
  return {
    uri: text('uri', ''),
    op: text('op', 'pread'),
    size: number('size', 4096),
    depth,
    window: number('window', Math.max(depth, 64)),
    ops: number('ops', 0),
    seconds: number('seconds', 1),
    warmup: number('warmup', 0.3),
    warmops: number('warmops', 0),
    image: number('image', 64 * 1024 * 1024),
    extents: number('extents', 0),
    pool: number('pool', 0),
    simple: text('replies', 'structured') === 'simple',
    initialize: text('initialize', 'yes') !== 'no',
    checkPattern: text('check', 'none') === 'pattern',
  };
}

/** Small ranges at random, large ones in order. Writers have every depth-th range to themselves, so that what each
 * wrote last can be read back. */
export class Offsets {
  readonly #size: number;
  readonly #stride: number;
  readonly #first: number;
  readonly #blocks: number;
  readonly #random: boolean;
  #state: number;
  #block = -1;

  constructor(work: Work, writer?: number) {
    this.#size = work.size;
    this.#stride = writer === undefined ? 1 : work.depth;
    this.#first = writer ?? 0;
    this.#blocks = Math.floor(work.image / work.size / this.#stride);
    this.#random = work.size < 65536;
    this.#state = SEED + this.#first;
  }

  next(): number {
    return (this.#next() * this.#stride + this.#first) * this.#size;
  }

  #next(): number {
    if (!this.#random) {
      this.#block = this.#block + 1 === this.#blocks ? 0 : this.#block + 1;
      return this.#block;
    }
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % this.#blocks;
  }
}

/** The pattern: every aligned 8 bytes hold their own offset, big-endian. The first and last word of every read are
 * looked at, and the whole of every 64th (of every 256th, if large). */
export class Verifier {
  readonly #enabled: boolean;
  readonly #interval: number;
  #count = 0;
  verified = 0;

  constructor(work: Work) {
    this.#enabled = work.checkPattern;
    this.#interval = work.size > 65536 ? 256 : 64;
  }

  check(buffer: Buffer, offset: number): void {
    if (!this.#enabled) return;
    this.#word(buffer, 0, offset);
    this.#word(buffer, buffer.length - 8, offset);
    if (this.#count++ % this.#interval !== 0) return;
    for (let at = 0; at < buffer.length; at += 8) this.#word(buffer, at, offset);
    this.verified++;
  }

  #word(buffer: Buffer, at: number, offset: number): void {
    if (buffer.readUInt32BE(at) * 2 ** 32 + buffer.readUInt32BE(at + 4) === offset + at) return;
    throw new Error(`wrong data at ${offset + at}: ${buffer.subarray(at, at + 8).toString('hex')}`);
  }
}

const MAX_SAMPLES = 1 << 20;
const PARTS = 10;
/** Milliseconds. */
const MAX_WARMUP = 3000;

/**
 * Counts, clocks and samples latencies while the work goes on: from a moment after the warm-up to one before the end.
 */
export class Meter {
  readonly #work: Work;
  readonly #samples = new Float32Array(MAX_SAMPLES);
  readonly #everySample: number;
  #sampled = 0;
  #begun = 0;
  #measuring = false;
  #from = { at: 0, done: 0, cpu: 0 };
  #to = { at: 0, done: 0, cpu: 0 };
  #issued = 0;
  #done = 0;
  /** Clock and memory at every tenth of a run of a given number of commands. */
  readonly #parts: { at: number; rssKib: number }[] = [];
  /** No more commands should begin. */
  isStopped = false;

  constructor(work: Work) {
    this.#work = work;
    this.#everySample = work.depth === 1 || work.size > 65536 ? 1 : 8;
  }

  /** Begins the warm-up. */
  start(): void {
    if (this.#work.ops > 0) {
      this.#from = this.#look();
      this.#measuring = true;
      this.#parts.push({ at: this.#from.at, rssKib: status('VmRSS') });
      return;
    }
    const deadline = performance.now() + MAX_WARMUP;
    const warmedUp = (): void => {
      if (this.#done < this.#work.warmops && performance.now() < deadline) {
        setTimeout(warmedUp, 20);
        return;
      }
      this.#from = this.#look();
      this.#measuring = true;
      setTimeout(() => {
        this.#finish();
      }, this.#work.seconds * 1000);
    };
    setTimeout(warmedUp, this.#work.warmup * 1000);
  }

  /** A command begins: what to give to {@link end}. */
  begin(): number {
    this.#issued++;
    if (this.#issued === this.#work.ops) this.isStopped = true;
    return ++this.#begun % this.#everySample === 0 ? performance.now() : 0;
  }

  /** It has succeeded. */
  end(begun: number): void {
    this.#done++;
    if (begun !== 0 && this.#measuring && this.#sampled < MAX_SAMPLES) {
      this.#samples[this.#sampled++] = (performance.now() - begun) * 1000;
    }
    const { ops } = this.#work;
    if (ops === 0 || this.#done % (ops / PARTS) !== 0) return;
    this.#parts.push({ at: performance.now() / 1000, rssKib: status('VmRSS') });
    if (this.#done === ops) this.#finish();
  }

  #look(): { at: number; done: number; cpu: number } {
    const { user, system } = process.cpuUsage();
    return { at: performance.now() / 1000, done: this.#done, cpu: user + system };
  }

  #finish(): void {
    this.#to = this.#look();
    this.#measuring = false;
    this.isStopped = true;
  }

  /** The result, as the runner reads it. */
  report(verified: number, extra: object = {}): void {
    const samples = this.#samples.subarray(0, this.#sampled).sort();
    const result = {
      ops: this.#to.done - this.#from.done,
      seconds: this.#to.at - this.#from.at,
      cpuUs: this.#to.cpu - this.#from.cpu,
      verified,
      p50: samples[Math.floor(samples.length / 2)] ?? 0,
      p99: samples[Math.floor(samples.length * 0.99)] ?? 0,
      peakKib: status('VmHWM'),
      ...(this.#parts.length === 0
        ? {}
        : {
            partSeconds: this.#parts.slice(1).map((part, i) => part.at - (this.#parts[i]?.at ?? 0)),
            partRssKib: this.#parts.slice(1).map((part) => part.rssKib),
          }),
      ...extra,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
}

/** A line of /proc/self/status. (The maximum of getrusage() is inherited from the program that started this one.) */
export function status(key: string): number {
  try {
    return Number(new RegExp(`${key}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
  } catch {
    return 0; // a system without /proc
  }
}
