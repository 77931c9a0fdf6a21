// Standard input and output of every kind. Node's own streams work for pipes, sockets and terminals, which are driven by
// events. For a file or a device, however, they may write only a part and report success, and for other kinds, such as a
// block device or a directory, Node substitutes streams that are empty or discard everything. Those descriptors are read
// and written here by number, in loops that check every count.

import { close, fstatSync, fsync, openSync, read, write, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { devNull } from 'node:os';
import { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { CliError } from '../errors.js';
import { allocateForInput } from '../../util/memory.js';
import { systemReason } from '../../util/system-reason.js';

const STDIN = 0;
const STDOUT = 1;
/** The exit code that a shell reports for a program ended by SIGPIPE; Node itself ignores the signal. */
const PIPE_BROKEN = 141;
const READ_SIZE = 256 * 1024;
/** Milliseconds to wait for a descriptor that would block and has no events; doubled from the first to the second. */
const [FIRST_WAIT, LONGEST_WAIT] = [1, 50];

/** The reader has closed the pipe, as in `nbd dump … | head`. No message is printed, but the exit code is not 0. */
export class OutputClosed extends CliError {
  constructor(cause: unknown) {
    super('standard output: Broken pipe', { cause, exitCode: PIPE_BROKEN });
  }
}

type Transfer = (done: (error: NodeJS.ErrnoException | null, count: number) => void) => void;

/** Runs one read() or write(), and retries it while it would block. */
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

/** Writes all bytes at the current position of the descriptor. Rejects with the system's error. */
export async function writeAll(fd: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const count = await transfer((done) => write(fd, bytes, at, bytes.length - at, null, done));
    if (count === 0) throw noRoom();
    at += count;
  }
}

/** Opens the null device, which gets the lowest free descriptor. */
function fillDescriptor(): void {
  try {
    openSync(devNull, 'w');
  } catch {
    // Nothing is to be written any more.
  }
}

const noRoom = (): Error => Object.assign(new Error('write returned 0 bytes'), { code: 'ENOSPC' });

/** Reads from the current position of the descriptor to its end. Rejects with the system's error. */
async function* chunksOf(fd: number): AsyncGenerator<Buffer> {
  for (;;) {
    const buffer = allocateForInput(READ_SIZE);
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

/** A stream that reads a descriptor which has no events. The descriptor is not closed. */
export function readDescriptor(fd: number, name: string): Readable {
  return Readable.from(named(chunksOf(fd), name), { objectMode: false, highWaterMark: READ_SIZE });
}

export function standardInput(): Readable {
  const { stdin } = process as { stdin: Readable };
  return stdin instanceof Socket ? stdin : readDescriptor(STDIN, 'standard input');
}

/** The standard output of commands. Every failure is reported by the write, and again by {@link finish}. */
export class StandardOutput {
  readonly #socket: Socket | null;
  #last: Promise<void> = Promise.resolve();
  #failure: CliError | null = null;
  #isReleased = false;

  constructor() {
    const { stdout } = process as { stdout: Writable };
    this.#socket = stdout instanceof Socket ? stdout : null;
    // A failed write rejects by itself; without a listener, the 'error' event would end the process.
    stdout.on('error', (error) => this.#fail(error));
    if (this.#socket === null) this.#takeOver();
  }

  /** Resolves when all data has been written. */
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
    // Later writes fail with the same error.
    this.#last = reported.catch(() => undefined);
    return reported;
  }

  /** Calls fsync if standard output is a file or a block device. */
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

  /** Leaves standard output to other code, such as a connection, which handles errors itself. */
  release(): void {
    this.#isReleased = true;
  }

  /** Waits for pending writes and closes the output: some file systems report a lack of space only then. */
  async finish(): Promise<void> {
    if (this.#isReleased) return;
    if (this.#socket === null) {
      await this.#last;
      if (this.#failure === null && fstatSync(STDOUT).isBlockDevice()) await this.flush();
      await new Promise<void>((resolve, reject) => {
        close(STDOUT, (error) => {
          // The next file to be opened would get this descriptor, and libuv ends the process when it closes one of 0 to 2.
          fillDescriptor();
          if (error == null) resolve();
          else reject(this.#fail(error));
        });
      });
    } else if (!this.#socket.destroyed) {
      // The reader of a pipe may be slow; wait until all data has been written.
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

  /** Replaces process.stdout for code that uses the console, such as the code of `nbd shell`. Synchronous, as in Node. */
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
