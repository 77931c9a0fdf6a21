// Copying an export: holes are neither read nor sent, runs of zeroes that are read become zero commands, and a bounded
// number of requests is in flight. Invariant: it resolves only when every byte of the source is at the destination.

import { NbdError, NbdStrictError } from '../errors.js';
import type { NbdConnection } from '../client/connection.js';
import type { BlockHasher } from './block-hasher.js';
import {
  type Connections,
  type CopyDestination,
  type CopySource,
  exportDestination,
  exportSource,
  type ZeroRun,
} from './endpoint.js';
import { inLanes, type Progress } from './lanes.js';
import { splitZeroes } from './zeroes.js';

/** What {@link copy} takes. Sizes are bytes; the defaults are nbdcopy's unless said otherwise. */
export interface CopyOptions {
  /** Bytes of one request: a power of 2. Default 256 KiB, raised to the ends' preferred block sizes. */
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
  /** Flush the destination at the end. Default false. */
  flush?: boolean;
  /** Gets every byte of the source, zeroes too: the block hash is made while copying. */
  hash?: BlockHasher;
  /** Called as bytes arrive at the destination, zeroes included; `done` counts them. */
  onProgress?: (progress: Progress) => void;
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

/** Zeroes are not joined across this, so that one command is not too much for a server. As nbdcopy's work unit. */
const UNIT = 128 * 1024 * 1024;
const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_QUEUE = 32 * 1024 * 1024;
const DEFAULT_DEPTH = 64;
const DEFAULT_SPARSE = 4096;

interface Job {
  readonly offset: number;
  readonly length: number;
  readonly isZero: boolean;
}

/**
 * Copies all of a source to the beginning of a destination, which may be larger. Either is a connection, an array of
 * connections to one export, or an end of your own.
 *
 * @throws NbdStrictError `EINVAL` for bad options, `ENOSPC` when the destination is smaller, `EPERM` when it is
 *   read-only; what the ends reject with, as the `cause` of an NbdError that says where. Requests in flight have
 *   settled by then, and the destination holds some of the source. The signal's reason.
 */
export async function copy(
  source: Connections | CopySource,
  destination: Connections | CopyDestination,
  options: CopyOptions = {},
): Promise<CopyResult> {
  const from = isEnd<CopySource>(source) ? source : exportSource(source);
  const to = isEnd<CopyDestination>(destination) ? destination : exportDestination(destination);
  if (!isEnd(destination)) checkWritable(destination);
  if (from.size > to.size) {
    throw new NbdStrictError(`copy: the destination has ${to.size} bytes, fewer than the source's ${from.size}`, {
      code: 'ENOSPC',
      syscall: 'copy',
    });
  }
  const run = new CopyRun(from, to, options);
  await run.copyAll();
  if (options.flush === true) await to.flush?.();
  return run.result;
}

const isEnd = <End extends CopySource | CopyDestination>(value: Connections | End): value is End =>
  typeof (value as { size?: unknown }).size === 'number';

function checkWritable(connections: Connections): void {
  const first = (Array.isArray(connections) ? connections[0] : connections) as NbdConnection | undefined;
  if (first?.isReadOnly() !== true) return;
  throw new NbdStrictError('copy: the destination is read-only', { code: 'EPERM', syscall: 'copy' });
}

function powerOfTwo(name: string, value: number, minimum: number): number {
  if (Number.isSafeInteger(value) && value >= minimum && Number.isInteger(Math.log2(value))) return value;
  throw new NbdStrictError(`copy: ${name} must be a power of 2 from ${minimum}, not ${String(value)}`, {
    code: 'EINVAL',
    syscall: 'copy',
  });
}

class CopyRun {
  readonly #from: CopySource;
  readonly #to: CopyDestination;
  readonly #options: CopyOptions;
  readonly #requestSize: number;
  readonly #depth: number;
  readonly #sparse: number;
  #read = 0;
  #written = 0;
  #zeroed = 0;
  #zeroes: Buffer | null = null;

  constructor(from: CopySource, to: CopyDestination, options: CopyOptions) {
    this.#from = from;
    this.#to = to;
    this.#options = options;
    const preferred = Math.max(from.preferredBlock ?? 1, to.preferredBlock ?? 1);
    const limit = Math.min(from.maximumRequest ?? Infinity, to.maximumRequest ?? Infinity);
    const wanted = powerOfTwo('requestSize', options.requestSize ?? DEFAULT_REQUEST, 512);
    this.#requestSize = Math.min(Math.max(wanted, preferred), limit);
    const queue = options.queueSize ?? DEFAULT_QUEUE;
    const depth = Math.min(options.requests ?? DEFAULT_DEPTH, Math.floor(queue / this.#requestSize));
    this.#depth = Math.max(depth, 1);
    const sparse = options.sparse ?? DEFAULT_SPARSE;
    this.#sparse =
      sparse === 0 || options.allocated === true
        ? 0
        : Math.max(powerOfTwo('sparse', sparse, 512), to.preferredBlock ?? 1);
  }

  get result(): CopyResult {
    return {
      total: BigInt(this.#from.size),
      read: BigInt(this.#read),
      written: BigInt(this.#written),
      zeroed: BigInt(this.#zeroed),
    };
  }

  async copyAll(): Promise<void> {
    const buffers: Buffer[] = [];
    await inLanes(this.#jobs(), this.#depth, async ({ offset, length, isZero }, lane) => {
      this.#options.signal?.throwIfAborted();
      if (isZero) {
        this.#options.hash?.zero(offset, length);
        await this.#zero(offset, length, lane);
        return;
      }
      const buffer = (buffers[lane] ??= Buffer.allocUnsafeSlow(this.#requestSize)).subarray(0, length);
      await this.#located('read', offset, this.#from.read(buffer, offset, lane, this.#options.signal));
      this.#read += length;
      this.#options.hash?.update(offset, buffer);
      if (this.#sparse === 0) await this.#write(buffer, offset, lane);
      else await this.#writeSparsely(buffer, offset, lane);
    });
  }

  /** The pieces of work, in order. A request is zero when all of it is known to be. */
  async *#jobs(): AsyncGenerator<Job> {
    const { size } = this.#from;
    const runs = this.#runs();
    let run: ZeroRun = { offset: 0, length: 0, isZero: false };
    let zeroFrom = -1;
    for (let offset = 0; offset < size;) {
      const unitEnd = Math.min(offset - (offset % UNIT) + UNIT, size);
      let length = Math.min(this.#requestSize, unitEnd - offset);
      while (run.offset + run.length <= offset) {
        const next = await runs.next();
        if (next.done === true) break;
        run = next.value;
      }
      const isZero = run.isZero && run.offset + run.length >= offset + length;
      // Most of a sparse export: the rest of the unit at once.
      if (isZero && run.offset + run.length >= unitEnd) length = unitEnd - offset;
      if (isZero) {
        if (zeroFrom === -1) zeroFrom = offset;
      } else {
        if (zeroFrom !== -1) yield { offset: zeroFrom, length: offset - zeroFrom, isZero: true };
        zeroFrom = -1;
        yield { offset, length, isZero: false };
      }
      offset += length;
      if (offset === unitEnd && zeroFrom !== -1) {
        yield { offset: zeroFrom, length: offset - zeroFrom, isZero: true };
        zeroFrom = -1;
      }
    }
  }

  /** Runs that alternate between zero and not. */
  async *#runs(): AsyncGenerator<ZeroRun> {
    const { size } = this.#from;
    if (size === 0) return;
    if (this.#options.extents === false || this.#from.zeroRuns === undefined) {
      yield { offset: 0, length: size, isZero: false };
      return;
    }
    let last: ZeroRun | null = null;
    for await (const run of this.#from.zeroRuns(0, size, this.#options.signal)) {
      if (last !== null && last.isZero === run.isZero) {
        last = { offset: last.offset, length: last.length + run.length, isZero: run.isZero };
      } else {
        if (last !== null) yield last;
        last = run;
      }
    }
    if (last !== null) yield last;
  }

  async #writeSparsely(buffer: Buffer, offset: number, lane: number): Promise<void> {
    const pieces: Promise<void>[] = [];
    splitZeroes(buffer, offset, this.#sparse, (start, end, isZero) => {
      pieces.push(
        isZero
          ? this.#zero(offset + start, end - start, lane)
          : this.#write(
              start === 0 && end === buffer.length ? buffer : buffer.subarray(start, end),
              offset + start,
              lane,
            ),
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

  async #write(buffer: Buffer, offset: number, lane: number): Promise<void> {
    await this.#located('write', offset, this.#to.write(buffer, offset, lane, this.#options.signal));
    this.#written += buffer.length;
    this.#tell();
  }

  async #zero(offset: number, length: number, lane: number): Promise<void> {
    const { destinationIsZero, allocated = false, signal } = this.#options;
    const wanted = destinationIsZero !== true;
    if (wanted && this.#to.zero !== undefined) {
      const zeroing = this.#to.zero(offset, length, allocated, lane, signal);
      if (!(await this.#located('zero', offset, zeroing))) {
        await this.#writeZeroes(offset, length, lane);
        return;
      }
    } else if (wanted) {
      await this.#writeZeroes(offset, length, lane);
      return;
    }
    this.#zeroed += length;
    this.#tell();
  }

  async #writeZeroes(offset: number, length: number, lane: number): Promise<void> {
    const zeroes = (this.#zeroes ??= Buffer.alloc(this.#requestSize));
    for (let done = 0; done < length;) {
      const count = Math.min(zeroes.length, length - done);
      await this.#write(zeroes.subarray(0, count), offset + done, lane);
      done += count;
    }
  }

  #tell(): void {
    this.#options.onProgress?.({ done: BigInt(this.#written + this.#zeroed), total: BigInt(this.#from.size) });
  }

  /** Says of a failure where it was; a signal's reason stays as it is. */
  async #located<T>(what: string, offset: number, doing: Promise<T>): Promise<T> {
    try {
      return await doing;
    } catch (cause) {
      if (this.#options.signal?.aborted === true && cause === this.#options.signal.reason) throw cause;
      const { code, message } = cause as NodeJS.ErrnoException;
      throw new NbdError(`copy: ${what} at offset ${offset} failed: ${message}`, {
        code: typeof code === 'string' ? code : 'EIO',
        syscall: 'copy',
        offset: BigInt(offset),
        cause,
      });
    }
  }
}
