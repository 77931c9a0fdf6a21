// A local file or device that is copied to. Invariants: nothing that it holds is touched before the first bytes have
// been read from the source, a file that was made for a copy that came to nothing is removed again, and what reads as
// zeroes after zero() is zero, whatever was there before.

import { constants as fs, type Stats } from 'node:fs';
import { type FileHandle, open, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { NbdError } from '../../errors.js';
import { systemReason } from '../../util/system-reason.js';
import { IntervalSet } from '../intervals.js';
import { fileZeroRuns } from './file-holes.js';
import { isSameFile } from './same-file.js';

const PIECE = 1024 * 1024;
const ZEROES = Buffer.alloc(PIECE);

export class FileTarget {
  readonly name: string;
  readonly file: FileHandle;
  readonly stats: Stats;
  /** It was not there before. */
  readonly isNew: boolean;
  #keeps = false;
  #prepared: Promise<void> | null = null;
  #isPrepared = false;
  #isOpen = true;
  /** What of a regular file may not be zero. */
  #data = new IntervalSet();

  private constructor(name: string, file: FileHandle, stats: Stats, isNew: boolean) {
    this.name = name;
    this.file = file;
    this.stats = stats;
    this.isNew = isNew;
  }

  /** Opens a file or device, or makes a file. Rejects with the system's error. */
  static async open(path: string): Promise<FileTarget> {
    const [file, isNew] = await openOrMake(path);
    try {
      return new FileTarget(path, file, await file.stat(), isNew);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Of a file that the caller has opened, and closes. */
  static async of(file: FileHandle): Promise<FileTarget> {
    return new FileTarget(`file descriptor ${file.fd}`, file, await file.stat(), false);
  }

  /** A regular file: it gets the size of what is copied to it. */
  get isFile(): boolean {
    return this.stats.isFile();
  }

  /** Whether prepare() has been called, and has succeeded. */
  get isPrepared(): boolean {
    return this.#isPrepared;
  }

  /** What is there stays, but for what is written. To be called before anything is. */
  keep(): void {
    this.#keeps = true;
  }

  /**
   * Called before every write. All of a regular file is replaced, unless it is to be kept: cut to nothing and made long
   * again, it is one hole, and zeroes need no writing. One that is kept is made longer where it is too short.
   */
  prepare(size: number): Promise<void> {
    return (this.#prepared ??= this.#prepare(size));
  }

  async #prepare(size: number): Promise<void> {
    if (this.isFile) await this.#try(() => (this.#keeps ? this.#extend(size) : this.#cut(size)));
    this.#isPrepared = true;
  }

  async #cut(size: number): Promise<void> {
    await this.file.truncate(0);
    await this.file.truncate(size);
  }

  async #extend(size: number): Promise<void> {
    const old = this.stats.size;
    for await (const { offset, length, isZero } of fileZeroRuns(this.file.fd, this.stats, old)) {
      if (!isZero) this.#data.add(BigInt(offset), BigInt(offset + length));
    }
    if (old < size) await this.file.truncate(size);
  }

  /** `offset` is null for where the descriptor stands. */
  async write(buffer: Buffer, offset: number | null): Promise<void> {
    if (offset !== null && this.isFile) this.#data.add(BigInt(offset), BigInt(offset + buffer.length));
    let done = 0;
    while (done < buffer.length) {
      const at = offset === null ? null : offset + done;
      const { bytesWritten } = await this.file.write(buffer, done, buffer.length - done, at);
      if (bytesWritten === 0) throw new NbdError(`${this.name}: write returned 0 bytes`, { code: 'EIO' });
      done += bytesWritten;
    }
  }

  /** Makes a range of a regular file zero, after prepare(): what is a hole stays one. */
  async zero(offset: bigint, length: bigint): Promise<void> {
    for (const { start, end } of [...this.#data.within(offset, offset + length)]) {
      for (let at = start; at < end; at += BigInt(PIECE)) {
        const count = end - at < BigInt(PIECE) ? Number(end - at) : PIECE;
        await this.write(ZEROES.subarray(0, count), Number(at));
      }
    }
  }

  /** Where less than was announced, or more, has come. */
  resize(size: number): Promise<void> {
    return this.#try(() => this.file.truncate(size));
  }

  flush(): Promise<void> {
    return this.#try(async () => {
      await this.file.datasync();
      // Of a new file the name, too, has to be there after a loss of power.
      if (!this.isNew || process.platform === 'win32') return;
      const folder = await open(dirname(this.name), 'r');
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    });
  }

  /**
   * Closes it: some file systems report only then that there was no room. The last close of a device writes what is
   * cached, and reports nothing; so that is done before.
   */
  async finish(): Promise<void> {
    if (this.stats.isBlockDevice()) await this.flush();
    this.#isOpen = false;
    await this.#try(() => this.file.close());
  }

  /** The copy is over, in whatever way. Idempotent. */
  async end(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.file.close();
    if (!this.isNew || this.#isPrepared) return;
    // Another file may have the name by now.
    if (isSameFile(await stat(this.name), this.stats)) await unlink(this.name);
  }

  async #try(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (cause) {
      throw fileError(this.name, cause);
    }
  }
}

/** The system's error, as one that names the file. */
export function fileError(name: string, cause: unknown): NbdError {
  const { code } = cause as NodeJS.ErrnoException;
  return new NbdError(`${name}: ${systemReason(cause)}`, { code: code ?? 'EIO', cause });
}

/** With whether it was made. A device that is missing must not become a file. */
async function openOrMake(path: string): Promise<[file: FileHandle, isNew: boolean]> {
  try {
    return [await open(path, fs.O_WRONLY), false];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || /^\/dev\/(?!shm\/)/.test(path)) throw error;
  }
  try {
    return [await open(path, fs.O_WRONLY | fs.O_CREAT | fs.O_EXCL, 0o644), true];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    // Another process was faster, or it is a link to a file that is not there yet.
    return [await open(path, fs.O_WRONLY | fs.O_CREAT, 0o644), false];
  }
}
