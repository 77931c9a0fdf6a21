// `nbd copy` where one end only flows: standard input and output, pipes and sockets. In order, with reads ahead and
// writes behind.

import { createReadStream as createFileStream } from 'node:fs';
import { Readable, Transform, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  type BlockHasher,
  createReadStream,
  createWriteStream,
  type NbdConnection,
  NbdStrictError,
} from '../../index.js';
import type { FileTarget } from '../../bulk/ends/file-target.js';
import { splitZeroes } from '../../bulk/zeroes.js';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { type End, finishEnd } from './ends.js';
import type { Flow } from './flowing.js';
import { makeProgress } from '../output/progress.js';
import { OutputClosed, standardInput } from '../output/standard-io.js';
import { systemReason } from '../../util/system-reason.js';
import { parseSmallSize, roundSize } from '../output/text.js';

/** Of what flows, bytes that are looked at for zeroes and written together; more only for larger blocks of zeroes. */
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
    // To an export, the stream itself gathers what it sends.
    const stages = destination.kind === 'file' ? [counter, aligned(Math.max(PIECE, sparse))] : [counter];
    await pipeline([readable(source, total, args, context), ...stages, end], { signal: context.signal });
    if (size !== null && done < total) throw new CliError(`${source.name}: unexpected end of file`);
  } catch (error) {
    progress.stop();
    if (error instanceof OutputClosed) throw error;
    const what = size === null ? roundSize(done) : `${roundSize(done)} of ${roundSize(total)}`;
    // What is on its way through the pipes is counted, and may be lost.
    context.warn(`the copy is incomplete: at most ${what} are at the destination`);
    if (context.signal.aborted) throw context.signal.reason;
    if (error instanceof NbdStrictError && error.code === 'ENOSPC') {
      throw new CliError('error: destination size is smaller than source size', { cause: error });
    }
    throw error;
  }
  if (args.has('flush') && destination.kind === 'nbd') await destination.connection.flush();
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
      // What is appended meanwhile is not part of it.
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

/** Zeroes become zero commands; where the destination has them already, nothing is sent. */
function toExport(connection: NbdConnection, sparse: number, isZero: boolean): Writable {
  // A block of zeroes is found only within one request.
  const requestSize = Math.min(Math.max(PIECE, sparse), LARGEST_PIECE);
  return createWriteStream(isZero && sparse > 0 ? withZeroes(connection) : connection, { sparse, requestSize });
}

/** The connection to an export that is zero where nothing was written: zeroing it is done at once. */
function withZeroes(connection: NbdConnection): NbdConnection {
  const zeroing = { canZero: () => true, zero: () => Promise.resolve() };
  return new Proxy(connection, {
    get: (target, key) => {
      if (key in zeroing) return zeroing[key as keyof typeof zeroing];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** Chunks of one size, so that blocks of zeroes lie whole within them. */
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

/** A regular file has been cut to nothing: blocks of zeroes are holes between what is written, or behind it. */
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
      // What was behind the last data is a hole only when the file has its length.
      const end = async (): Promise<void> => {
        await target.prepare(0);
        if (target.isFile) await target.resize(at);
      };
      end().then(() => callback(), callback);
    },
  });
}

/** Where in the chunk there is something to be written. */
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
