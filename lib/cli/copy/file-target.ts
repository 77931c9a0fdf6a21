// A local file or device as the destination of a copy. Invariants: its contents are not touched before the first bytes
// have been read from the source, and a file that was created for a copy that failed before that is removed.

import { constants as fs, type Stats } from 'node:fs';
import { type FileHandle, open, stat, unlink } from 'node:fs/promises';
import { CliError } from '../errors.js';
import { isSameFile } from './holders.js';
import { systemReason } from '../output/system-reason.js';

export class FileTarget {
  readonly name: string;
  readonly file: FileHandle;
  readonly stats: Stats;
  /** The file did not exist before. */
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

  /** Opens a file or device, or creates a file. Rejects with the system's error. */
  static async open(path: string): Promise<FileTarget> {
    const [file, isNew] = await openOrMake(path);
    try {
      return new FileTarget(path, file, await file.stat(), isNew);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Whether this is a regular file, which gets the size of the source. */
  get isFile(): boolean {
    return this.stats.isFile();
  }

  /**
   * Called before every write. A regular file is replaced as a whole: truncated to 0 and extended to `size`, it is a
   * single hole, in which zeroes need not be written.
   */
  prepare(size: number): Promise<void> {
    return (this.#prepared ??= this.isFile ? this.#try(() => this.#cut(size)) : Promise.resolve());
  }

  async #cut(size: number): Promise<void> {
    await this.file.truncate(0);
    await this.file.truncate(size);
    this.#isCut = true;
  }

  /** `offset` is null to write at the current position of the descriptor. */
  async write(buffer: Buffer, offset: number | null): Promise<void> {
    let done = 0;
    while (done < buffer.length) {
      const at = offset === null ? null : offset + done;
      const { bytesWritten } = await this.file.write(buffer, done, buffer.length - done, at);
      if (bytesWritten === 0) throw new CliError(`${this.name}: write returned 0 bytes`);
      done += bytesWritten;
    }
  }

  /** Sets the size of the file, when the source turned out shorter or longer than expected. */
  resize(size: number): Promise<void> {
    return this.#try(() => this.file.truncate(size));
  }

  flush(): Promise<void> {
    return this.#try(() => this.file.datasync());
  }

  /**
   * Closes the file: some file systems report a lack of space only on close. The last close of a device writes its cached
   * data but does not report errors, so a device is flushed first.
   */
  async finish(): Promise<void> {
    if (this.stats.isBlockDevice()) await this.flush();
    this.#isOpen = false;
    await this.#try(() => this.file.close());
  }

  /** Called when the copy is over, whether it succeeded or not. Idempotent. */
  async end(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.file.close();
    if (!this.#isNew || this.#isCut) return;
    // The name may refer to another file by now.
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

/** Opens the file, or creates it. A missing device must not become a regular file. */
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
    // Another process created it in the meantime, or it is a symbolic link to a file that does not exist yet.
    return [await open(path, fs.O_WRONLY | fs.O_CREAT, 0o644), false];
  }
}
