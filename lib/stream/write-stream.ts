// An export, or a range of it, as a Writable: small chunks are gathered, several writes are in flight, zeroes can
// become zero commands. Invariant: 'finish' comes when every byte has been written, and flushed if that was asked.

import { Writable } from 'node:stream';
import type { ByteCount, NbdConnection } from '../client/connection.js';
import { NbdStrictError } from '../errors.js';
import { isPlain, isUint8Array, memoryOf } from '../util/views.js';
import { checkRange } from './extents.js';
import { limitedRequest } from './prefetch.js';
import { splitZeroes } from './zeroes.js';

/** What {@link createWriteStream} takes. */
export interface WriteStreamOptions {
  /** Where the first byte goes. Default 0. */
  offset?: ByteCount;
  /** Bytes of one write. Default 256 KiB. */
  requestSize?: number;
  /** Writes in flight. Default 16. */
  requests?: number;
  /** Blocks of zeroes of this size are sent as zero commands: a power of 2, 0 for not at all. Default 0. */
  sparse?: number;
  /** Flush before `finish`, where the server can. Default false. */
  flush?: boolean;
  /** Destroys the stream with its reason. */
  signal?: AbortSignal;
}

const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_DEPTH = 16;

/**
 * Writes to an export in order. The connection stays open when the stream ends.
 *
 * @throws NbdStrictError `EPERM` on a read-only export, `EINVAL` when the offset is outside. Bytes beyond the end of
 *   the export destroy the stream with `ENOSPC`, and so does what goes wrong in a write.
 */
export function createWriteStream(connection: NbdConnection, options: WriteStreamOptions = {}): Writable {
  if (connection.isReadOnly()) {
    throw new NbdStrictError('createWriteStream: the export is read-only', {
      code: 'EPERM',
      syscall: 'createWriteStream',
    });
  }
  const [start, end] = checkRange(connection, options, 'createWriteStream');
  const gatherer = new Gatherer(connection, options, start, end);
  return new ExportWritable({
    highWaterMark: gatherer.requestSize,
    decodeStrings: true,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    write(chunk: Buffer, _encoding, callback) {
      gatherer.take(chunk).then(() => callback(), callback);
    },
    final(callback) {
      gatherer.end(options.flush === true).then(() => callback(), callback);
    },
  });
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
  readonly #connection: NbdConnection;
  readonly #options: WriteStreamOptions;
  readonly #depth: number;
  readonly #end: bigint;
  #offset: bigint;
  #buffer: Buffer;
  #filled = 0;
  readonly #free: Buffer[] = [];
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | null = null;

  constructor(connection: NbdConnection, options: WriteStreamOptions, start: bigint, end: bigint) {
    this.#connection = connection;
    this.#options = options;
    this.requestSize = limitedRequest(connection, options.requestSize ?? DEFAULT_REQUEST);
    this.#depth = options.requests ?? DEFAULT_DEPTH;
    this.#offset = start;
    this.#end = end;
    this.#buffer = Buffer.allocUnsafeSlow(this.requestSize);
  }

  /** Copies the bytes; waits while too many writes are in flight. */
  async take(chunk: Buffer): Promise<void> {
    let from = 0;
    while (from < chunk.length) {
      this.#check();
      const count = Math.min(chunk.length - from, this.requestSize - this.#filled);
      chunk.copy(this.#buffer, this.#filled, from, from + count);
      this.#filled += count;
      from += count;
      if (this.#filled === this.requestSize) await this.#send();
    }
  }

  async end(flush: boolean): Promise<void> {
    if (this.#filled > 0) await this.#send();
    await Promise.all(this.#running);
    this.#check();
    if (flush && this.#connection.canFlush()) await this.#connection.flush(0, this.#options.signal);
  }

  async #send(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#filled);
    const offset = this.#offset;
    if (offset + BigInt(bytes.length) > this.#end) {
      throw new NbdStrictError(`createWriteStream: there is more than the export's ${this.#end} bytes`, {
        code: 'ENOSPC',
        syscall: 'createWriteStream',
        offset,
      });
    }
    const used = this.#buffer;
    this.#offset += BigInt(bytes.length);
    this.#filled = 0;
    const running = this.#write(bytes, offset)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#running.delete(running);
        this.#free.push(used);
      });
    this.#running.add(running);
    while (this.#running.size >= this.#depth) await Promise.race(this.#running);
    this.#buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.requestSize);
    this.#check();
  }

  async #write(bytes: Buffer, offset: bigint): Promise<void> {
    const { sparse = 0, signal } = this.#options;
    const connection = this.#connection;
    if (sparse === 0 || !connection.canZero()) {
      await connection.pwrite(bytes, offset, 0, signal);
      return;
    }
    const pieces: Promise<void>[] = [];
    splitZeroes(bytes, Number(offset % BigInt(sparse)), sparse, (start, end, isZero) => {
      const at = offset + BigInt(start);
      pieces.push(
        isZero
          ? connection.zero(end - start, at, 0, signal)
          : connection.pwrite(bytes.subarray(start, end), at, 0, signal),
      );
    });
    for (const settled of await Promise.allSettled(pieces)) if (settled.status === 'rejected') throw settled.reason;
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}
