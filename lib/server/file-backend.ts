// An export in a file. Node has neither SEEK_HOLE nor fallocate, so what is a hole is not asked from the file system:
// it is remembered from what this backend itself created and zeroed, or found by reading.

import { type FileHandle, open } from 'node:fs/promises';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';
import type { BackendExtent, BlockSize, NbdBackend, WriteOptions, ZeroOptions } from './backend.js';
import { ExtentMap } from './extent-map.js';

/** How a {@link FileBackend} opens its file. */
export interface FileBackendOptions {
  /** Opens the file for reading only. */
  readonly readOnly?: boolean;
  /** Makes the file, of `size` bytes, and fails with `EEXIST` when there is one. */
  readonly create?: boolean;
  /** Bytes: needed with `create`, and for devices, whose size Node does not tell. Otherwise the file's. */
  readonly size?: number;
  readonly blockSize?: BlockSize;
  /** Reads the file to answer block status, and reports blocks of 64 KiB that hold zeroes as such. */
  readonly detectZeroes?: boolean;
}

interface Change {
  readonly offset: number;
  readonly end: number;
  isDisputed: boolean;
}

const BLOCK = 65536;
const PIECE = 1 << 20;
/** Bytes that one block status may read. It then tells less than it was asked, and the client asks again. */
const SCAN_LIMIT = 1 << 24;
const ZEROES = Buffer.alloc(PIECE);

/**
 * An export in a file or device.
 *
 * Trim is not offered, for Node cannot punch holes; zero writes zeroes, unless the range is known to hold them already,
 * and `fast` fails otherwise. `base:allocation` tells holes only in a file that this backend has created, zeroes where
 * it wrote them itself or, with `detectZeroes`, wherever they are; all else counts as data. FUA and flush are fdatasync.
 *
 * @example
 * const backend = await FileBackend.open('export.img', { create: true, size: 1 << 30 });
 */
export class FileBackend implements NbdBackend {
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockSize?: BlockSize;
  readonly fua = true;
  readonly fastZero = true;
  readonly copiesData = true;
  readonly #handle: FileHandle;
  readonly #detectZeroes: boolean;
  // In whole blocks: 3 where nothing was ever written, 2 where zeroes were, 0 where anything may be.
  readonly #known: ExtentMap;
  // Writes that run: a range that two of them touch at once holds nobody knows what.
  readonly #changes = new Set<Change>();
  #closed: Promise<void> | null = null;

  private constructor(handle: FileHandle, size: number, options: FileBackendOptions) {
    this.#handle = handle;
    this.size = size;
    this.readOnly = options.readOnly === true;
    if (options.blockSize !== undefined) this.blockSize = options.blockSize;
    this.#detectZeroes = options.detectZeroes === true;
    this.#known = new ExtentMap(size, options.create === true ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
  }

  /** Opens or makes the file. Rejects with the error of open(), stat() or truncate(): `ENOENT`, `EACCES`, `EEXIST` … */
  static async open(path: string, options: FileBackendOptions = {}): Promise<FileBackend> {
    const handle = await open(path, options.create === true ? 'wx+' : options.readOnly === true ? 'r' : 'r+');
    try {
      if (options.create === true) await handle.truncate(options.size ?? 0);
      const size = options.size ?? (await handle.stat()).size;
      return new FileBackend(handle, size, options);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async read(buffer: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < buffer.length;) {
      const { bytesRead } = await this.#handle.read(buffer, done, buffer.length - done, offset + done);
      if (bytesRead === 0) throw Object.assign(new Error('the file has become shorter'), { code: 'EIO' });
      done += bytesRead;
    }
  }

  async write(data: Buffer, offset: number, { fua }: WriteOptions): Promise<void> {
    const change = this.#begin(offset, data.length);
    try {
      await this.#writeAll(data, offset);
    } finally {
      this.#changes.delete(change);
    }
    if (fua) await this.#handle.datasync();
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#handle.datasync();
  }

  async zero(offset: number, count: number, { fua, noHole, fast }: ZeroOptions): Promise<void> {
    if (!this.#isZero(offset, count, noHole)) {
      if (fast) throw Object.assign(new Error('zeroing is no faster than writing'), { code: 'ENOTSUP' });
      const change = this.#begin(offset, count);
      try {
        for (let done = 0; done < count; done += PIECE) {
          await this.#writeAll(ZEROES.subarray(0, Math.min(PIECE, count - done)), offset + done);
        }
        if (!change.isDisputed) this.#rememberZeroes(offset, offset + count);
      } finally {
        this.#changes.delete(change);
      }
    }
    if (fua) await this.#handle.datasync();
  }

  extents(offset: number, count: number): Iterable<BackendExtent> | Promise<Iterable<BackendExtent>> {
    const known = this.#known.extents(offset, count);
    return this.#detectZeroes ? this.#scan([...known], offset) : known;
  }

  /** Closes the file. May be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#handle.close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A change of the range begins: what was known of it is void, and so is what another change would leave there. */
  #begin(offset: number, count: number): Change {
    const end = offset + count;
    const change: Change = { offset, end, isDisputed: false };
    for (const other of this.#changes) {
      if (other.offset < end && offset < other.end) {
        other.isDisputed = true;
        change.isDisputed = true;
      }
    }
    this.#changes.add(change);
    const start = Math.floor(offset / BLOCK) * BLOCK;
    this.#known.set(start, Math.ceil(end / BLOCK) * BLOCK - start, 0);
    return change;
  }

  /** Blocks that lie wholly in the range hold zeroes now; the last one of the file may be short. */
  #rememberZeroes(offset: number, end: number): void {
    const start = Math.ceil(offset / BLOCK) * BLOCK;
    const stop = end === this.size ? end : Math.floor(end / BLOCK) * BLOCK;
    if (stop > start) this.#known.set(start, stop - start, NBD_STATE_ZERO);
  }

  #isZero(offset: number, count: number, allocated: boolean): boolean {
    for (const { flags } of this.#known.extents(offset, count)) {
      if (flags === 0 || (allocated && flags !== NBD_STATE_ZERO)) return false;
    }
    return true;
  }

  async #writeAll(data: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < data.length;) {
      done += (await this.#handle.write(data, done, data.length - done, offset + done)).bytesWritten;
    }
  }

  /** What is known, and what reading tells about the rest, as far as the limit goes. */
  async #scan(known: readonly BackendExtent[], offset: number): Promise<BackendExtent[]> {
    const found: BackendExtent[] = [];
    let left = SCAN_LIMIT;
    let at = offset;
    const buffer = Buffer.allocUnsafe(BLOCK);
    for (const run of known) {
      const end = at + Number(run.length);
      if (run.flags !== 0) {
        found.push(run);
        at = end;
        continue;
      }
      while (at < end) {
        if (left <= 0) return found;
        // Up to the next block boundary, so that every answer is about the same blocks.
        const length = Math.min(BLOCK - (at % BLOCK), end - at);
        const block = buffer.subarray(0, length);
        await this.read(block, at);
        found.push({ length, flags: block.equals(ZEROES.subarray(0, length)) ? NBD_STATE_ZERO : 0 });
        left -= length;
        at += length;
      }
    }
    return found;
  }
}
