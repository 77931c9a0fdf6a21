// The options --offset and --length, which mean the same in every command, and aligning a range to the server's blocks.

import type { NbdExport } from '../index.js';
import { SIZE_MINIMUM, STRICT_ALIGN, STRICT_MASK } from './sdk.js';
import type { ParsedArguments } from './arguments.js';
import type { OptionSpec } from './command-spec.js';
import { CliError } from './errors.js';
import { parseSize } from './output/text.js';

/** Offset and length in bytes, as bigint: an export may have up to 2^63 - 1 bytes. */
export interface Range {
  readonly offset: bigint;
  readonly length: bigint;
}

export const RANGE_OPTIONS: readonly OptionSpec[] = [
  {
    names: ['offset', 'skip'],
    short: 'o',
    takes: 'value',
    value: 'N',
    help: 'Start offset in bytes (suffixes k, M, G …). Default 0.',
  },
  {
    names: ['length', 'limit'],
    short: 'n',
    secondShort: 'l',
    takes: 'value',
    value: 'N',
    help: 'Number of bytes (suffixes k, M, G …). Default: to the end of the export.',
  },
];

/** The values of --offset and --length. Throws UsageError for an invalid size. */
export function givenRange(args: ParsedArguments): { offset: bigint; length: bigint | undefined } {
  const offset = args.value('offset');
  const length = args.value('length');
  return {
    offset: offset === undefined ? 0n : parseSize('offset', offset),
    length: length === undefined ? undefined : parseSize('length', length),
  };
}

/** The range given by --offset and --length. Throws CliError if it extends past the end of the export. */
export function rangeOf(args: ParsedArguments, size: bigint): Range {
  const { offset, length } = givenRange(args);
  if (offset > size) throw new CliError(`--offset: ${offset} is beyond the end of the export (${size} bytes)`);
  const rest = size - offset;
  if (length === undefined) return { offset, length: rest };
  if (length > rest) {
    throw new CliError(
      `--length: ${length} bytes at offset ${offset} extend past the end of the export (${size} bytes)`,
      { hint: `${rest} bytes remain from that offset; without --length, all of them are used` },
    );
  }
  return { offset, length };
}

/** The server's minimum block size; 1 if it has none. */
export const minimumBlock = (connection: Pick<NbdExport, 'getBlockSize'>): bigint =>
  BigInt(Math.max(connection.getBlockSize(SIZE_MINIMUM), 1));

/** Extends a range to block boundaries, or to the end of the export. */
export function blocksAround(
  connection: Pick<NbdExport, 'getBlockSize' | 'getSize'>,
  { offset, length }: Range,
): Range {
  const block = minimumBlock(connection);
  const size = connection.getSize();
  const start = offset - (offset % block);
  const end = offset + length + block - 1n;
  const wholeEnd = end - (end % block);
  return { offset: start, length: (wholeEnd < size ? wholeEnd : size) - start };
}

/**
 * Options for an export whose last block is shorter than the server's minimum block size: the server, not the client,
 * decides whether it accepts a request for that block.
 */
export const LAST_BLOCK_MAY_BE_SHORT = { strictMode: STRICT_MASK & ~STRICT_ALIGN };
