// The ends of `nbd copy`: NBD servers, files, devices, standard input and output, and nothing at all.

import { constants as fs, fstatSync, type Stats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { isatty } from 'node:tty';
import type { ByteCount, CopyDestination, CopySource, NbdConnection } from '../index.js';
import { exportDestination, exportSource, nullDestination } from '../stream/endpoint.js';
import type { Operand } from './arguments.js';
import { CliError, type CommandContext } from './command.js';
import { deviceSize } from './device-size.js';
import { fileZeroRuns } from './file-holes.js';
import { CONTEXT_BASE_ALLOCATION } from './sdk.js';
import { canonicalUri, openServer } from './server.js';
import { systemReason } from './system-reason.js';

/** An end that is open. */
export type End =
  | { readonly kind: 'nbd'; readonly connection: NbdConnection; readonly operand: Operand; readonly name: string }
  | { readonly kind: 'file'; readonly file: FileHandle; readonly stats: Stats; readonly name: string }
  | { readonly kind: 'pipe'; readonly name: string; readonly file: FileHandle | null }
  | { readonly kind: 'null'; readonly name: string };

/** How --verbose calls them. */
export const OPS = { nbd: 'nbd_ops', file: 'file_ops', pipe: 'pipe_ops', null: 'null_ops' } as const;

const NBD_SCHEME = /^nbds?(\+\w+)?:/i;

/** Nothing needs clearing: a failed read ends the copy. */
const CONNECTION_OPTIONS = { preadInitialize: false, metaContexts: [CONTEXT_BASE_ALLOCATION] } as const;

export async function openSource(operand: Operand, context: CommandContext): Promise<End> {
  if ('command' in operand || NBD_SCHEME.test(operand.word)) return openNbd(operand, context);
  const { word } = operand;
  if (word === '-') return { kind: 'pipe', name: '-', file: null };
  if (word === 'null:') throw new CliError('null: can only be a destination');
  return openFile(word, fs.O_RDONLY, context);
}

export async function openDestination(operand: Operand, context: CommandContext): Promise<End> {
  if ('command' in operand || NBD_SCHEME.test(operand.word)) return openNbd(operand, context);
  const { word } = operand;
  if (word === 'null:') return { kind: 'null', name: word };
  if (word === '-') {
    if (process.stdout.isTTY) throw ttyRefused(word);
    return { kind: 'pipe', name: '-', file: null };
  }
  // A device that is missing must not become a file, so that nothing is created where something was to be opened.
  const end = await openFile(word, fs.O_WRONLY | (/^\/dev\/(?!shm\/)/.test(word) ? 0 : fs.O_CREAT), context);
  if (end.kind === 'pipe' && end.file !== null && isatty(end.file.fd)) throw ttyRefused(word);
  return end;
}

const ttyRefused = (name: string): CliError =>
  new CliError(`${name === '-' ? '' : `${name}: `}refusing to write to tty`, {
    hint: 'name a file, or pipe the output somewhere',
  });

async function openNbd(operand: Operand, context: CommandContext): Promise<End> {
  const name = 'word' in operand ? operand.word : (operand.command[0] ?? '');
  return { kind: 'nbd', connection: await openServer(operand, context, CONNECTION_OPTIONS), operand, name };
}

async function openFile(path: string, flags: number, context: CommandContext): Promise<End> {
  try {
    const file = await open(path, flags, 0o644);
    context.onEnd(() => file.close());
    const stats = await file.stat();
    if (stats.isDirectory()) throw Object.assign(new Error('Is a directory'), { code: 'EISDIR' });
    const isPlace = stats.isFile() || stats.isBlockDevice();
    return isPlace ? { kind: 'file', file, stats, name: path } : { kind: 'pipe', name: path, file };
  } catch (cause) {
    throw new CliError(`${path}: ${systemReason(cause)}`, { cause });
  }
}

/** Size in bytes; null for what only flows. */
export async function sizeOf(end: End): Promise<bigint | null> {
  switch (end.kind) {
    case 'nbd':
      return end.connection.getSize();
    case 'file':
      return BigInt(end.stats.isBlockDevice() ? await deviceSize(end.name, end.stats) : end.stats.size);
    default:
      return null;
  }
}

/** Refuses to copy something onto itself. */
export async function checkDistinct(source: End, destination: End): Promise<void> {
  let isSame = false;
  if (source.kind === 'nbd' && destination.kind === 'nbd') {
    const [from, to] = [source, destination].map(({ connection, operand }) => canonicalUri(connection, operand));
    isSame = from !== null && from === to;
  } else if (destination.kind === 'file' && (source.kind === 'file' || (source.kind === 'pipe' && !source.file))) {
    // Standard input may be that file, too.
    const { dev, ino } = source.kind === 'file' ? source.stats : fstatSync(0);
    const there = await stat(destination.name);
    isSame = there.dev === dev && there.ino === ino;
  }
  if (isSame) throw new CliError('the source and the destination are the same');
}

/** More connections to the same export, as many as make `count`. */
export async function moreConnections(end: End, count: number, context: CommandContext): Promise<NbdConnection[]> {
  if (end.kind !== 'nbd') return [];
  const others = Array.from({ length: count - 1 }, () => openServer(end.operand, quiet(context), CONNECTION_OPTIONS));
  return [end.connection, ...(await Promise.all(others))];
}

const quiet = (context: CommandContext): CommandContext => ({ ...context, verbose: false });

/** An end that is read at any place. */
export function sourceOf(end: End, size: number, connections: readonly NbdConnection[]): CopySource<ByteCount> {
  if (end.kind === 'nbd') return exportSource(connections);
  if (end.kind !== 'file') throw new CliError(`${end.name}: cannot be read out of order`);
  const { file, stats, name } = end;
  return {
    size,
    preferredBlock: 4096,
    read: (buffer, offset) => readFully(file, buffer, Number(offset), name),
    ...(stats.isFile() ? { zeroRuns: () => fileZeroRuns(file.fd, stats, size) } : {}),
  };
}

async function readFully(file: FileHandle, buffer: Buffer, offset: number, name: string): Promise<void> {
  let done = 0;
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, offset + done);
    if (bytesRead === 0) throw new CliError(`${name}: unexpected end of file`);
    done += bytesRead;
  }
}

/** An end that is written at any place. `size` is the source's. */
export async function destinationOf(
  end: End,
  size: number,
  connections: readonly NbdConnection[],
): Promise<CopyDestination<ByteCount>> {
  if (end.kind === 'null') return nullDestination();
  if (end.kind === 'nbd') return exportDestination(connections);
  if (end.kind !== 'file') throw new CliError(`${end.name}: cannot be written out of order`);
  const { file, stats, name } = end;
  // All of a regular file is replaced: cut to nothing and made long again, it is one hole, and zeroes need no writing.
  const isFresh = stats.isFile();
  if (isFresh) {
    try {
      await file.truncate(0);
      await file.truncate(size);
    } catch (cause) {
      throw new CliError(`${name}: ${systemReason(cause)}`, { cause });
    }
  }
  return {
    size: isFresh ? size : Number((await sizeOf(end)) ?? 0n),
    preferredBlock: 4096,
    write: (buffer, offset) => writeFully(file, buffer, Number(offset), name),
    ...(isFresh ? { zero: (_offset, _count, allocate) => Promise.resolve(!allocate) } : {}),
    flush: () => file.datasync(),
  };
}

/** `offset` is null for what has no places. */
export async function writeFully(file: FileHandle, buffer: Buffer, offset: number | null, name: string): Promise<void> {
  let done = 0;
  while (done < buffer.length) {
    const at = offset === null ? null : offset + done;
    const { bytesWritten } = await file.write(buffer, done, buffer.length - done, at);
    if (bytesWritten === 0) throw new CliError(`${name}: takes no more bytes`);
    done += bytesWritten;
  }
}

/** Closes what was written, where it is a file: some file systems only tell then that there was no room. */
export async function closeFile(end: End): Promise<void> {
  if (!('file' in end) || end.file === null) return;
  try {
    await end.file.close();
  } catch (cause) {
    throw new CliError(`${end.name}: ${systemReason(cause)}`, { cause });
  }
}
