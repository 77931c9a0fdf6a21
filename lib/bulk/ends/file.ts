// Local files and block devices as the ends of a copy.

import { read, type Stats } from 'node:fs';
import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import type { ByteCount } from '../../client/export.js';
import { NbdError, NbdStrictError } from '../../errors.js';
import { aBoolean, byteCount, checkOptions, refuse, shown } from '../../util/option-checks.js';
import { fromBigInt } from '../../util/u64.js';
import { deviceSize } from './device-size.js';
import type { CopyDestination, CopySource } from './endpoint.js';
import { fileError, FileTarget } from './file-target.js';
import { fileZeroRuns } from './file-holes.js';

/** What {@link fileSource} takes. */
export interface FileSourceOptions {
  /** Find the holes of a sparse file, and do not read them. Default true. */
  extents?: boolean | undefined;
}

/** What {@link fileDestination} takes. */
export interface FileDestinationOptions {
  /**
   * Bytes that the file is to have: it becomes longer where it is shorter, and with `replace` shorter where it is
   * longer. A new file needs it. Default: its size as it is. A block device keeps its own.
   */
  size?: ByteCount | undefined;
  /**
   * Everything that the file holds is dropped before the first write: it becomes one hole, so that zeroes take neither
   * time nor space. A copy that goes on from a checkpoint keeps what is there. Default false.
   */
  replace?: boolean | undefined;
}

/** An open file as a source. */
export interface FileSource extends CopySource<ByteCount>, AsyncDisposable {
  /** Closes the file, unless it was given as a handle. */
  close(): Promise<void>;
}

/** An open file as a destination. */
export interface FileDestination extends CopyDestination<ByteCount>, AsyncDisposable {
  flush(): Promise<void>;
  /**
   * Closes the file, unless it was given as a handle; some file systems report only then that there was no room. A new
   * file to which nothing was written is removed.
   */
  close(): Promise<void>;
}

const PREFERRED = 4096;

/** FileHandle.read() takes a bigint for no position at all. */
const readAt = (fd: number, buffer: Buffer, from: number, position: ByteCount): Promise<number> =>
  new Promise((resolve, reject) => {
    read(fd, buffer, from, buffer.length - from, position, (error, bytesRead) => {
      if (error === null) resolve(bytesRead);
      else reject(error);
    });
  });

/**
 * A file or block device as a source; a handle stays the caller's. Its size is that at the time of the call.
 *
 * @throws (rejects) NbdStrictError `EINVAL` for bad arguments, and for what has no size, such as a pipe. NbdError with the
 *   system's code.
 *
 * @example
 * await using disk = await fileSource('disk.img');
 * await copy(disk, connection);
 */
export async function fileSource(path: string | FileHandle, options: FileSourceOptions = {}): Promise<FileSource> {
  const syscall = 'fileSource';
  const { extents = true } = checkOptions<FileSourceOptions>(syscall, options, { extents: aBoolean });
  const name = nameOf(path, syscall);
  const file = typeof path === 'string' ? await attempt(name, () => open(path, 'r')) : path;
  const close = async (): Promise<void> => {
    if (typeof path === 'string') await attempt(name, () => file.close());
  };
  try {
    const stats = await attempt(name, () => file.stat());
    const size = await sizeOf(name, file, stats, syscall);
    const source = sourceOfFile(file, stats, size, name, await identityOf(path, stats));
    if (!extents) delete source.zeroRuns;
    return { ...source, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * A file or block device as a destination; a handle stays the caller's, and must be open for writing. A file that is
 * missing is made.
 *
 * @throws (rejects) NbdStrictError `EINVAL` for bad arguments, for a new file without `size`, and for what has no size,
 *   such as a pipe; `ENOSPC` for a device that is smaller than `size`; `EFBIG` above 2^53 - 1 bytes, which Node cannot
 *   write to. NbdError with the system's code.
 *
 * @example
 * await using image = await fileDestination('disk.img', { size: connection.getSize(), replace: true });
 * await copy(connection, image);
 */
export async function fileDestination(
  path: string | FileHandle,
  options: FileDestinationOptions = {},
): Promise<FileDestination> {
  const syscall = 'fileDestination';
  const { size, replace = false } = checkOptions<FileDestinationOptions>(syscall, options, {
    size: byteCount(),
    replace: aBoolean,
  });
  const name = nameOf(path, syscall);
  if (typeof path === 'string' && size === undefined) {
    await attempt(name, () => stat(path)).catch((error: unknown) => {
      if ((error as NbdError).code === 'ENOENT') throw refuse(`${syscall}: size`, `is needed for a new file: ${name}`);
      throw error;
    });
  }
  const target = await attempt(name, () => (typeof path === 'string' ? FileTarget.open(path) : FileTarget.of(path)));
  try {
    const there = await sizeOf(name, target.file, target.stats, syscall);
    let bytes = size === undefined ? there : BigInt(size);
    if (!target.isFile && bytes > there) {
      throw new NbdStrictError(`${syscall}: size: ${name} has ${there} bytes, fewer than ${bytes}`, {
        code: 'ENOSPC',
        syscall,
      });
    }
    if (!target.isFile || (!replace && there > bytes)) bytes = there;
    if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new NbdStrictError(`${syscall}: ${name}: Node cannot write beyond 2^53 - 1 bytes`, {
        code: 'EFBIG',
        syscall,
      });
    }
    if (!replace) target.keep();
    const destination = destinationOfTarget(target, Number(bytes), await identityOf(path, target.stats));
    const close = async (): Promise<void> => {
      if (typeof path !== 'string') return;
      if (target.isFile && bytes === 0n) await target.prepare(0);
      await (target.isPrepared ? target.finish() : target.end());
    };
    let closed: Promise<void> | null = null;
    const once = (): Promise<void> => (closed ??= close());
    return { ...destination, close: once, [Symbol.asyncDispose]: once };
  } catch (error) {
    if (typeof path === 'string') await target.end();
    throw error;
  }
}

/** An open file or device as a source; `name` is for messages. */
export function sourceOfFile(
  file: FileHandle,
  stats: Stats,
  size: bigint,
  name: string,
  identity: string,
): { -readonly [Key in keyof CopySource<ByteCount>]: CopySource<ByteCount>[Key] } {
  const isMapped = stats.isFile() && size <= BigInt(Number.MAX_SAFE_INTEGER);
  return {
    size: fromBigInt(size),
    preferredBlock: PREFERRED,
    identity,
    read: async (buffer, offset) => {
      for (let done = 0; done < buffer.length;) {
        const bytesRead = await readAt(file.fd, buffer, done, add(offset, done));
        if (bytesRead === 0) throw new NbdError(`${name}: unexpected end of file`, { code: 'EIO' });
        done += bytesRead;
      }
    },
    ...(isMapped ? { zeroRuns: () => fileZeroRuns(file.fd, stats, Number(size)) } : {}),
  };
}

const add = (offset: ByteCount, count: number): ByteCount =>
  typeof offset === 'number' ? offset + count : offset + BigInt(count);

/** An open file or device as a destination of `size` bytes. */
export function destinationOfTarget(
  target: FileTarget,
  size: number,
  identity: string,
): CopyDestination<ByteCount> & { flush(): Promise<void> } {
  return {
    size,
    preferredBlock: PREFERRED,
    identity,
    write: async (buffer, offset) => {
      await target.prepare(size);
      await target.write(buffer, Number(offset));
    },
    ...(target.isFile
      ? {
          zero: async (offset, count, allocate) => {
            await target.prepare(size);
            if (allocate) return false;
            await target.zero(BigInt(offset), BigInt(count));
            return true;
          },
        }
      : {}),
    keep: () => {
      if (target.isNew) {
        throw new NbdStrictError(
          `${target.name}: is a new file, and contains nothing of what was copied according to the checkpoint`,
          {
            code: 'ESTALE',
          },
        );
      }
      target.keep();
    },
    flush: async () => {
      await target.prepare(size);
      await target.flush();
    },
  };
}

/** What a file is: another one of the same name is another one. */
export async function identityOf(path: string | FileHandle, stats: Stats): Promise<string> {
  const number = stats.isBlockDevice() ? `device ${stats.rdev}` : `inode ${stats.ino}`;
  if (typeof path !== 'string') return `file, ${number}`;
  return `file ${await realpath(path).catch(() => path)}, ${number}`;
}

async function sizeOf(name: string, file: FileHandle, stats: Stats, syscall: string): Promise<bigint> {
  if (stats.isFile()) return (await attempt(name, () => file.stat({ bigint: true }))).size;
  if (stats.isBlockDevice()) return BigInt(await attempt(name, () => deviceSize(name, stats)));
  throw refuse(syscall, `${name}: must be a file or a block device`);
}

function nameOf(path: unknown, syscall: string): string {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return path;
  if (typeof path === 'object' && path !== null && typeof (path as Partial<FileHandle>).fd === 'number') {
    return `file descriptor ${(path as FileHandle).fd}`;
  }
  throw refuse(`${syscall}: path`, `must be a path or a FileHandle, not ${shown(path)}`);
}

async function attempt<Result>(name: string, act: () => Promise<Result>): Promise<Result> {
  try {
    return await act();
  } catch (cause) {
    throw fileError(name, cause);
  }
}
