// An export, or a range of it, as a Writable: small chunks are gathered, several writes are in flight, zeroes can
// become zero commands. Invariant: 'finish' comes when every byte has been written, and flushed where that was possible
// and not declined: over a pool, no earlier write has been lost then.

import { Writable } from 'node:stream';
import type { ByteCount } from '../../client/export.js';
import { NbdStrictError } from '../../errors.js';
import { aBoolean, byteCount, checkOptions, powerOfTwo, zeroOr } from '../../util/option-checks.js';
import { DEPTH_CHECKS, pick, SIGNAL_CHECKS } from '../options.js';
import { type Destination, toDestination } from '../ends/ends.js';
import { at } from '../failures.js';
import { type Begun, type CountOrAuto, InFlight } from '../in-flight.js';
import { type ExportLike, factsOf, multipleOf, rangeOf } from '../facts.js';
import { isPlain, isUint8Array, memoryOf } from '../../util/views.js';
import { splitZeroes } from '../zeroes.js';

/** What {@link createWriteStream} takes. */
export interface WriteStreamOptions {
  /** Where the first byte goes. Default 0. */
  offset?: ByteCount | undefined;
  /** Bytes of one write. Default 256 KiB. */
  requestSize?: number | undefined;
  /**
   * Writes in flight. Default `'auto'`: begins with 16, and raises the bytes in flight while that raises the
   * throughput, up to `queueSize`.
   */
  requests?: CountOrAuto | undefined;
  /** The most bytes in flight. Default `'auto'`: 256 MiB. */
  queueSize?: CountOrAuto | undefined;
  /** Blocks of zeroes of this size are sent as zero commands: a power of 2, 0 for not at all. Default 0. */
  sparse?: number | undefined;
  /**
   * Flush before `finish`. True: refused where the server cannot. False: leave what was written in the caches of the
   * server. Default: flush where the server can.
   */
  flush?: boolean | undefined;
  /** Destroys the stream with its reason. */
  signal?: AbortSignal | undefined;
}

const SYSCALL = 'createWriteStream';

const WRITE_STREAM_OPTIONS = {
  ...DEPTH_CHECKS,
  ...SIGNAL_CHECKS,
  offset: byteCount(),
  sparse: zeroOr(powerOfTwo(512)),
  flush: aBoolean,
};

const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_DEPTH = 16;

/**
 * Writes to an export in order. The connection stays open when the stream ends. Where the first or the last byte is
 * within a block of the server's minimum size, the block is read, changed and written.
 *
 * @throws NbdStrictError `EPERM` on a read-only export, `EINVAL` for bad options, when the offset is outside, and for
 *   `flush` where the server cannot. Bytes beyond the end of the export destroy the stream with `ENOSPC`, and so does
 *   what goes wrong in a write, or in the flush: NbdUnflushedError, where a pool has lost what was written before and has
 *   no `rewrite`.
 */
export function createWriteStream(connection: ExportLike, options: WriteStreamOptions = {}): Writable {
  const checked = checkOptions<WriteStreamOptions>(SYSCALL, options, WRITE_STREAM_OPTIONS);
  const { size, canFlush } = factsOf(connection, SYSCALL);
  const to = toDestination(connection, SYSCALL, 'connection');
  const [start] = rangeOf(size, checked, SYSCALL);
  if (checked.flush === true && !canFlush) {
    throw new NbdStrictError(`${SYSCALL}: flush: the server cannot flush (see canFlush)`, {
      code: 'EINVAL',
      syscall: SYSCALL,
    });
  }
  const abort = new AbortController();
  const signal = checked.signal === undefined ? abort.signal : AbortSignal.any([checked.signal, abort.signal]);
  const gatherer = new Gatherer(to, checked, start, size, signal, (error) => stream.destroy(error as Error));
  const stream = new ExportWritable({
    highWaterMark: gatherer.requestSize,
    decodeStrings: true,
    ...pick(checked, 'signal'),
    write(chunk: Buffer, _encoding, callback) {
      gatherer.take(chunk).then(() => callback(), callback);
    },
    final(callback) {
      gatherer.end(canFlush && checked.flush !== false).then(() => callback(), callback);
    },
    // What has not been sent is not sent any more.
    destroy(error, callback) {
      abort.abort(error ?? new Error('the stream was destroyed'));
      callback(error);
    },
  });
  return stream;
}

/** A subclass of Uint8Array is taken by its memory before node:stream asks it for its properties. */
class ExportWritable extends Writable {
  override write(chunk: unknown, ...rest: unknown[]): boolean {
    const write = super.write.bind(this) as (...args: unknown[]) => boolean;
    return write(plain(chunk), ...rest);
  }

  override end(chunk?: unknown, ...rest: unknown[]): this {
    const end = super.end.bind(this) as (...args: unknown[]) => this;
    return end(plain(chunk), ...rest);
  }
}

const plain = (chunk: unknown): unknown => (isUint8Array(chunk) && !isPlain(chunk) ? memoryOf(chunk) : chunk);

class Gatherer {
  readonly requestSize: number;
  readonly #to: Destination;
  readonly #sparse: number;
  readonly #inFlight: InFlight;
  readonly #size: bigint;
  readonly #signal: AbortSignal;
  readonly #failed: (error: unknown) => void;
  #offset: bigint;
  #buffer: Buffer;
  /** Bytes of the buffer that are used; the first request ends where a block does. */
  #room: number;
  #filled = 0;
  readonly #free: Buffer[] = [];
  readonly #running = new Map<Promise<void>, Begun>();
  #failure: { readonly error: unknown } | null = null;

  constructor(
    to: Destination,
    options: WriteStreamOptions,
    start: bigint,
    size: bigint,
    signal: AbortSignal,
    failed: (error: unknown) => void,
  ) {
    const { minimum, maximum } = to.blocks;
    this.#to = to;
    this.requestSize = multipleOf(minimum, Math.min(options.requestSize ?? DEFAULT_REQUEST, maximum));
    this.#sparse = options.sparse === undefined || options.sparse === 0 ? 0 : Math.max(options.sparse, minimum);
    this.#inFlight = new InFlight({
      requestSize: this.requestSize,
      ...pick(options, 'requests', 'queueSize'),
      start: DEFAULT_DEPTH,
    });
    this.#offset = start;
    this.#size = size;
    this.#signal = signal;
    this.#failed = failed;
    this.#buffer = Buffer.allocUnsafeSlow(this.requestSize);
    this.#room = this.requestSize - Number(start % BigInt(minimum));
  }

  /** Copies the bytes; waits while too many writes are in flight. */
  async take(chunk: Buffer): Promise<void> {
    let from = 0;
    while (from < chunk.length) {
      this.#check();
      const count = Math.min(chunk.length - from, this.#room - this.#filled);
      chunk.copy(this.#buffer, this.#filled, from, from + count);
      this.#filled += count;
      from += count;
      if (this.#filled === this.#room) await this.#send();
    }
  }

  async end(flush: boolean): Promise<void> {
    if (this.#filled > 0) await this.#send();
    await Promise.all(this.#running.keys());
    this.#check();
    if (flush) await at(this.#to.end.flush?.(this.#signal), SYSCALL, 'flush', null, this.#signal);
  }

  async #send(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#filled);
    const offset = this.#offset;
    if (offset + BigInt(bytes.length) > this.#size) {
      throw new NbdStrictError(`createWriteStream: there is more than the export's ${this.#size} bytes`, {
        code: 'ENOSPC',
        syscall: SYSCALL,
        offset,
      });
    }
    const used = this.#buffer;
    this.#offset += BigInt(bytes.length);
    this.#filled = 0;
    this.#room = this.requestSize;
    const begun = this.#inFlight.begin();
    const running = this.#write(bytes, offset)
      .then(() => this.#inFlight.moved(bytes.length, begun.isAwaited ? begun : undefined))
      .catch((error: unknown) => {
        this.#failure ??= { error };
        // The source may be slow: it is not to send its next chunk before it hears of this.
        this.#failed(error);
      })
      .finally(() => {
        this.#running.delete(running);
        this.#free.push(used);
      });
    this.#running.set(running, begun);
    while (this.#running.size >= this.#inFlight.limit) {
      for (const each of this.#running.values()) each.isAwaited = true;
      await Promise.race(this.#running.keys());
    }
    this.#buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.requestSize);
    this.#check();
  }

  async #write(bytes: Buffer, offset: bigint): Promise<void> {
    const to = this.#to;
    const signal = this.#signal;
    const write = (start: number, end: number): Promise<void> => {
      const from = offset + BigInt(start);
      return at(to.write(bytes.subarray(start, end), from, 0, signal), SYSCALL, 'write', from, signal);
    };
    if (this.#sparse === 0 || !to.canZero) {
      await write(0, bytes.length);
      return;
    }
    const pieces: Promise<unknown>[] = [];
    splitZeroes(bytes, Number(offset % BigInt(this.#sparse)), this.#sparse, (start, end, isZero) => {
      const from = offset + BigInt(start);
      const zero = (): Promise<boolean> => to.zero(from, BigInt(end - start), false, 0, signal);
      pieces.push(isZero ? at(zero(), SYSCALL, 'zero', from, signal) : write(start, end));
    });
    for (const settled of await Promise.allSettled(pieces)) if (settled.status === 'rejected') throw settled.reason;
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}
