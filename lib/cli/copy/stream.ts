// `nbd copy` from or to a pipe, a socket, standard input or standard output: copies in order, and reads ahead and writes
// behind on the NBD side.

import { createReadStream as createFileStream } from 'node:fs';
import { Readable, Transform, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type BlockHasher, createReadStream, createWriteStream, type NbdExport, NbdStrictError } from '../../index.js';
import type { FileTarget } from '../../bulk/ends/file-target.js';
import { splitZeroes } from '../../bulk/zeroes.js';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { type End, finishEnd, flushOf } from './ends.js';
import type { Flow } from './flowing.js';
import { makeProgress } from '../output/progress.js';
import { OutputClosed, standardInput } from '../output/standard-io.js';
import { systemReason } from '../../util/system-reason.js';
import { parseSmallSize, roundSize } from '../output/text.js';

/** Bytes that are searched for zeroes and written together. Larger pieces are used only for a larger --sparse. */
const PIECE = 256 * 1024;
const LARGEST_PIECE = 4 * 1024 * 1024;

export async function stream(
  source: End,
  destination: End,
  size: bigint | null,
  sparse: number,
  args: ParsedArguments,
  context: CommandContext,
  hasher: BlockHasher | null,
): Promise<void> {
  const total = Number(size ?? 0n);
  const progress = await makeProgress(args, total, context);
  let done = 0;
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      hasher?.update(done, chunk);
      done += chunk.length;
      progress.update(done);
      callback(null, chunk);
    },
  });
  try {
    const end = writable(destination, sparse, args, context);
    // The write stream of an export gathers requests itself.
    const stages = destination.kind === 'file' ? [counter, aligned(Math.max(PIECE, sparse))] : [counter];
    await pipeline([readable(source, total, args, context), ...stages, end], { signal: context.signal });
    if (size !== null && done < total) throw new CliError(`${source.name}: unexpected end of file`);
  } catch (error) {
    progress.stop();
    if (error instanceof OutputClosed) throw error;
    const what = size === null ? roundSize(done) : `${roundSize(done)} of ${roundSize(total)}`;
    // "At most": data that is still in the streams is counted, and may be lost.
    context.warn(`the copy is incomplete: at most ${what} were copied`);
    if (context.signal.aborted) throw context.signal.reason;
    if (error instanceof NbdStrictError && error.code === 'ENOSPC') {
      // nbdcopy's message, word for word.
      throw new CliError('error: destination size is smaller than source size', { cause: error });
    }
    throw error;
  }
  if (destination.kind === 'nbd' && flushOf(args, destination) !== false) await destination.connection.flush();
  if (args.has('flush') && destination.kind === 'file') await destination.target?.flush();
  if (args.has('flush') && destination.kind === 'pipe' && destination.flow === null) await context.flushOutput();
  await finishEnd(destination, done);
  progress.finish();
}

function readable(source: End, total: number, args: ParsedArguments, context: CommandContext): Readable {
  switch (source.kind) {
    case 'nbd': {
      const text = args.value('request-size');
      return createReadStream(source.connection, {
        extents: !args.has('no-extents'),
        signal: context.signal,
        ...(text === undefined ? {} : { requestSize: parseSmallSize('request-size', text) }),
      });
    }
    case 'file':
      if (total === 0) return Readable.from([]);
      // Bytes that are appended to the file during the copy are not copied.
      return createFileStream('', { fd: source.file, autoClose: false, highWaterMark: 256 * 1024, end: total - 1 });
    case 'pipe':
      return source.flow === null ? standardInput() : source.flow.readable();
    case 'null':
      return Readable.from([]);
  }
}

function writable(destination: End, sparse: number, args: ParsedArguments, context: CommandContext): Writable {
  switch (destination.kind) {
    case 'nbd':
      return toExport(destination.connection, sparse, args.has('destination-is-zero'));
    case 'pipe':
      return destination.flow === null
        ? each((chunk) => context.out(chunk))
        : toFlow(destination.flow, destination.name);
    case 'file':
      if (destination.target === null) throw new CliError(`${destination.name}: is not open for writing`);
      return toFile(destination.target, sparse);
    case 'null':
      return each(() => Promise.resolve());
  }
}

/** Sends zeroes as zero commands, or not at all if the destination already reads as zeroes. */
function toExport(connection: NbdExport, sparse: number, isZero: boolean): Writable {
  // A block of zeroes is detected only within a single request.
  const requestSize = Math.min(Math.max(PIECE, sparse), LARGEST_PIECE);
  return createWriteStream(isZero && sparse > 0 ? withZeroes(connection) : connection, {
    ...{ sparse, requestSize },
    // Done in the end, where it is to be.
    flush: false,
  });
}

/** Wraps an export that reads as zeroes: zero() has nothing to do and resolves at once. */
function withZeroes(connection: NbdExport): NbdExport {
  const zeroing = { canZero: () => true, zero: () => Promise.resolve() };
  return new Proxy(connection, {
    get: (target, key) => {
      if (key in zeroing) return zeroing[key as keyof typeof zeroing];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** Joins chunks to pieces of `size` bytes, so that no block of zeroes crosses a boundary between them. */
function aligned(size: number): Transform {
  let buffer = Buffer.allocUnsafe(size);
  let filled = 0;
  return new Transform({
    readableHighWaterMark: size,
    transform(chunk: Buffer, _encoding, callback) {
      for (let at = 0; at < chunk.length;) {
        const count = chunk.copy(buffer, filled, at);
        at += count;
        filled += count;
        if (filled < size) continue;
        this.push(buffer);
        buffer = Buffer.allocUnsafe(size);
        filled = 0;
      }
      callback();
    },
    flush(callback) {
      if (filled > 0) this.push(buffer.subarray(0, filled));
      callback();
    },
  });
}

/** A regular file has been truncated to 0, so blocks of zeroes become holes by not being written. */
function toFile(target: FileTarget, sparse: number): Writable {
  let at = 0;
  const finds = target.isFile ? sparse : 0;
  return new Writable({
    write: (chunk: Buffer, _encoding, callback) => {
      const writeAll = async (): Promise<void> => {
        await target.prepare(0);
        const start = at;
        at += chunk.length;
        for (const [from, to] of dataOf(chunk, start, finds)) {
          await target.write(chunk.subarray(from, to), start + from);
        }
      };
      writeAll().then(() => callback(), callback);
    },
    final: (callback) => {
      // Zeroes at the end become a hole by setting the size of the file.
      const end = async (): Promise<void> => {
        await target.prepare(0);
        if (target.isFile) await target.resize(at);
      };
      end().then(() => callback(), callback);
    },
  });
}

/** The parts of the chunk that must be written. */
function dataOf(chunk: Buffer, offset: number, sparse: number): [from: number, to: number][] {
  if (sparse === 0) return [[0, chunk.length]];
  const found: [number, number][] = [];
  splitZeroes(chunk, offset, sparse, (from, to, isZero) => {
    if (!isZero) found.push([from, to]);
  });
  return found;
}

const toFlow = (flow: Flow, name: string): Writable =>
  each(async (chunk) => {
    try {
      await flow.write(chunk);
    } catch (cause) {
      throw new CliError(`${name}: ${systemReason(cause)}`, { cause });
    }
  });

const each = (write: (chunk: Buffer) => Promise<void>): Writable =>
  new Writable({
    write: (chunk: Buffer, _encoding, callback) => {
      write(chunk).then(() => callback(), callback);
    },
  });
