// A local file or device that is copied to. Invariants: nothing that it holds is touched before the first bytes have
// been read from the source, and a file that was made for a copy that came to nothing is removed again.

import { constants as fs, type Stats } from 'node:fs';
import { type FileHandle, open, stat, unlink } from 'node:fs/promises';
import { CliError } from '../errors.js';
import { isSameFile } from './holders.js';
import { systemReason } from '../output/system-reason.js';

export class FileTarget {
  readonly name: string;
  readonly file: FileHandle;
  readonly stats: Stats;
  /** It was not there before. */
  readonly #isNew: boolean;
  #prepared: Promise<void> | null = null;
  #isCut = false;
  #isOpen = true;

  private constructor(name: string, file: FileHandle, stats: Stats, isNew: boolean) {
    this.name = name;
    this.file = file;
    this.stats = stats;
    this.#isNew = isNew;
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

  /** A regular file: it gets the size of what is copied to it. */
  get isFile(): boolean {
    return this.stats.isFile();
  }

  /**
   * Called before every write. All of a regular file is replaced: cut to nothing and made long again, it is one hole,
   * and zeroes need no writing.
   */
  prepare(size: number): Promise<void> {
    return (this.#prepared ??= this.isFile ? this.#try(() => this.#cut(size)) : Promise.resolve());
  }

  async #cut(size: number): Promise<void> {
    await this.file.truncate(0);
    await this.file.truncate(size);
    this.#isCut = true;
  }

  /** `offset` is null for where the descriptor stands. */
  async write(buffer: Buffer, offset: number | null): Promise<void> {
    let done = 0;
    while (done < buffer.length) {
      const at = offset === null ? null : offset + done;
      const { bytesWritten } = await this.file.write(buffer, done, buffer.length - done, at);
      if (bytesWritten === 0) throw new CliError(`${this.name}: takes no more bytes`);
      done += bytesWritten;
    }
  }

  /** Where less than was announced, or more, has come. */
  resize(size: number): Promise<void> {
    return this.#try(() => this.file.truncate(size));
  }

  flush(): Promise<void> {
    return this.#try(() => this.file.datasync());
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
    if (!this.#isNew || this.#isCut) return;
    // Another file may have the name by now.
    if (isSameFile(await stat(this.name), this.stats)) await unlink(this.name);
  }

  async #try(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (cause) {
      throw new CliError(`${this.name}: ${systemReason(cause)}`, { cause });
    }
  }
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
    // Somebody else was faster, or it is a link to a file that is not there yet.
    return [await open(path, fs.O_WRONLY | fs.O_CREAT, 0o644), false];
  }
}
