// An export in a file. Invariant: nothing about its content is cached. The file may have other writers, so zeroes and
// holes are queried from the kernel, or found by reading, each time.

import type { Stats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../../protocol/constants.js';
import { aBoolean, checkOptions, type OptionTable, refuse, wholeNumber } from '../../util/option-checks.js';
import type { BackendExtent, BlockSize, NbdBackend, WriteOptions, ZeroOptions } from './backend.js';
import { aBlockSize } from '../block-size.js';
import { FileSpace } from './file-space.js';

/** Options of {@link FileBackend.open}. */
export interface FileBackendOptions {
  /** Opens the file for reading only. Default false. */
  readonly readOnly?: boolean | undefined;
  /** Creates the file with `size` bytes; fails with `EEXIST` if it already exists. Default false. */
  readonly create?: boolean | undefined;
  /** Size in bytes; required for devices, whose size Node does not report. Default the file's, or 0 with `create`. */
  readonly size?: number | undefined;
  /** Block sizes to advertise. Default 1, 4096 and the server's `maxPayload`. */
  readonly blockSize?: BlockSize | undefined;
  /** Whether block status reads the file and reports 64 KiB blocks of zeroes as such. Default false. */
  readonly detectZeroes?: boolean | undefined;
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
/** Bytes per fallocate() call, so that work on a long range can be aborted half-way. */
const FALLOCATE_PIECE = 2 ** 30;
/** Bytes that one block status may read. Its reply then covers less than the range, and the client continues. */
const SCAN_LIMIT = 1 << 24;
/** The unit of a file's st_blocks. */
const STAT_BLOCK = 512;
const ZEROES = Buffer.alloc(PIECE);

/**
 * An export in a file or device.
 *
 * On Linux, perl or python3 (whichever is installed) finds and creates holes: `base:allocation` reports them, and trim
 * and zero free the blocks of their range. Without either, or without support by the file system, trim does nothing,
 * zero writes zeroes wherever the file contains anything else, `fast` fails with `ENOTSUP`, and block status reads
 * files that occupy less than their size. FUA and flush call fdatasync.
 *
 * @example
 * const backend = await FileBackend.open('export.img', { create: true, size: 1 << 30 });
 */
export class FileBackend implements NbdBackend {
  /** Size in bytes. */
  readonly size: number;
  /** Whether writes are refused. */
  readonly readOnly: boolean;
  /** Block sizes to advertise; undefined for the server's defaults. */
  readonly blockSize?: BlockSize;
  /** FUA is supported, by fdatasync. */
  readonly fua = true;
  /** The `fast` option of zero() is supported. */
  readonly fastZero = true;
  /** No reference to written data is kept. */
  readonly copiesData = true;
  /** False, because asking the kernel before each read costs more than the zeroes that it saves. */
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
   * Opens or creates the file. Rejects with the error of open(), stat() or truncate() (`ENOENT`, `EACCES`, `EEXIST` …),
   * with `EISDIR` for a folder, and with an NbdStrictError `EINVAL` for a bad option, a FIFO, a socket, or a device
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

  /** Reads the range; fails with `EIO` if the file has been truncated. */
  async read(buffer: Buffer, offset: number): Promise<void> {
    if ((await this.#readUpTo(buffer, offset)) < buffer.length) {
      throw Object.assign(new Error('unexpected end of file (was it truncated?)'), { code: 'EIO' });
    }
  }

  /** Writes the data; with `fua`, calls fdatasync before it resolves. */
  async write(data: Buffer, offset: number, { fua }: WriteOptions): Promise<void> {
    await this.#writeAll(data, offset);
    if (fua) await this.#handle.datasync();
  }

  /** Calls fdatasync. */
  async flush(): Promise<void> {
    if (!this.readOnly) await this.#handle.datasync();
  }

  /** Frees the blocks of the range, if the file system supports it. */
  async trim(offset: number, count: number, { fua, signal }: WriteOptions): Promise<void> {
    await this.#fallocate(offset, offset + count, false, signal);
    if (fua) await this.#handle.datasync();
  }

  /** Zeroes the range, as a hole unless `noHole` is set; `fast` fails with `ENOTSUP` if that requires writing. */
  async zero(offset: number, count: number, { fua, noHole, fast, signal }: ZeroOptions): Promise<void> {
    const end = offset + count;
    // Writing less than a block is as fast as asking the helper.
    const at = count >= BLOCK || fast ? await this.#fallocate(offset, end, noHole, signal) : offset;
    if (fast && at === offset) {
      throw Object.assign(new Error('zeroing is not faster than writing'), { code: 'ENOTSUP' });
    }
    await this.#writeZeroes(at, end, noHole, signal);
    if (fua) await this.#handle.datasync();
  }

  /** Reports data, holes and, with `detectZeroes`, blocks of zeroes. */
  async extents(offset: number, count: number): Promise<BackendExtent[]> {
    const end = offset + count;
    const map = this.#isFile ? await this.#space.data(offset, end) : null;
    // After the reply: beyond the file's current end, where reading fails, nothing is reported as a hole.
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

  /** Closes the file. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#space.close().then(() => this.#handle.close());
    return this.#closed;
  }

  /** Calls {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Frees or zeroes the range by fallocate(); returns the offset that it reached. */
  async #fallocate(offset: number, end: number, allocated: boolean, signal: AbortSignal | undefined): Promise<number> {
    for (let at = offset; at < end;) {
      if (signal?.aborted === true) throw Object.assign(new Error('the client has gone'), { code: 'ESHUTDOWN' });
      const length = Math.min(FALLOCATE_PIECE, end - at);
      if (!(await this.#space.zero(at, length, allocated))) return at;
      at += length;
    }
    return end;
  }

  /** Writes zeroes: everywhere with `allocated`, otherwise only over other data, so that holes remain. */
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

  /** Fills the buffer up to the end of the file; returns the number of bytes read. */
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

  /** Converts the stretches to extents. With `reads`, reads those with data to find zeroes, up to SCAN_LIMIT bytes. */
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
        // Up to the next block boundary, so that every reply is based on the same blocks.
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

/** For at most PIECE bytes. */
const isZero = (bytes: Buffer): boolean => bytes.equals(ZEROES.subarray(0, bytes.length));

/** Throws unless this can be served: a file, or a device whose size is given. */
function checkKind(path: string, stats: Stats, size: number | undefined): void {
  if (stats.isFile()) return;
  if (stats.isDirectory()) {
    throw Object.assign(new Error(`EISDIR: illegal operation on a directory, open '${path}'`), { code: 'EISDIR' });
  }
  if (stats.isFIFO() || stats.isSocket()) {
    throw refuse('FileBackend.open', `${path} is a ${stats.isFIFO() ? 'FIFO' : 'socket'}, which has no size`);
  }
  if (size === undefined) throw refuse('FileBackend.open', `${path} is a device: set option size`);
}
