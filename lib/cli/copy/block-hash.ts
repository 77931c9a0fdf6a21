// `nbd copy --blkhash`: nbdcopy's options for a hash that is computed during the copy.

import { BlockHasher, NbdStrictError } from '../../index.js';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { UsageError } from '../errors.js';
import { parseSmallSize } from '../output/text.js';
import { writeWhole } from '../output/whole-file.js';

export const BLOCK_HASH_OPTIONS: readonly OptionSpec[] = [
  {
    names: ['blkhash'],
    takes: 'optional',
    value: 'ALG[/SIZE]',
    choices: ['sha256/64k', 'sha512/64k', 'sha1/64k', 'md5/64k'],
    help:
      'Print the block hash of the copied data: an algorithm (md5, sha1, sha256, sha512 …) and a block size. ' +
      'Default sha256/64k.',
  },
  {
    names: ['blkhash-file'],
    takes: 'value',
    value: 'FILE',
    help: 'Write the block hash to a file instead of standard output; implies --blkhash.',
  },
];

/** The hasher that the options request; null if they request none. */
export function blockHasher(args: ParsedArguments): BlockHasher | null {
  if (!args.has('blkhash') && !args.has('blkhash-file')) return null;
  const file = args.value('blkhash-file');
  if (file === '') throw new UsageError('--blkhash-file: expected a file name');
  const text = args.value('blkhash') ?? 'sha256';
  const [algorithm = '', size, ...more] = text.split('/');
  if (algorithm === '' || more.length > 0) {
    throw new UsageError(`--blkhash: could not parse: ${text}`, { hint: 'use ALG or ALG/SIZE, such as sha256/64k' });
  }
  try {
    return new BlockHasher({
      algorithm: algorithm.toLowerCase(),
      ...(size === undefined ? {} : { blockSize: parseSmallSize('blkhash', size) }),
    });
  } catch (cause) {
    if (!(cause instanceof NbdStrictError)) throw cause;
    throw new UsageError(`--blkhash: ${text}: ${cause.message}`, { cause });
  }
}

/** Prints the hash, or writes it to the file. Called once the copy is complete. */
export async function showBlockHash(
  hasher: BlockHasher,
  args: ParsedArguments,
  context: CommandContext,
): Promise<void> {
  const line = `${await hasher.digest()}\n`;
  const file = args.value('blkhash-file');
  if (file === undefined) await context.out(line);
  else await writeWhole(file, line);
}
