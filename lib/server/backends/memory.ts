// An export in memory. Only written pages take memory, so a 1 TiB export can be served.

import { Buffer } from '../../util/buffer.js';
import { add, fromHalves, highHalf, isWithin, lowHalf, type U64 } from '../../util/u64.js';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../../protocol/constants.js';
import { isUint8Array } from '../../util/views.js';
import { aBoolean, checkOptions, type OptionTable, refuse, shown } from '../../util/option-checks.js';
import type { BackendExtent, BlockSize, NbdBackend, ZeroOptions } from './backend.js';
import { aBlockSize, checkSize } from '../block-size.js';
import { ExtentMap, subtract } from './extent-map.js';

const PAGE_SIZE = 65536;
const PAGES_PER_HIGH = 65536; // pages in 4 GiB
const HOLE = NBD_STATE_HOLE | NBD_STATE_ZERO;

/** Options of a {@link MemoryBackend}. */
export interface MemoryBackendOptions {
  /** Refuses writes of clients. Default false. */
  readonly readOnly?: boolean | undefined;
  /** Block sizes to advertise. Default 1, 4096 and the server's `maxPayload`. */
  readonly blockSize?: BlockSize | undefined;
}

/** A part of the contents of an export; everything between parts is a hole. */
export interface DataPart {
  /** Where the data goes. */
  readonly offset: number | bigint;
  /** The data. A string is encoded as UTF-8. */
  readonly data: Uint8Array | string;
}

const OPTIONS: OptionTable<MemoryBackendOptions> = { readOnly: aBoolean, blockSize: aBlockSize };

/**
 * An export of `size` bytes in memory, initially zero. Written pages of 64 KiB are kept, everything else is a hole;
 * trim and zero free whole pages. All methods are synchronous, so requests of one connection take effect in the order
 * of their arrival.
 */
export class MemoryBackend implements NbdBackend {
  /** Size in bytes. */
  readonly size: number | bigint;
  /** Whether writes of clients are refused. */
  readonly readOnly: boolean;
  /** Block sizes to advertise; undefined for the server's defaults. */
  readonly blockSize?: BlockSize;
  /** FUA is supported: every write takes effect at once. */
  readonly fua = true;
  /** The `fast` option of zero() is supported. */
  readonly fastZero = true;
  /** No reference to written data is kept. */
  readonly copiesData = true;
  readonly #pages = new Map<number, Buffer>();
  // Ranges without pages that were zeroed with `noHole`: reported as allocated, but free. Created when first needed.
  #provisioned: ExtentMap | null = null;

  /**
   * Creates an export of zeroes.
   *
   * @throws NbdStrictError `EINVAL` for a size that is not an integer from 0 to 2^64 - 1, or for a bad option.
   */
  constructor(size: number | bigint, options: MemoryBackendOptions = {}) {
    const { readOnly, blockSize } = checkOptions('MemoryBackend', options, OPTIONS);
    checkSize('MemoryBackend: size', size);
    this.size = size;
    this.readOnly = readOnly ?? false;
    if (blockSize !== undefined) this.blockSize = blockSize;
  }

  /** Creates a backend with a copy of these bytes. */
  static from(contents: Uint8Array, options: MemoryBackendOptions = {}): MemoryBackend {
    const backend = new MemoryBackend(contents.length, options);
    backend.write(bytesOf(contents), 0);
    return backend;
  }

  /**
   * Creates a backend of `size` bytes with copies of these parts; everything else is a hole. Holes are reported in
   * pages of 64 KiB. Later parts overwrite earlier ones.
   *
   * @throws NbdStrictError `EINVAL` for a part that is not within the size, and as the constructor does.
   */
  static of(size: number | bigint, parts: Iterable<DataPart>, options: MemoryBackendOptions = {}): MemoryBackend {
    const backend = new MemoryBackend(size, options);
    for (const { offset, data } of parts) {
      const isBytes = typeof data === 'string' || isUint8Array(data);
      if (!isBytes) throw refuse('MemoryBackend.of: data', `must be a Uint8Array or a string, not ${shown(data)}`);
      const bytes = typeof data === 'string' ? Buffer.from(data) : bytesOf(data);
      const at = add(checkSize('MemoryBackend.of: offset', offset), 0);
      if (!isWithin(at, bytes.length, add(size, 0))) {
        const range = `${bytes.length} bytes at ${at}`;
        throw refuse('MemoryBackend.of: offset', `${range} extend past the end of the export (${size} bytes)`);
      }
      backend.write(bytes, at);
    }
    return backend;
  }

  /** Bytes of memory that the pages take. */
  get allocated(): number {
    return this.#pages.size * PAGE_SIZE;
  }

  /** Copies the range into the buffer. */
  read(buffer: Buffer, offset: U64): void {
    let index = pageOf(offset);
    let within = lowHalf(offset) % PAGE_SIZE;
    for (let at = 0; at < buffer.length; index += 1, within = 0) {
      const length = Math.min(PAGE_SIZE - within, buffer.length - at);
      const page = this.#pages.get(index);
      if (page === undefined) buffer.fill(0, at, at + length);
      else page.copy(buffer, at, within, within + length);
      at += length;
    }
  }

  /** Copies the data into the export. */
  write(data: Buffer, offset: U64): void {
    let index = pageOf(offset);
    let within = lowHalf(offset) % PAGE_SIZE;
    for (let at = 0; at < data.length; index += 1, within = 0) {
      const length = Math.min(PAGE_SIZE - within, data.length - at);
      this.#page(index).set(data.subarray(at, at + length), within);
      at += length;
    }
  }

  /** Does nothing: the content lives as long as the process. */
  flush(): void {
    // No write is deferred.
  }

  /** Zeroes the range and frees whole pages. */
  trim(offset: U64, count: U64): void {
    this.zero(offset, count);
  }

  /** Zeroes the range and frees whole pages; with `noHole` they are still reported as allocated. */
  zero(offset: U64, count: U64, options?: ZeroOptions): void {
    const noHole = options?.noHole === true;
    if (noHole) this.#provisioned ??= new ExtentMap(this.size);
    this.#provisioned?.set(offset, count, noHole ? 1 : 0);
    const end = subtract(add(offset, count), 1);
    // The last page may extend beyond the end of the export; the bytes there are not part of it.
    const isTail = add(offset, count) >= this.size;
    const first = pageOf(offset);
    const last = pageOf(end);
    const from = lowHalf(offset) % PAGE_SIZE;
    const to = isTail ? PAGE_SIZE : (lowHalf(end) % PAGE_SIZE) + 1;
    if (first === last) {
      this.#clear(first, from, to);
      return;
    }
    this.#clear(first, from, PAGE_SIZE);
    this.#clear(last, 0, to);
    for (const index of this.#held(first + 1, last - 1)) this.#pages.delete(index);
  }

  /** Does nothing: memory needs no prefetching. */
  cache(): void {
    // The content is in memory.
  }

  /** Yields pages as data and everything else as holes, or as allocated zeroes after zero() with `noHole`. */
  *extents(offset: U64, count: U64): Generator<BackendExtent, void> {
    const end = add(offset, count);
    const last = pageOf(subtract(end, 1));
    let at = offset;
    for (const index of this.#held(pageOf(offset), last).sort((a, b) => a - b)) {
      const start = startOf(index);
      if (start > at) yield* this.#absent(at, subtract(start, at));
      const stop = add(start, PAGE_SIZE);
      const from = start > at ? start : at;
      at = stop < end ? stop : end;
      yield { length: subtract(at, from), flags: 0 };
    }
    if (at < end) yield* this.#absent(at, subtract(end, at));
  }

  /** The extents of a range without pages: holes, except where it was zeroed with `noHole`. */
  *#absent(offset: U64, length: U64): Generator<BackendExtent, void> {
    if (this.#provisioned === null) {
      yield { length, flags: HOLE };
      return;
    }
    for (const run of this.#provisioned.extents(offset, length)) {
      yield { length: run.length, flags: run.flags === 1 ? NBD_STATE_ZERO : HOLE };
    }
  }

  #clear(index: number, from: number, to: number): void {
    if (from === 0 && to === PAGE_SIZE) this.#pages.delete(index);
    else this.#pages.get(index)?.fill(0, from, to);
  }

  /** Indexes of the existing pages from `first` to `last`; iterates over the range or the map, whichever is shorter. */
  #held(first: number, last: number): number[] {
    const held: number[] = [];
    if (last - first < this.#pages.size) {
      for (let index = first; index <= last; index += 1) if (this.#pages.has(index)) held.push(index);
    } else {
      for (const index of this.#pages.keys()) if (index >= first && index <= last) held.push(index);
    }
    return held;
  }

  #page(index: number): Buffer {
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = Buffer.alloc(PAGE_SIZE);
      this.#pages.set(index, page);
    }
    return page;
  }
}

const bytesOf = (data: Uint8Array): Buffer => Buffer.from(data.buffer, data.byteOffset, data.length);

// Unlike an offset, a page's index is a safe integer on the whole 64-bit range.
const pageOf = (offset: U64): number => highHalf(offset) * PAGES_PER_HIGH + Math.floor(lowHalf(offset) / PAGE_SIZE);
const startOf = (index: number): U64 =>
  fromHalves(Math.floor(index / PAGES_PER_HIGH), (index % PAGES_PER_HIGH) * PAGE_SIZE);
