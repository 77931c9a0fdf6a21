// The work of a copy: pieces are read, looked through for zeroes and written, as many at a time as pays. Invariant: what
// `done` has is at the destination, unless a lost connection has put it at risk, and then it is copied again.

import { Buffer } from '../../util/buffer.js';
import { allocateForReads } from '../../util/memory.js';
import { NbdStrictError } from '../../errors.js';
import { isNullDestination } from '../ends/endpoint.js';
import type { Destination, Source } from '../ends/ends.js';
import type { Run, RunOptions } from '../ends/runs.js';
import { runsOf } from '../ends/span-runs.js';
import { abortable, at, checkAllDone } from '../failures.js';
import { type Begun, InFlight } from '../in-flight.js';
import { IntervalSet } from '../intervals.js';
import { inLanes } from '../lanes.js';
import { ProgressMeter } from '../progress.js';
import { asRange, withJson } from '../ranges.js';
import { RateLimiter } from '../../transport/rate-limiter.js';
import { splitZeroes } from '../zeroes.js';
import { type CopyIdentity, type CopyState, encodeState } from './checkpoint.js';
import { jobsOf } from './jobs.js';
import { Keeper } from './keeper.js';
import type { CopyOptions, CopyResult } from './options.js';
import { readWhatCanBe } from './salvage.js';
import type { Selection } from './selection.js';
import type { Shape } from './shape.js';
import { lostRanges, type Loss } from './unflushed.js';

const DEFAULT_START = 64;
/** Near servers are fastest with little in flight, which stays in the caches of both; what is far away shows itself at once. */
const START_BYTES = 8 * 1024 * 1024;
const DEFAULT_SPARSE = 4096;
const DEFAULT_EVERY = 256 * 1024 * 1024;
/** Each comes after another loss: a server that ends again and again is no place for a copy. */
const MOST_LOSSES = 100;

export interface CopyWork {
  readonly from: Source;
  readonly to: Destination;
  readonly options: CopyOptions;
  readonly selection: Selection;
  readonly shape: Shape;
  readonly runOptions: RunOptions;
  /** Null without a checkpoint. */
  readonly identity: CopyIdentity | null;
  /** What an earlier run has saved. */
  readonly state: CopyState | null;
}

export class CopyRun {
  readonly #work: CopyWork;
  readonly #from: Source;
  readonly #to: Destination;
  readonly #options: CopyOptions;
  /** Added to an offset in the source, it is that in the destination. */
  readonly #shift: bigint;
  readonly #sparse: number;
  /** No byte is looked at: all requests may read into one buffer, which stays in the processor's cache. */
  readonly #isDiscarding: boolean;
  readonly #inFlight: InFlight;
  readonly #limiter: RateLimiter | null;
  readonly #keeper: Keeper | null;
  readonly #progress: ProgressMeter;
  readonly #done: IntervalSet;
  readonly #missing: IntervalSet;
  readonly #resumed: bigint;
  /** What has to be copied again. */
  #lost = new IntervalSet();
  #losses = 0;
  readonly #running = new Map<number, Run>();
  #read = 0n;
  #written = 0n;
  #zeroed = 0n;
  #zeroes: Buffer | null = null;

  constructor(work: CopyWork) {
    const { from, to, options, selection, shape, state } = work;
    this.#work = work;
    this.#from = from;
    this.#to = to;
    this.#options = options;
    this.#shift = shape.shift;
    const { checkpoint, rate } = options;
    const sparse = options.sparse ?? DEFAULT_SPARSE;
    this.#sparse = sparse === 0 || options.allocated === true ? 0 : Math.max(sparse, to.blocks.preferred);
    this.#isDiscarding = this.#sparse === 0 && options.hash === undefined && isNullDestination(to.end);
    this.#inFlight = new InFlight({
      requestSize: shape.requestSize,
      longestRequest: options.requestSize === undefined ? shape.longestRequest : undefined,
      requests: options.requests,
      queueSize: options.queueSize,
      start: DEFAULT_START,
      startBytes: START_BYTES,
    });
    this.#limiter = rate === undefined ? null : rate instanceof RateLimiter ? rate : new RateLimiter(rate);
    this.#keeper =
      checkpoint === undefined ? null : new Keeper(BigInt(checkpoint.every ?? DEFAULT_EVERY), () => this.#save());
    this.#done = state?.done ?? new IntervalSet();
    this.#missing = state?.missing ?? new IntervalSet();
    this.#resumed = this.#done.bytes;
    this.#progress = new ProgressMeter(options.onProgress, {
      total: selection.total,
      at: selection.start,
      before: this.#resumed,
    });
  }

  get result(): CopyResult {
    return withJson({
      total: this.#work.selection.total,
      read: this.#read,
      written: this.#written,
      zeroed: this.#zeroed,
      resumed: this.#resumed,
      missing: this.#missing.spans.map(asRange),
      inFlight: this.#inFlight.bytes,
    });
  }

  async copyAll(mustFlush: boolean): Promise<void> {
    const { selection } = this.#work;
    const { checkpoint, signal } = this.#options;
    try {
      await this.#copy(selection.runs(this.#done), true);
      await this.#keeper?.idle();
      this.#keeper?.check();
      do await this.#copyLost();
      while (mustFlush && !(await this.#flush()));
    } finally {
      // A flush that does not heed the signal is not waited for.
      if (this.#keeper !== null) await abortable(this.#keeper.idle(), signal).catch(() => undefined);
    }
    checkAllDone(this.#done.bytes, selection.total, 'copy');
    if (checkpoint === undefined) return;
    await this.#store(
      'removal',
      checkpoint.clear === undefined ? checkpoint.save(encodeState(null)) : checkpoint.clear(),
    );
  }

  async #copy(runs: AsyncGenerator<Run, void, undefined>, isFirst: boolean): Promise<void> {
    const { signal, destinationIsZero = false } = this.#options;
    const buffers: (Buffer | undefined)[] = [];
    const jobs = jobsOf(runs, {
      shift: this.#work.shape.gridShift,
      requestSize: () => this.#inFlight.requestSize,
      destinationIsZero,
    });
    await inLanes(
      this.#admitted(jobs),
      this.#inFlight,
      async (job, lane) => {
        this.#running.set(lane, job);
        try {
          await this.#piece(job, lane, buffers, isFirst);
        } catch (error) {
          // What waits for a checkpoint would wait for this piece.
          this.#keeper?.stop(error);
          throw error;
        } finally {
          this.#running.delete(lane);
        }
      },
      signal,
      (lane) => {
        buffers[lane] = undefined;
      },
    );
  }

  async *#admitted(jobs: AsyncGenerator<Run, void, undefined>): AsyncGenerator<Run, void, undefined> {
    for await (const job of jobs) {
      if (!job.isZero && this.#keeper !== null) {
        await abortable(this.#keeper.admit(Number(job.end - job.start)), this.#options.signal);
      }
      yield job;
    }
  }

  async #piece(
    { start, end, isZero }: Run,
    lane: number,
    buffers: (Buffer | undefined)[],
    isFirst: boolean,
  ): Promise<void> {
    const { signal } = this.#options;
    const hash = isFirst ? this.#options.hash : undefined;
    const place = start - this.#work.selection.start;
    let moved: number;
    let begun: Begun | undefined;
    if (isZero) {
      hash?.zero(place, end - start);
      await this.#zero(start + this.#shift, end - start, lane);
      moved = this.#to.canZero || this.#options.destinationIsZero === true ? 0 : Number(end - start);
    } else {
      moved = Number(end - start);
      if (this.#limiter === null) begun = this.#inFlight.begin();
      else await this.#limiter.take(moved, signal);
      const buffer = this.#bufferOf(buffers, lane, moved);
      await at(this.#fill(buffer, start, lane), 'copy', 'read', start, signal);
      this.#read += BigInt(moved);
      hash?.update(place, buffer);
      if (this.#sparse === 0) await this.#write(buffer, start + this.#shift, lane);
      else await this.#writeSparsely(buffer, start + this.#shift, lane);
    }
    for (const span of this.#lost.outside(start, end)) this.#done.add(span.start, span.end);
    this.#inFlight.moved(moved, begun);
    await this.#progress.piece(end, this.#done.bytes, moved);
    if (!isZero) this.#keeper?.arrived(moved);
  }

  #bufferOf(buffers: (Buffer | undefined)[], lane: number, length: number): Buffer {
    const slot = this.#isDiscarding ? 0 : lane;
    let buffer = buffers[slot];
    if (buffer === undefined || buffer.length < length) {
      buffer = allocateForReads(Math.max(length, this.#inFlight.requestSize));
      buffers[slot] = buffer;
    }
    return buffer.subarray(0, length);
  }

  #fill(buffer: Buffer, start: bigint, lane: number): Promise<void> {
    const { onReadError, signal } = this.#options;
    if (onReadError !== 'zero') return this.#from.read(buffer, start, lane, signal);
    return readWhatCanBe(this.#from, buffer, start, lane, this.#missing, signal);
  }

  async #writeSparsely(buffer: Buffer, offset: bigint, lane: number): Promise<void> {
    const pieces: Promise<void>[] = [];
    const within = Number(offset % BigInt(this.#sparse));
    splitZeroes(buffer, within, this.#sparse, (start, end, isZero) => {
      const from = offset + BigInt(start);
      pieces.push(
        isZero
          ? this.#zero(from, BigInt(end - start), lane)
          : this.#write(start === 0 && end === buffer.length ? buffer : buffer.subarray(start, end), from, lane),
      );
    });
    const [only] = pieces;
    if (pieces.length === 1) {
      await only;
      return;
    }
    // The buffer is in use until all have settled.
    for (const settled of await Promise.allSettled(pieces)) if (settled.status === 'rejected') throw settled.reason;
  }

  async #write(buffer: Buffer, offset: bigint, lane: number): Promise<void> {
    const { signal } = this.#options;
    await at(this.#to.write(buffer, offset, lane, signal), 'copy', 'write', offset, signal);
    this.#written += BigInt(buffer.length);
  }

  async #zero(offset: bigint, length: bigint, lane: number): Promise<void> {
    const { destinationIsZero, allocated = false, signal } = this.#options;
    if (destinationIsZero !== true) {
      const zeroing = this.#to.zero(offset, length, allocated, lane, signal);
      if (!(await at(zeroing, 'copy', 'zero', offset, signal))) {
        await this.#writeZeroes(offset, length, lane);
        return;
      }
    }
    this.#zeroed += length;
  }

  async #writeZeroes(offset: bigint, length: bigint, lane: number): Promise<void> {
    const zeroes = (this.#zeroes ??= Buffer.alloc(this.#work.shape.requestSize));
    for (let done = 0n; done < length;) {
      const rest = length - done;
      const count = rest < BigInt(zeroes.length) ? Number(rest) : zeroes.length;
      await this.#write(zeroes.subarray(0, count), offset + done, lane);
      done += BigInt(count);
    }
  }

  /** Flushes the destination. False where writes were lost before: they are in `lost`, and another flush is due. */
  async #flush(): Promise<boolean> {
    const { signal } = this.#options;
    try {
      await abortable(Promise.resolve(this.#to.end.flush?.(signal)), signal);
      return true;
    } catch (error) {
      const ranges = lostRanges(error);
      if (ranges === null || ++this.#losses > MOST_LOSSES || !this.#markLost(ranges)) {
        await at(Promise.reject(error as Error), 'copy', 'flush', null, signal);
      }
      return false;
    }
  }

  /** False where something was lost that this copy has not written, and cannot write again. */
  #markLost(ranges: readonly Loss[]): boolean {
    const mine = new IntervalSet(this.#done.spans);
    for (const { start, end } of this.#running.values()) mine.add(start, end);
    for (const span of this.#lost.spans) mine.add(span.start, span.end);
    const whole = new IntervalSet();
    // Of a block of which a part was copied, the rest was written back as it was.
    for (const { start, end } of mine.spans) whole.add(...this.#to.around(start + this.#shift, end + this.#shift));
    for (const { start, end } of ranges) {
      if (whole.outside(start, end).next().done !== true) return false;
      for (const span of mine.within(start - this.#shift, end - this.#shift)) {
        this.#lost.add(span.start, span.end);
        this.#done.remove(span.start, span.end);
      }
    }
    return true;
  }

  /** Copies again what was lost, until nothing is. */
  async #copyLost(): Promise<void> {
    while (!this.#lost.isEmpty) {
      const spans = this.#lost.spans;
      this.#lost = new IntervalSet();
      await this.#copy(runsOf(this.#from, spans, this.#work.runOptions), false);
      await this.#keeper?.idle();
      this.#keeper?.check();
    }
  }

  /** Of what is at the destination now, after a flush. */
  async #save(): Promise<void> {
    const { checkpoint } = this.#options;
    const { identity } = this.#work;
    if (checkpoint === undefined || identity === null) return;
    for (;;) {
      const done = new IntervalSet(this.#done.spans);
      const missing = new IntervalSet(this.#missing.spans);
      if (!(await this.#flush())) continue;
      await this.#store('save', checkpoint.save(encodeState({ identity, done, missing })));
      return;
    }
  }

  async #store(what: string, doing: Promise<void> | void): Promise<void> {
    const { signal } = this.#options;
    await abortable(at(doing, 'copy', `${what} of the checkpoint`, null, signal), signal);
  }
}

/** @throws NbdStrictError `EINVAL` where a destination cannot flush that has to. */
export function checkFlush({ end }: Destination, { flush, checkpoint }: CopyOptions): void {
  if (end.flush !== undefined || (flush !== true && checkpoint === undefined)) return;
  const why = checkpoint === undefined ? '' : ', and a checkpoint is saved only behind a flush';
  throw new NbdStrictError(
    `copy: ${checkpoint === undefined ? 'flush' : 'checkpoint'}: the destination cannot flush${why}; nothing was copied ` +
      '(see canFlush)',
    { code: 'EINVAL', syscall: 'copy' },
  );
}
