// The ends of `nbd copy`: NBD servers, files, devices, standard input and output, and `null:`.

import { fstatSync, type Stats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import type { ByteCount, CopyDestination, CopySource, NbdExport } from '../../index.js';
import { deviceSize } from '../../bulk/ends/device-size.js';
import { exportDestination, exportSource, nullDestination } from '../../bulk/ends/endpoint.js';
import { destinationOfTarget, identityOf, sourceOfFile } from '../../bulk/ends/file.js';
import { FileTarget } from '../../bulk/ends/file-target.js';
import { isSameFile } from '../../bulk/ends/same-file.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { type Flow, openFlow } from './flowing.js';
import { type Holder, holdersOf } from './holders.js';
import { isPool, openExport, type OpenExport } from './reconnect.js';
import { CONTEXT_BASE_ALLOCATION } from '../sdk.js';
import { canonicalUri, DEEP_WINDOW, openFurther } from '../server.js';
import { systemReason } from '../../util/system-reason.js';

/** An open end. */
export type End =
  | { readonly kind: 'nbd'; readonly connection: OpenExport; readonly operand: Operand; readonly name: string }
  | {
      readonly kind: 'file';
      readonly file: FileHandle;
      readonly stats: Stats;
      readonly name: string;
      /** Null if the file is the source. */
      readonly target: FileTarget | null;
    }
  /** If `flow` is null, this is standard input or output. */
  | { readonly kind: 'pipe'; readonly name: string; readonly flow: Flow | null }
  | { readonly kind: 'null'; readonly name: string };

/** nbdcopy's names for the kinds of ends, printed by --verbose. */
export const OPS = { nbd: 'nbd_ops', file: 'file_ops', pipe: 'pipe_ops', null: 'null_ops' } as const;

const NBD_SCHEME = /^nbds?(\+\w+)?:/i;

/** Buffers need not be cleared before a read: a failed read ends the copy. */
const CONNECTION_OPTIONS = {
  preadInitialize: false,
  metaContexts: [CONTEXT_BASE_ALLOCATION],
  ...DEEP_WINDOW,
} as const;

/** How the ends that are exports are opened. */
export interface OpenOptions {
  /** Further metadata contexts. */
  readonly contexts?: readonly string[];
  /** The most connections of a pool. */
  readonly connections?: number;
}

export async function openSource(operand: Operand, context: CommandContext, options: OpenOptions = {}): Promise<End> {
  if ('command' in operand || NBD_SCHEME.test(operand.word)) return openNbd(operand, context, options);
  const { word } = operand;
  if (word === '-') return { kind: 'pipe', name: '-', flow: null };
  if (word === 'null:') throw new CliError('null: can only be a destination');
  return openLocal(word, context, false);
}

export async function openDestination(
  operand: Operand,
  context: CommandContext,
  options: OpenOptions = {},
): Promise<End> {
  if ('command' in operand || NBD_SCHEME.test(operand.word)) return openNbd(operand, context, options);
  const { word } = operand;
  if (word === 'null:') return { kind: 'null', name: word };
  if (word === '-') {
    if (process.stdout.isTTY) throw ttyRefused(word);
    return { kind: 'pipe', name: '-', flow: null };
  }
  const end = await openLocal(word, context, true);
  if (end.kind === 'pipe' && end.flow?.isTerminal === true) throw ttyRefused(word);
  return end;
}

/** nbdcopy's message, word for word. */
const ttyRefused = (name: string): CliError =>
  new CliError(`${name === '-' ? '' : `${name}: `}refusing to write to tty`, {
    hint: 'give the name of a file, or pipe the output to a program',
  });

async function openNbd(
  operand: Operand,
  context: CommandContext,
  { contexts = [], connections }: OpenOptions,
): Promise<End> {
  const name = 'word' in operand ? operand.word : (operand.command[0] ?? '');
  const options = { ...CONNECTION_OPTIONS, metaContexts: [...CONNECTION_OPTIONS.metaContexts, ...contexts] };
  return { kind: 'nbd', connection: await openExport(operand, context, options, connections), operand, name };
}

async function openLocal(path: string, context: CommandContext, write: boolean): Promise<End> {
  try {
    const there = await stat(path).catch((error: unknown) => {
      if (write && (error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    });
    if (there?.isDirectory() === true) throw Object.assign(new Error('Is a directory'), { code: 'EISDIR' });
    if (there !== null && !there.isFile() && !there.isBlockDevice()) return await flowing(path, there, context, write);
    if (write) {
      const target = await FileTarget.open(path);
      context.onEnd(() => target.end());
      return { kind: 'file', file: target.file, stats: target.stats, name: path, target };
    }
    const file = await open(path, 'r');
    const stats = await file.stat();
    if (stats.isFile() && stats.size === 0 && (await file.read(Buffer.alloc(1), 0, 1, 0)).bytesRead > 0) {
      // Files whose contents the kernel generates on reading, as in /proc, have a size of 0.
      await file.close();
      return await flowing(path, stats, context, false);
    }
    context.onEnd(() => file.close());
    return { kind: 'file', file, stats, name: path, target: null };
  } catch (cause) {
    if (cause === context.signal.reason) throw cause;
    throw new CliError(`${path}: ${systemReason(cause)}`, { cause });
  }
}

async function flowing(path: string, stats: Stats, context: CommandContext, write: boolean): Promise<End> {
  const flow = await openFlow(path, stats, write, context.signal);
  context.onEnd(() => flow.close());
  return { kind: 'pipe', name: path, flow };
}

/** Size in bytes; null for a pipe and for `null:`. */
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

/**
 * Refuses to copy a local file onto itself, also through a server on this machine that serves it, as far as this can be
 * detected (on Linux, for processes of this user).
 */
export function checkDistinct(source: End, destination: End, context: CommandContext): void {
  let isSame = false;
  if (source.kind === 'nbd' && destination.kind === 'nbd') {
    // Only a note: reading data and writing it back is harmless, and a way to test a server.
    const [from, to] = [source, destination].map(({ connection, operand }) => canonicalUri(connection, operand));
    if (from !== null && from === to) context.warn('note: the source and the destination are the same export');
  } else if (source.kind === 'nbd' && destination.kind === 'file') {
    refuseHeld(destination.name, holders(source, destination.stats), 'source');
  } else if (source.kind === 'file' && destination.kind === 'nbd') {
    // Open for reading is harmless: the source may be the backing file of the image that it is copied into.
    const writers = holders(destination, source.stats).filter(({ writes }) => writes);
    refuseHeld(source.name, writers, 'destination');
  } else {
    const [from, to] = [fileOf(source, 0), fileOf(destination, 1)];
    isSame = from !== null && to !== null && isSameFile(from, to);
  }
  if (isSame) throw new CliError('the source and the destination are the same');
}

/** The stats of a local end, which may be standard input or output; null if they are not known. */
function fileOf(end: End, standard: number): Stats | null {
  if (end.kind === 'file') return end.stats;
  return end.kind === 'pipe' && end.flow === null ? fstatSync(standard) : null;
}

/** Matches the URI of a server on this machine, which may have local files open. */
const LOCAL_SERVER = /^nbds?(\+unix:|:\/\/([^@/]*@)?(localhost|127\.[\d.]+|\[::1\])([:/?]|$))/i;

function holders(end: End & { kind: 'nbd' }, stats: Stats): Holder[] {
  if (stats.isFile() && stats.size === 0) return [];
  const { connection } = end;
  if ('command' in end.operand) return isPool(connection) ? [] : holdersOf(stats, connection.getSubprocessPid());
  return LOCAL_SERVER.test(end.operand.word) ? holdersOf(stats, null) : [];
}

function refuseHeld(file: string, [holder]: readonly Holder[], which: string): void {
  if (holder === undefined) return;
  throw new CliError(
    `the source and the destination are the same: process ${holder.pid} (${holder.name}) has ${file} open`,
    {
      hint: `if that process is not the server of the ${which}, make it close ${file} first`,
    },
  );
}

/**
 * The connection of an end and more to the same export: `count` in all, or fewer if the server refuses them. A pool
 * makes its own.
 */
export async function moreConnections(end: End, count: number, context: CommandContext): Promise<NbdExport[]> {
  if (end.kind !== 'nbd') return [];
  if (isPool(end.connection)) return [end.connection];
  return [end.connection, ...(await openFurther(end.operand, context, count - 1, CONNECTION_OPTIONS))];
}

/** An end that is read at any place. */
export async function sourceOf(
  end: End,
  size: bigint,
  connections: readonly NbdExport[],
): Promise<CopySource<ByteCount>> {
  if (end.kind === 'nbd') return exportSource(connections);
  if (end.kind !== 'file') throw new CliError(`${end.name}: cannot be read out of order`);
  return sourceOfFile(end.file, end.stats, size, end.name, await identityOf(end.name, end.stats));
}

/** An end that is written at any place. `size` is what a file is to have. */
export async function destinationOf(
  end: End,
  size: bigint,
  connections: readonly NbdExport[],
): Promise<CopyDestination<ByteCount>> {
  if (end.kind === 'null') return nullDestination();
  if (end.kind === 'nbd') return exportDestination(connections);
  if (end.kind !== 'file' || end.target === null) {
    throw new CliError(`${end.name}: cannot be written out of order`);
  }
  const bytes = end.target.isFile ? size : ((await sizeOf(end)) ?? 0n);
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw new CliError(`${end.name}: cannot write beyond 2^53 - 1 bytes`);
  return destinationOfTarget(end.target, Number(bytes), await identityOf(end.name, end.stats));
}

/** What a pool has written to a destination that cannot flush is never known to be there, once its server was away. */
export function noteWithoutFlush(end: End, context: CommandContext): void {
  if (end.kind !== 'nbd' || !isPool(end.connection) || end.connection.canFlush()) return;
  context.warn('note: the destination cannot flush: should its server be away for a while, the copy fails in the end');
}

/**
 * Whether a destination is flushed: with --flush, as in nbdcopy; always where that is possible for a pool, whose server
 * may have been away. `undefined` is for copy(): where that is possible.
 */
export function flushOf(args: ParsedArguments, end: End): boolean | undefined {
  if (args.has('flush')) return true;
  return end.kind === 'nbd' && isPool(end.connection) && end.connection.canFlush() ? undefined : false;
}

/** Closes what was written: some file systems report only then that there was no room. */
export async function finishEnd(end: End, size: number | bigint): Promise<void> {
  if (end.kind !== 'file' || end.target === null) return;
  // Nothing may have been written, where there is nothing, or nothing but zeroes that were left out.
  await end.target.prepare(Number(size));
  await end.target.finish();
}
