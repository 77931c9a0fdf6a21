// `nbd copy` where one end only flows: standard input and output, pipes and sockets. In order, with reads ahead and
// writes behind.

import { createReadStream as createFileStream } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { Readable, Transform, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type BlockHasher, createReadStream, createWriteStream, NbdStrictError } from '../index.js';
import type { ParsedArguments } from './arguments.js';
import { CliError, type CommandContext } from './command.js';
import { closeFile, destinationOf, type End, writeFully } from './copy-ends.js';
import { makeProgress } from './progress.js';
import { parseSmallSize, roundSize } from './text.js';

export async function stream(
  source: End,
  destination: End,
  size: bigint | null,
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
    await pipeline(readable(source, total, args, context), counter, await writable(destination, total, args), {
      signal: context.signal,
    });
    if (size !== null && done < total) throw new CliError(`${source.name}: unexpected end of file`);
  } catch (error) {
    progress.stop();
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
  await closeFile(destination);
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
      if (source.file === null) return process.stdin;
      return createFileStream('', { fd: source.file, autoClose: false });
    case 'null':
      return Readable.from([]);
  }
}

async function writable(destination: End, total: number, args: ParsedArguments): Promise<Writable> {
  switch (destination.kind) {
    case 'nbd':
      return createWriteStream(destination.connection);
    case 'pipe':
      return destination.file === null ? toStandardOutput() : toFile(destination.file, destination.name, null, false);
    case 'file':
      await destinationOf(destination, total, []);
      return toFile(destination.file, destination.name, 0, args.has('flush'));
    case 'null':
      return new Writable({ write: (_chunk, _encoding, callback) => callback() });
  }
}

/** Node's own writer of a file that it is not to close never says that it has finished. */
function toFile(file: FileHandle, name: string, start: number | null, flush: boolean): Writable {
  let at = start;
  return new Writable({
    write: (chunk: Buffer, _encoding, callback) => {
      writeFully(file, chunk, at, name).then(() => callback(), callback);
      if (at !== null) at += chunk.length;
    },
    final: (callback) => {
      if (flush) file.datasync().then(() => callback(), callback);
      else callback();
    },
  });
}

/** Standard output is not to be ended: Node then says that it never was, and the next write to it breaks. */
const toStandardOutput = (): Writable =>
  new Writable({
    write: (chunk: Buffer, _encoding, callback) => {
      process.stdout.write(chunk, callback);
    },
  });
