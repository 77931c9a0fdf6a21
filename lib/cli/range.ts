// --offset and --length, which mean the same in every command, and the server's blocks around a range.

import { type NbdConnection, SIZE_MINIMUM, STRICT_ALIGN, STRICT_MASK } from './sdk.js';
import type { ParsedArguments } from './arguments.js';
import type { OptionSpec } from './command-spec.js';
import { CliError } from './errors.js';
import { parseSize } from './output/text.js';

/** Bytes, as bigint: an export may have up to 2^63 - 1 of them. */
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
    help: 'Number of bytes (suffixes k, M, G …). Default: up to the end of the export.',
  },
];

/** The sizes that --offset and --length were given; throws UsageError for what is not a size. */
export function givenRange(args: ParsedArguments): { offset: bigint; length: bigint | undefined } {
  const offset = args.value('offset');
  const length = args.value('length');
  return {
    offset: offset === undefined ? 0n : parseSize('offset', offset),
    length: length === undefined ? undefined : parseSize('length', length),
  };
}

/** The range that --offset and --length name. One that leaves the export is an error. */
export function rangeOf(args: ParsedArguments, size: bigint): Range {
  const { offset, length } = givenRange(args);
  if (offset > size) throw new CliError(`--offset: ${offset} is beyond the end of the export, ${size} bytes`);
  const rest = size - offset;
  if (length === undefined) return { offset, length: rest };
  if (length > rest) {
    throw new CliError(
      `--length: ${length} bytes from offset ${offset} are more than the export has: it ends at ${size}`,
      { hint: `${rest} bytes are left from there; without --length all of them are used` },
    );
  }
  return { offset, length };
}

/** The smallest block that the server reads, writes and maps. */
export const minimumBlock = (connection: NbdConnection): bigint =>
  BigInt(Math.max(connection.getBlockSize(SIZE_MINIMUM), 1));

/** A range made larger, so that it begins and ends between blocks, or at the end of the export. */
export function blocksAround(connection: NbdConnection, { offset, length }: Range): Range {
  const block = minimumBlock(connection);
  const size = connection.getSize();
  const start = offset - (offset % block);
  const end = offset + length + block - 1n;
  const wholeEnd = end - (end % block);
  return { offset: start, length: (wholeEnd < size ? wholeEnd : size) - start };
}

/** The last block of an export may be shorter than the server's minimum: then the server decides, not the client. */
export const LAST_BLOCK_MAY_BE_SHORT = { strictMode: STRICT_MASK & ~STRICT_ALIGN };
