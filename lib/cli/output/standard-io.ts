// Standard input and output, whatever they are. Node's own streams are right for pipes, sockets and terminals, where
// they wait for events; of a file or a device they write a part and report all of it, and for what they do not know,
// such as a block device or a folder, Node puts streams there that are empty or swallow everything. Those descriptors
// are read and written here by their numbers, in loops that check every count.

import { close, fstatSync, fsync, read, write, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { CliError } from '../errors.js';
import { systemReason } from './system-reason.js';

const STDIN = 0;
const STDOUT = 1;
/** What a shell says of a program that SIGPIPE has ended, which Node ignores. */
const PIPE_BROKEN = 141;
const READ_SIZE = 256 * 1024;
/** How long to wait for a descriptor that would block and has no events: from one to the other, in milliseconds. */
const [FIRST_WAIT, LONGEST_WAIT] = [1, 50];

/** The reader has seen enough: `nbd dump … | head`. Nothing is said, and no success is claimed. */
export class OutputClosed extends CliError {
  constructor(cause: unknown) {
    super('standard output: Broken pipe', { cause, exitCode: PIPE_BROKEN });
  }
}

type Transfer = (done: (error: NodeJS.ErrnoException | null, count: number) => void) => void;

/** One read() or write(), tried again while it would block. */
async function transfer(begin: Transfer): Promise<number> {
  for (let wait = FIRST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
    const [error, count] = await new Promise<[NodeJS.ErrnoException | null, number]>((resolve) => {
      begin((failure, moved) => {
        resolve([failure, moved]);
      });
    });
    if (error === null) return count;
    if (error.code !== 'EAGAIN' && error.code !== 'EINTR') throw error;
    await sleep(wait);
  }
}

/** Writes all of the bytes where the descriptor stands. Rejects with the system's error. */
export async function writeAll(fd: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const count = await transfer((done) => write(fd, bytes, at, bytes.length - at, null, done));
    if (count === 0) throw noRoom();
    at += count;
  }
}

const noRoom = (): Error => Object.assign(new Error('takes no more bytes'), { code: 'ENOSPC' });

/** Everything from where the descriptor stands to its end. Rejects with the system's error. */
async function* chunksOf(fd: number): AsyncGenerator<Buffer> {
  for (;;) {
    const buffer = Buffer.allocUnsafe(READ_SIZE);
    const count = await transfer((done) => read(fd, buffer, 0, READ_SIZE, null, done));
    if (count === 0) return;
    yield buffer.subarray(0, count);
  }
}

async function* named(chunks: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
  } catch (cause) {
    throw new CliError(`${name}: ${systemReason(cause)}`, { cause });
  }
}

/** A descriptor that has no events as a stream; it stays open. */
export function readDescriptor(fd: number, name: string): Readable {
  return Readable.from(named(chunksOf(fd), name), { objectMode: false, highWaterMark: READ_SIZE });
}

export function standardInput(): Readable {
  const { stdin } = process as { stdin: Readable };
  return stdin instanceof Socket ? stdin : readDescriptor(STDIN, 'standard input');
}

/** What commands print to. Every failure is reported by the write, and once more by {@link finish}. */
export class StandardOutput {
  readonly #socket: Socket | null;
  #last: Promise<void> = Promise.resolve();
  #failure: CliError | null = null;
  #isReleased = false;

  constructor() {
    const { stdout } = process as { stdout: Writable };
    this.#socket = stdout instanceof Socket ? stdout : null;
    // A failed write reports itself; an 'error' that nobody listens for would end the process.
    stdout.on('error', (error) => this.#fail(error));
    if (this.#socket === null) this.#takeOver();
  }

  /** Resolves when all of it has been written. */
  write(data: string | Uint8Array): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const socket = this.#socket;
    const written =
      socket === null
        ? this.#last.then(() => writeAll(STDOUT, typeof data === 'string' ? Buffer.from(data) : data))
        : new Promise<void>((resolve, reject) => {
            socket.write(data, (error) => {
              if (error == null) resolve();
              else reject(error);
            });
          });
    const reported = written.catch((error: unknown) => {
      throw this.#fail(error);
    });
    // What comes behind a failure fails by it, too.
    this.#last = reported.catch(() => undefined);
    return reported;
  }

  /** fsync, where there is something to be made permanent. */
  async flush(): Promise<void> {
    const stats = fstatSync(STDOUT);
    if (!stats.isFile() && !stats.isBlockDevice()) return;
    await new Promise<void>((resolve, reject) => {
      fsync(STDOUT, (error) => {
        if (error === null) resolve();
        else reject(this.#fail(error));
      });
    });
  }

  /** Standard output is used for something else, such as a connection, whose failures are not those of a text. */
  release(): void {
    this.#isReleased = true;
  }

  /** Waits for what is still being written; some file systems report only at the close that there was no room. */
  async finish(): Promise<void> {
    if (this.#isReleased) return;
    if (this.#socket === null) {
      await this.#last;
      if (this.#failure === null && fstatSync(STDOUT).isBlockDevice()) await this.flush();
      await new Promise<void>((resolve, reject) => {
        close(STDOUT, (error) => {
          if (error == null) resolve();
          else reject(this.#fail(error));
        });
      });
    } else if (!this.#socket.destroyed) {
      // A pipe's reader may be slow; what was written must arrive.
      await this.write('');
    }
    if (this.#failure !== null) throw this.#failure;
  }

  #fail(error: unknown): CliError {
    const isPipe = (error as NodeJS.ErrnoException).code === 'EPIPE';
    this.#failure ??= isPipe
      ? new OutputClosed(error)
      : new CliError(`standard output: ${systemReason(error)}`, { cause: error });
    return this.#failure;
  }

  /** For what prints through the console, as code that is given to `nbd shell` does: at once, as Node does it. */
  #takeOver(): void {
    const stream = new Writable({
      write: (chunk: Buffer, _encoding, callback) => {
        try {
          for (let at = 0; at < chunk.length;) {
            const count = writeSync(STDOUT, chunk, at, chunk.length - at);
            if (count === 0) throw noRoom();
            at += count;
          }
          callback();
        } catch (error) {
          this.#fail(error);
          callback(error as Error);
        }
      },
    });
    stream.on('error', () => undefined);
    Object.defineProperty(process, 'stdout', { value: stream, configurable: true, enumerable: true });
  }
}
