// Collects output that must be printed completely or not at all, in bounded memory: short output stays in memory, longer
// output goes to an unlinked temporary file.

import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { systemReason } from '../../util/system-reason.js';

const MOST_IN_MEMORY = 1024 * 1024;
const PIECE = 64 * 1024;

export class Spool {
  readonly #context: CommandContext;
  #texts: string[] = [];
  /** Number of characters in `#texts`. */
  #length = 0;
  #file: FileHandle | null = null;
  /** Number of bytes in the file. */
  #written = 0;

  constructor(context: CommandContext) {
    this.#context = context;
  }

  /** Adds text. Must not be called again before the promise resolves. */
  async write(text: string): Promise<void> {
    this.#texts.push(text);
    this.#length += text.length;
    if (this.#length < (this.#file === null ? MOST_IN_MEMORY : PIECE)) return;
    const bytes = Buffer.from(this.#texts.join(''));
    this.#texts = [];
    this.#length = 0;
    try {
      this.#file ??= await this.#create();
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, this.#written);
        done += bytesWritten;
        this.#written += bytesWritten;
      }
    } catch (cause) {
      throw new CliError(`cannot write the output to a temporary file in ${tmpdir()}: ${systemReason(cause)}`, {
        cause,
        hint: 'set the environment variable TMPDIR to use another directory',
      });
    }
  }

  /** Prints everything. Called once the output is complete. */
  async print(): Promise<void> {
    if (this.#file !== null) {
      const piece = Buffer.allocUnsafe(PIECE);
      for (let at = 0; at < this.#written;) {
        const { bytesRead } = await this.#file.read(piece, 0, PIECE, at);
        if (bytesRead === 0) throw new CliError('unexpected end of the temporary file with the output');
        await this.#context.out(piece.subarray(0, bytesRead));
        at += bytesRead;
      }
    }
    await this.#context.out(this.#texts.join(''));
  }

  /** Creates a file that is removed at once, so that nothing remains however this process ends. */
  async #create(): Promise<FileHandle> {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-output-'));
    try {
      const file = await open(join(folder, 'output'), 'wx+', 0o600);
      this.#context.onEnd(() => file.close());
      return file;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}
