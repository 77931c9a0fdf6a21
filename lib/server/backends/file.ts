// An export in a file. Invariant: nothing is remembered of its contents. The file may have other writers, so what is
// zero or a hole is asked from the kernel, or found by reading, each time.

import type { Stats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../../protocol/constants.js';
import { aBoolean, checkOptions, type OptionTable, refuse, wholeNumber } from '../../util/option-checks.js';
import type { BackendExtent, BlockSize, NbdBackend, WriteOptions, ZeroOptions } from './backend.js';
import { aBlockSize } from '../block-size.js';
import { FileSpace } from './file-space.js';

/** How a {@link FileBackend} opens its file. */
export interface FileBackendOptions {
  /** Opens the file for reading only. Default false. */
  readonly readOnly?: boolean;
  /** Makes the file, of `size` bytes, and fails with `EEXIST` when there is one. Default false. */
  readonly create?: boolean;
  /** Bytes: needed for devices, whose size Node does not tell. Default: the file's own, and 0 with `create`. */
  readonly size?: number;
  readonly blockSize?: BlockSize;
  /** Reads the file to answer block status, and reports blocks of 64 KiB that hold zeroes as such. Default false. */
  readonly detectZeroes?: boolean;
}

const OPTIONS: OptionTable<FileBackendOptions> = {
  readOnly: aBoolean,
  create: aBoolean,
  size: wholeNumber(0),
  blockSize: aBlockSize,
  detectZeroes: aBoolean,
};

const BLOCK = 65536;
const PIECE = 1 << 20;
/** One fallocate() covers at most this much, so that a long range can be given up halfway. */
const FALLOCATE_PIECE = 2 ** 30;
/** Bytes that one block status may read. It then covers less than it was asked for, and the client asks again. */
const SCAN_LIMIT = 1 << 24;
/** The unit of a file's st_blocks. */
const STAT_BLOCK = 512;
const ZEROES = Buffer.alloc(PIECE);

/**
 * An export in a file or device.
 *
 * On Linux, perl or python3 (whichever is installed) asks the kernel for holes and makes them: `base:allocation`
 * reports them, trim and zero free what they cover. Without either, and where the file system cannot, trim does
 * nothing, zero writes zeroes where the file holds anything else, `fast` fails with `ENOTSUP`, and block status reads
 * files that occupy less than their size. FUA and flush are fdatasync.
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
  /** Asking the kernel before each read costs more than the zeroes that it saves. */
  readonly sparseReads = false;
  readonly #handle: FileHandle;
  readonly #space: FileSpace;
  readonly #isFile: boolean;
  readonly #detectZeroes: boolean;
  #closed: Promise<void> | null = null;

  private constructor(handle: FileHandle, size: number, isFile: boolean, options: FileBackendOptions) {
    this.#handle = handle;
    this.#space = new FileSpace(handle.fd);
    this.#isFile = isFile;
    this.size = size;
    this.readOnly = options.readOnly === true;
    if (options.blockSize !== undefined) this.blockSize = options.blockSize;
    this.#detectZeroes = options.detectZeroes === true;
  }

  /**
   * Opens or makes the file. Rejects with the error of open(), stat() or truncate() (`ENOENT`, `EACCES`, `EEXIST` …),
   * with `EISDIR` for a folder, and with an NbdStrictError `EINVAL` for a bad option, a FIFO, a socket, and a device
   * without `size`.
   */
  static async open(path: string, options: FileBackendOptions = {}): Promise<FileBackend> {
    const checked = checkOptions('FileBackend.open', options, OPTIONS);
    const { create = false, readOnly = false } = checked;
    if (create && readOnly) throw refuse('FileBackend.open', 'create and readOnly exclude each other');
    // Before open(), which waits for the other end of a FIFO.
    if (!create) checkKind(path, await stat(path), checked.size);
    const handle = await open(path, create ? 'wx+' : readOnly ? 'r' : 'r+');
    try {
      if (create) await handle.truncate(checked.size ?? 0);
      const stats = await handle.stat();
      checkKind(path, stats, checked.size);
      return new FileBackend(handle, checked.size ?? stats.size, stats.isFile(), checked);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async read(buffer: Buffer, offset: number): Promise<void> {
    if ((await this.#readUpTo(buffer, offset)) < buffer.length) {
      throw Object.assign(new Error('unexpected end of file (was it truncated?)'), { code: 'EIO' });
    }
  }

  async write(data: Buffer, offset: number, { fua }: WriteOptions): Promise<void> {
    await this.#writeAll(data, offset);
    if (fua) await this.#handle.datasync();
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#handle.datasync();
  }

  /** Frees the range where the file system can, and does nothing elsewhere. */
  async trim(offset: number, count: number, { fua, signal }: WriteOptions): Promise<void> {
    await this.#fallocate(offset, offset + count, false, signal);
    if (fua) await this.#handle.datasync();
  }

  async zero(offset: number, count: number, { fua, noHole, fast, signal }: ZeroOptions): Promise<void> {
    const end = offset + count;
    // Less than a block is written as soon as it is asked for.
    const at = count >= BLOCK || fast ? await this.#fallocate(offset, end, noHole, signal) : offset;
    if (fast && at === offset) {
      throw Object.assign(new Error('zeroing is no faster than writing'), { code: 'ENOTSUP' });
    }
    await this.#writeZeroes(at, end, noHole, signal);
    if (fua) await this.#handle.datasync();
  }

  async extents(offset: number, count: number): Promise<BackendExtent[]> {
    const end = offset + count;
    const map = this.#isFile ? await this.#space.data(offset, end) : null;
    // After the answer: where the file ends now, and reading fails, there is no hole.
    const { size, blocks } = await this.#handle.stat();
    if (map === null) {
      const mayBeSparse = this.#isFile && blocks * STAT_BLOCK < size;
      if (!this.#detectZeroes && !mayBeSparse) return [{ length: count, flags: 0 }];
      return this.#scan([{ start: offset, end, isHole: false }], true);
    }
    const stretches: Stretch[] = [];
    let at = offset;
    const hole = (to: number): void => {
      const middle = this.#isFile ? Math.max(at, Math.min(to, size)) : at;
      if (middle > at) stretches.push({ start: at, end: middle, isHole: true });
      if (to > middle) stretches.push({ start: middle, end: to, isHole: false });
      at = to;
    };
    for (const [start, stop] of map.runs) {
      hole(start);
      stretches.push({ start, end: stop, isHole: false });
      at = stop;
    }
    if (map.end > at) hole(map.end);
    return this.#scan(stretches, this.#detectZeroes);
  }

  /** Closes the file. May be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#space.close().then(() => this.#handle.close());
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Frees or zeroes the range by fallocate(); returns how far it came. */
  async #fallocate(offset: number, end: number, allocated: boolean, signal: AbortSignal | undefined): Promise<number> {
    for (let at = offset; at < end;) {
      if (signal?.aborted === true) throw Object.assign(new Error('the client has gone'), { code: 'ESHUTDOWN' });
      const length = Math.min(FALLOCATE_PIECE, end - at);
      if (!(await this.#space.zero(at, length, allocated))) return at;
      at += length;
    }
    return end;
  }

  /** Writes zeroes; with `allocated` everywhere, else where there is anything else: what is a hole stays one. */
  async #writeZeroes(offset: number, end: number, allocated: boolean, signal: AbortSignal | undefined): Promise<void> {
    const buffer = allocated || offset === end ? ZEROES : Buffer.allocUnsafe(Math.min(PIECE, end - offset));
    for (let at = offset; at < end;) {
      if (signal?.aborted === true) throw Object.assign(new Error('the client has gone'), { code: 'ESHUTDOWN' });
      const length = Math.min(PIECE, end - at);
      const found = allocated ? 0 : await this.#readUpTo(buffer.subarray(0, length), at);
      for (let from = 0; from < length; from += BLOCK) {
        const to = Math.min(from + BLOCK, length);
        if (to <= found && isZero(buffer.subarray(from, to))) continue;
        await this.#writeAll(ZEROES.subarray(from, to), at + from);
      }
      at += length;
    }
  }

  /** Fills the buffer as far as the file goes. */
  async #readUpTo(buffer: Buffer, offset: number): Promise<number> {
    let done = 0;
    while (done < buffer.length) {
      const { bytesRead } = await this.#handle.read(buffer, done, buffer.length - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async #writeAll(data: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < data.length;) {
      const { bytesWritten } = await this.#handle.write(data, done, data.length - done, offset + done);
      if (bytesWritten === 0) throw Object.assign(new Error('no bytes were written'), { code: 'EIO' });
      done += bytesWritten;
    }
  }

  /** The stretches as extents. With `reads`, those with data are read, as far as the limit goes. */
  async #scan(stretches: readonly Stretch[], reads: boolean): Promise<BackendExtent[]> {
    const found: BackendExtent[] = [];
    let left = SCAN_LIMIT;
    const buffer = Buffer.allocUnsafe(reads ? BLOCK : 0);
    for (const { start, end, isHole } of stretches) {
      if (isHole || !reads) {
        found.push({ length: end - start, flags: isHole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0 });
        continue;
      }
      for (let at = start; at < end;) {
        if (left <= 0) return found;
        // Up to the next block boundary, so that every answer is about the same blocks.
        const length = Math.min(BLOCK - (at % BLOCK), end - at);
        const block = buffer.subarray(0, length);
        await this.read(block, at);
        found.push({ length, flags: isZero(block) ? NBD_STATE_ZERO : 0 });
        left -= length;
        at += length;
      }
    }
    return found;
  }
}

interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly isHole: boolean;
}

/** At most PIECE bytes. */
const isZero = (bytes: Buffer): boolean => bytes.equals(ZEROES.subarray(0, bytes.length));

/** Throws unless this can be served: a file, or something else of a given size that is read by position. */
function checkKind(path: string, stats: Stats, size: number | undefined): void {
  if (stats.isFile()) return;
  if (stats.isDirectory()) {
    throw Object.assign(new Error(`EISDIR: illegal operation on a directory, open '${path}'`), { code: 'EISDIR' });
  }
  if (stats.isFIFO() || stats.isSocket()) {
    throw refuse('FileBackend.open', `${path} is a ${stats.isFIFO() ? 'FIFO' : 'socket'}, which has no size`);
  }
  if (size === undefined) throw refuse('FileBackend.open', `${path} is a device: give its size`);
}
