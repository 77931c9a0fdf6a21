// Copying an export: holes are neither read nor sent, runs of zeroes that are read become zero commands, and a bounded
// number of requests is in flight. Invariant: it resolves only when every byte of the source is at the destination.

import { NbdStrictError } from '../errors.js';
import { aBoolean, aFunction, checkOptions, powerOfTwo, wholeNumber, zeroOr } from '../util/option-checks.js';
import type { BlockHasher } from './hash/block-hasher.js';
import { aBlockHasher, pick, type StatusOptions, WORK_CHECKS } from './options.js';
import {
  type Destination,
  type DestinationLike,
  type Source,
  type SourceLike,
  toDestination,
  toSource,
} from './ends/ends.js';
import { abortable, at, checkAllDone } from './failures.js';
import { multipleOf } from './facts.js';
import { inLanes, type Progress, report } from './lanes.js';
import { knownRuns, type Run } from './ends/runs.js';
import { splitZeroes } from './zeroes.js';

/** What {@link copy} takes. Sizes are bytes; the defaults are nbdcopy's unless said otherwise. */
export interface CopyOptions extends StatusOptions {
  /** Bytes of one request: a power of 2 from 512. Default 256 KiB, raised to the ends' preferred block sizes. */
  requestSize?: number;
  /** Requests in flight, all connections together. Default 64, and never more than 32 MiB of them. */
  requests?: number;
  /** Payload in flight. Default 32 MiB. */
  queueSize?: number;
  /** Blocks of zeroes of this size are found in what is read: a power of 2, 0 for not at all. Default 4096. */
  sparse?: number;
  /** Zeroes are written so that the destination has space for them; none are looked for. Default false. */
  allocated?: boolean;
  /** The destination reads as zeroes already: zeroes are left out. Default false. */
  destinationIsZero?: boolean;
  /** Ask the source for its extents. Default true. */
  extents?: boolean;
  /** Flush the destination at the end; one that cannot is refused before anything is copied. Default false. */
  flush?: boolean;
  /** Gets every byte of the source, zeroes too: the block hash is made while copying. */
  hash?: BlockHasher;
  /** Called as bytes arrive at the destination, zeroes included; `done` counts them. */
  onProgress?: (progress: Progress) => void;
  /** Ends the work; the promise rejects with its reason. */
  signal?: AbortSignal;
}

/** What a copy has done, in bytes. */
export interface CopyResult {
  /** Size of the source. */
  readonly total: bigint;
  /** Bytes read from the source. */
  readonly read: bigint;
  /** Bytes sent to the destination. */
  readonly written: bigint;
  /** Bytes made zero without being sent. */
  readonly zeroed: bigint;
}

const COPY_OPTIONS = {
  ...WORK_CHECKS,
  requestSize: powerOfTwo(512),
  requests: wholeNumber(1),
  queueSize: wholeNumber(1),
  sparse: zeroOr(powerOfTwo(512)),
  allocated: aBoolean,
  destinationIsZero: aBoolean,
  flush: aBoolean,
  hash: aBlockHasher,
  onProgress: aFunction,
};

/** Zeroes are not joined across this, so that one command is not too much for a server. As nbdcopy's work unit. */
const UNIT = 128n * 1024n * 1024n;
const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_QUEUE = 32 * 1024 * 1024;
const DEFAULT_DEPTH = 64;
const DEFAULT_SPARSE = 4096;

/**
 * Copies all of a source to the beginning of a destination, which may be larger. Either is a connection, an array of
 * connections to one export, or an end of your own. Where the destination's minimum block is larger than what the
 * source's end leaves, the block there is read, changed and written.
 *
 * @throws NbdStrictError `EINVAL` for bad options and ends, for connections of an array that differ or have no
 *   multi-conn, for `flush` where the destination cannot, and where the end of the source is no whole block of a
 *   destination that cannot be read; `ENOSPC` when the destination is smaller, `EPERM` when it is read-only: all before
 *   anything is copied. What the ends reject with, of its own class and with its own fields, and a message that says
 *   where; `ENOTCONN` for a connection that was lost. Requests in flight have settled by then, and the destination holds
 *   some of the source. The signal's reason.
 */
export async function copy(
  source: SourceLike,
  destination: DestinationLike,
  options: CopyOptions = {},
): Promise<CopyResult> {
  const checked = checkOptions<CopyOptions>('copy', options, COPY_OPTIONS);
  const from = toSource(source, 'copy', 'source');
  const to = toDestination(destination, 'copy', 'destination');
  if (to.size !== null && from.size > to.size) {
    throw new NbdStrictError(`copy: the destination has ${to.size} bytes, fewer than the source's ${from.size}`, {
      code: 'ENOSPC',
      syscall: 'copy',
    });
  }
  if (checked.flush === true && to.end.flush === undefined) {
    throw new NbdStrictError('copy: flush: the destination cannot flush, nothing was copied (see canFlush)', {
      code: 'EINVAL',
      syscall: 'copy',
    });
  }
  const { signal } = checked;
  signal?.throwIfAborted();
  await abortable(at(to.prepare(0n, from.size, signal), 'copy', 'read of the destination', null, signal), signal);
  const run = new CopyRun(from, to, checked);
  await run.copyAll();
  checkAllDone(run.result.written + run.result.zeroed, from.size, 'copy');
  if (checked.flush === true) {
    await abortable(at(to.end.flush?.(signal), 'copy', 'flush', null, signal), signal);
  }
  return run.result;
}

class CopyRun {
  readonly #from: Source;
  readonly #to: Destination;
  readonly #options: CopyOptions;
  readonly #requestSize: number;
  readonly #depth: number;
  readonly #sparse: number;
  /** What both ends take as whole blocks. */
  readonly #align: number;
  #read = 0n;
  #written = 0n;
  #zeroed = 0n;
  #zeroes: Buffer | null = null;

  constructor(from: Source, to: Destination, options: CopyOptions) {
    this.#from = from;
    this.#to = to;
    this.#options = options;
    this.#align = Math.max(from.blocks.minimum, to.blocks.minimum);
    const preferred = Math.max(from.blocks.preferred, to.blocks.preferred);
    const limit = Math.min(from.blocks.maximum, to.blocks.maximum);
    const wanted = Math.max(options.requestSize ?? DEFAULT_REQUEST, preferred);
    this.#requestSize = multipleOf(this.#align, Math.min(wanted, limit));
    const queue = options.queueSize ?? DEFAULT_QUEUE;
    const depth = Math.min(options.requests ?? DEFAULT_DEPTH, Math.floor(queue / this.#requestSize));
    this.#depth = Math.max(depth, 1);
    const sparse = options.sparse ?? DEFAULT_SPARSE;
    this.#sparse = sparse === 0 || options.allocated === true ? 0 : Math.max(sparse, to.blocks.preferred);
  }

  get result(): CopyResult {
    return { total: this.#from.size, read: this.#read, written: this.#written, zeroed: this.#zeroed };
  }

  async copyAll(): Promise<void> {
    const buffers: Buffer[] = [];
    const { signal, hash } = this.#options;
    await inLanes(
      this.#jobs(),
      this.#depth,
      async ({ start, end, isZero }, lane) => {
        if (isZero) {
          hash?.zero(start, end - start);
          await this.#zero(start, end - start, lane);
          return;
        }
        const length = Number(end - start);
        const buffer = (buffers[lane] ??= Buffer.allocUnsafeSlow(this.#requestSize)).subarray(0, length);
        await at(this.#from.read(buffer, start, lane, signal), 'copy', 'read', start, signal);
        this.#read += BigInt(length);
        hash?.update(start, buffer);
        if (this.#sparse === 0) await this.#write(buffer, start, lane);
        else await this.#writeSparsely(buffer, start, lane);
      },
      signal,
    );
  }

  /** The pieces of work, in order. A request is zero when all of it is known to be. */
  async *#jobs(): AsyncGenerator<Run> {
    const { size } = this.#from;
    const runs = knownRuns(this.#from, 0n, size, {
      ...pick(this.#options, 'extents', 'step', 'onStatusError', 'signal'),
      align: this.#align,
      syscall: 'copy',
    });
    const requestSize = BigInt(this.#requestSize);
    let run: Run = { start: 0n, end: 0n, isZero: false };
    let zeroFrom = -1n;
    for (let offset = 0n; offset < size;) {
      const unit = offset - (offset % UNIT) + UNIT;
      const unitEnd = unit < size ? unit : size;
      let end = offset + requestSize < unitEnd ? offset + requestSize : unitEnd;
      while (run.end <= offset) {
        const next = await runs.next();
        if (next.done === true) break;
        run = next.value;
      }
      const isZero = run.isZero && run.end >= end;
      // Most of a sparse export: the rest of the unit at once, or of the run, where there is nothing to send.
      if (isZero && run.end >= unitEnd) end = unitEnd;
      if (isZero && this.#options.destinationIsZero === true) {
        end = run.end === size ? size : run.end - (run.end % requestSize);
        yield { start: zeroFrom === -1n ? offset : zeroFrom, end, isZero: true };
        zeroFrom = -1n;
        offset = end;
        continue;
      }
      if (isZero) {
        if (zeroFrom === -1n) zeroFrom = offset;
      } else {
        if (zeroFrom !== -1n) yield { start: zeroFrom, end: offset, isZero: true };
        zeroFrom = -1n;
        yield { start: offset, end, isZero: false };
      }
      offset = end;
      if (offset === unitEnd && zeroFrom !== -1n) {
        yield { start: zeroFrom, end: offset, isZero: true };
        zeroFrom = -1n;
      }
    }
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
    await this.#report();
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
    await this.#report();
  }

  async #writeZeroes(offset: bigint, length: bigint, lane: number): Promise<void> {
    const zeroes = (this.#zeroes ??= Buffer.alloc(this.#requestSize));
    for (let done = 0n; done < length;) {
      const rest = length - done;
      const count = rest < BigInt(zeroes.length) ? Number(rest) : zeroes.length;
      await this.#write(zeroes.subarray(0, count), offset + done, lane);
      done += BigInt(count);
    }
  }

  async #report(): Promise<void> {
    await report(this.#options.onProgress, { done: this.#written + this.#zeroed, total: this.#from.size });
  }
}
