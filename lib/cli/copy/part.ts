// `nbd copy` of a part, from a checkpoint, at a rate, and of what can be read: its options, and what it reports of them.

import { access, open } from 'node:fs/promises';
import {
  CONTEXT_QEMU_DIRTY_BITMAP,
  type CopyOptions,
  type CopyResult,
  fileCheckpoint,
  NbdStrictError,
} from '../../index.js';
import { systemReason } from '../../util/system-reason.js';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { CliError, UsageError } from '../errors.js';
import { parseSize, parseSmallSize } from '../output/text.js';
import { givenRange, RANGE_OPTIONS } from '../range.js';

export const PART_OPTIONS: readonly OptionSpec[] = [
  {
    names: ['bitmap'],
    takes: 'value',
    value: 'CONTEXT',
    help: 'Copy only what a dirty bitmap marks: qemu:dirty-bitmap:NAME, or NAME. Zeroes among it are zeroed.',
  },
  {
    names: ['checkpoint'],
    takes: 'value',
    value: 'FILE',
    help: 'Keep in FILE how far the copy has come, and go on from there if it exists. It is removed in the end.',
  },
  ...RANGE_OPTIONS,
  {
    names: ['ranges'],
    takes: 'value',
    value: 'FILE',
    help: 'Copy only the ranges in FILE: a line for each with its offset and its length.',
  },
  { names: ['rate'], takes: 'value', value: 'N', help: 'Read at most N bytes a second (suffixes k, M, G …).' },
  {
    names: ['salvage'],
    help: 'Go on where the source cannot be read: zeroes take its place, are listed, and the exit code is 1.',
  },
];

/** Ranges are lines of text: more of them are no list that anybody has written by mistake. */
const MOST_RANGES_BYTES = 256 * 1024 * 1024;

export interface Part {
  /** Everything is copied, and to the beginning: a destination file is replaced. */
  readonly isWhole: boolean;
  readonly offset: bigint;
  readonly length: bigint | undefined;
  readonly destinationOffset: bigint;
  /** The name of the context. */
  readonly bitmap: string | undefined;
  readonly options: CopyOptions;
}

export async function readPart(args: ParsedArguments, context: CommandContext): Promise<Part> {
  const { offset, length } = givenRange(args);
  const at = args.value('destination-offset');
  const destinationOffset = at === undefined ? offset : parseSize('destination-offset', at);
  const name = args.value('bitmap');
  const file = args.value('ranges');
  const checkpoint = args.value('checkpoint');
  const rate = args.value('rate');
  if (name !== undefined && file !== undefined) throw new UsageError('you cannot use --bitmap and --ranges together');
  for (const option of ['bitmap', 'ranges', 'checkpoint']) {
    if (args.value(option) === '') throw new UsageError(`--${option}: a name is expected`);
  }
  const hashed = ['blkhash', 'blkhash-file'].find((option) => args.has(option));
  const against = ['bitmap', 'ranges', 'checkpoint'].find((option) => args.has(option));
  if (hashed !== undefined && against !== undefined) {
    throw new UsageError(`you cannot use --${hashed} and --${against} together: the hash needs all bytes`);
  }
  if (checkpoint !== undefined && args.has('destination-is-zero')) {
    context.warn('note: --destination-is-zero holds for a destination that was zero when the copy began');
  }
  const bytesPerSecond = rate === undefined ? undefined : parseSmallSize('rate', rate);
  if (bytesPerSecond === 0) throw new UsageError('--rate: must be at least 1');
  const bitmap = name === undefined || name.includes(':') ? name : CONTEXT_QEMU_DIRTY_BITMAP + name;
  return {
    isWhole: offset === 0n && length === undefined && at === undefined && name === undefined && file === undefined,
    offset,
    length,
    destinationOffset,
    bitmap,
    options: {
      offset,
      ...(length === undefined ? {} : { length }),
      destinationOffset,
      ...(bitmap === undefined ? {} : { bitmap }),
      ...(file === undefined ? {} : { ranges: await readRanges(file) }),
      ...(bytesPerSecond === undefined ? {} : { rate: bytesPerSecond }),
      ...(args.has('salvage') ? { onReadError: 'zero' } : {}),
    },
  };
}

/** A small disk has a checkpoint now and then, too. */
const LEAST_EVERY = 16n * 1024n * 1024n;
const MOST_EVERY = 256n * 1024n * 1024n;

/** The checkpoint of a copy of this many bytes. */
export function checkpointOf(args: ParsedArguments, length: bigint): Pick<CopyOptions, 'checkpoint'> {
  const file = args.value('checkpoint');
  if (file === undefined) return {};
  const share = length / 64n;
  const every = share < LEAST_EVERY ? LEAST_EVERY : share > MOST_EVERY ? MOST_EVERY : share;
  return { checkpoint: fileCheckpoint(file, { every }) };
}

/** How many bytes are looked at, and where in the destination they end. Throws for what leaves the source. */
export function spanOf({ offset, length, destinationOffset }: Part, size: bigint): { length: bigint; end: bigint } {
  if (offset > size) throw new CliError(`--offset: ${offset} is beyond the end of the source, ${size} bytes`);
  const rest = size - offset;
  if (length !== undefined && length > rest) {
    throw new CliError(
      `--length: ${length} bytes from offset ${offset} are more than the source has: it ends at ${size}`,
    );
  }
  return { length: length ?? rest, end: destinationOffset + (length ?? rest) };
}

/** A line has an offset and a length, in bytes or with a suffix; empty lines and those that begin with # are left out. */
async function readRanges(path: string): Promise<{ offset: bigint; length: bigint }[]> {
  const ranges: { offset: bigint; length: bigint }[] = [];
  let number = 0;
  for (const line of (await textOf(path)).split('\n')) {
    number++;
    const words = line.trim().split(/[\s,]+/);
    if (line.trim() === '' || line.trim().startsWith('#')) continue;
    const [offset, length] = words;
    const where = `ranges: line ${number}`;
    if (offset === undefined || length === undefined || words.length !== 2) {
      throw new UsageError(`--${where}: an offset and a length are expected`);
    }
    ranges.push({ offset: parseSize(where, offset), length: parseSize(where, length) });
  }
  return ranges;
}

async function textOf(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > MOST_RANGES_BYTES) throw new CliError(`--ranges: ${path}: has more than ${MOST_RANGES_BYTES} bytes`);
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError(`--ranges: ${path}: ${systemReason(cause)}`, { cause });
  }
}

/** What flows has no places: options that need them are refused. */
export function checkFlowing(args: ParsedArguments, name: string): void {
  const needs = ['bitmap', 'ranges', 'offset', 'length', 'destination-offset', 'checkpoint', 'rate', 'salvage'];
  const given = needs.find((option) => args.has(option));
  if (given === undefined) return;
  throw new UsageError(`--${given}: cannot be used with ${name === '-' ? 'standard input or output' : name}, a pipe`);
}

/** After a copy that has ended early. */
export async function howToGoOn(args: ParsedArguments, context: CommandContext, error: unknown): Promise<void> {
  const file = args.value('checkpoint');
  // What was refused is refused again.
  if (file === undefined || error instanceof NbdStrictError) return;
  const isThere = await access(file).then(
    () => true,
    () => false,
  );
  context.warn(
    isThere
      ? `to go on from the checkpoint, run the same command again; to begin anew, remove ${file} first`
      : 'no checkpoint was saved yet: the same command begins anew',
  );
}

/** A line for each range that could not be read, on standard error. */
export function reportMissing({ missing }: CopyResult, context: CommandContext): void {
  if (missing.length === 0) return;
  const bytes = missing.reduce((sum, { length }) => sum + length, 0n);
  context.warn(`${bytes} bytes could not be read, and are zero in the destination:`);
  for (const { offset, length } of missing) process.stderr.write(`${offset} ${length}\n`);
}
