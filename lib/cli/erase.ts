// The common part of `nbd zero` and `nbd discard`: asking for confirmation, --check, and running one command over a
// range in pieces, with progress.

import { createInterface } from 'node:readline';
import type { NbdConnection } from '../index.js';
import { inRange } from '../bulk/prefetch.js';
import { isAllZero } from '../bulk/zeroes.js';
import type { Operand, ParsedArguments } from './arguments.js';
import type { CommandContext } from './command.js';
import type { OptionSpec } from './command-spec.js';
import { CliError } from './errors.js';
import { mapRuns } from './map/runs.js';
import { PROGRESS_OPTION, withProgress } from './output/progress.js';
import { givenRange, LAST_BLOCK_MAY_BE_SHORT, minimumBlock, type Range, RANGE_OPTIONS, rangeOf } from './range.js';
import { readRange } from './read-range.js';
import { CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CONTEXT_BASE_ALLOCATION, STATE_HOLE } from './sdk.js';
import { CONNECT_OPTIONS, onlyServer, openServer } from './server.js';
import { parseCount, parseSmallSize, UsageError } from './output/text.js';

export const ERASE_OPTIONS: readonly OptionSpec[] = [
  ...RANGE_OPTIONS,
  {
    names: ['yes'],
    short: 'y',
    help: 'Do not ask for confirmation. Required if standard input is not a terminal.',
  },
  { names: ['quiet'], short: 'q', help: 'Do not print the result of --check, only return the exit code.' },
  { names: ['fua'], help: 'Complete each request only when it is on permanent storage (NBD_CMD_FLAG_FUA).' },
  { names: ['flush'], help: 'Flush at the end.' },
  { names: ['request-size'], takes: 'value', value: 'N', help: 'Bytes of one request. Default 128M.' },
  { names: ['requests'], short: 'R', takes: 'value', value: 'N', help: 'Requests in flight. Default 8.' },
  PROGRESS_OPTION,
  ...CONNECT_OPTIONS,
];

/** Exit code of --check for "no". */
const NO = 2;
const DEFAULT_REQUEST = 128 * 1024 * 1024;

/** The operation on the range. */
export type Erasure = 'zero' | 'discard';

/** Runs `nbd zero` or `nbd discard`. Resolves with the exit code. */
export async function erase(args: ParsedArguments, context: CommandContext, how: Erasure): Promise<number> {
  const server = onlyServer(args);
  const settings = eraseSettings(args);
  givenRange(args);
  if (args.has('check')) return check(args, context, how, server);
  if (args.has('quiet') && args.has('progress')) {
    throw new UsageError('you cannot use --quiet and --progress together');
  }
  if (!args.has('yes') && !process.stdin.isTTY) {
    throw new CliError('this command erases data and standard input is not a terminal: --yes is required', {
      hint: 'add -y if the data in the range is no longer needed',
    });
  }
  const connection = await openServer(server, context, LAST_BLOCK_MAY_BE_SHORT);
  checkAble(connection, how, args);
  const range = rangeOf(args, connection.getSize());
  checkBlocks(connection, range);
  if (!args.has('yes')) await confirm(server, range, connection.getSize(), context);
  await withProgress(
    args,
    Number(range.length),
    context,
    (done, total) => `incomplete: ${done} of ${total} were ${how === 'zero' ? 'zeroed' : 'discarded'}`,
    async (report) => {
      const command = commandOf(connection, how, args, context.signal);
      let done = 0;
      await inRange(connection, { ...range, ...settings, signal: context.signal }, async (count, offset) => {
        await command(count, offset);
        done += Number(count);
        report(done);
      });
      if (args.has('flush')) await connection.flush(0, context.signal);
    },
  );
  return 0;
}

function eraseSettings(args: ParsedArguments): { requestSize: number; requests: number } {
  const size = args.value('request-size');
  const requestSize = size === undefined ? DEFAULT_REQUEST : parseSmallSize('request-size', size);
  if (requestSize < 1) throw new UsageError('--request-size: must be at least 1');
  const requests = args.value('requests');
  return { requestSize, requests: requests === undefined ? 8 : parseCount('requests', requests) };
}

/** Reports what would make the command fail half-way before any byte is changed. */
function checkAble(connection: NbdConnection, how: Erasure, args: ParsedArguments): void {
  if (connection.isReadOnly()) {
    throw new CliError(`the export is read-only, cannot ${how === 'zero' ? 'write to it' : 'discard data'}`);
  }
  if (how === 'zero' && !connection.canZero()) {
    throw new CliError('the server does not support zeroing (NBD_CMD_WRITE_ZEROES)');
  }
  if (how === 'discard' && !connection.canTrim()) {
    throw new CliError('the server does not support discarding (NBD_CMD_TRIM)');
  }
  if (args.has('fast-zero') && !connection.canFastZero()) {
    throw new CliError('--fast-zero: the server does not support it (NBD_CMD_FLAG_FAST_ZERO)');
  }
  if (args.has('fua') && !connection.canFua()) {
    throw new CliError('--fua: the server does not support it (NBD_CMD_FLAG_FUA)', { hint: 'use --flush instead' });
  }
  if (args.has('flush') && !connection.canFlush()) {
    throw new CliError('--flush: the server does not support it (NBD_CMD_FLUSH)');
  }
}

function checkBlocks(connection: NbdConnection, { offset, length }: Range): void {
  const block = minimumBlock(connection);
  const end = offset + length;
  if (offset % block === 0n && (end % block === 0n || end === connection.getSize())) return;
  throw new CliError(`bytes ${offset} to ${end} begin or end within a block: the server's block size is ${block}`, {
    hint: '--offset and --length must be multiples of the block size',
  });
}

async function confirm(server: Operand, range: Range, size: bigint, { signal }: CommandContext): Promise<void> {
  const name = 'word' in server ? server.word : `[ ${server.command.join(' ')} ]`;
  const what = range.length === size ? 'everything on ' : '';
  const bytes = range.length === 0n ? 'no bytes' : `bytes ${range.offset} - ${range.offset + range.length - 1n}`;
  // The question is nbdzero's and nbddiscard's, word for word.
  const answer = await ask(`PERMANENTLY ERASE ${what}${name} ${bytes} (y/N)? `, signal);
  if (!/^y(es)?$/i.test(answer.trim())) throw new CliError('not confirmed: nothing was changed');
}

/** Reads a line from the terminal; an empty one at the end of the input. */
function ask(question: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    // With `terminal`, readline would consume Ctrl-C; without it, Ctrl-C sends a signal as usual.
    const lines = createInterface({ input: process.stdin, terminal: false });
    const onAbort = (): void => {
      reject(signal.reason as Error);
      lines.close();
    };
    signal.addEventListener('abort', onAbort);
    lines.once('line', (line) => {
      resolve(line);
      lines.close();
    });
    lines.once('close', () => {
      signal.removeEventListener('abort', onAbort);
      resolve('');
    });
    process.stderr.write(question);
  });
}

function commandOf(
  connection: NbdConnection,
  how: Erasure,
  args: ParsedArguments,
  signal: AbortSignal,
): (count: bigint, offset: bigint) => Promise<void> {
  const fua = args.has('fua') ? CMD_FLAG_FUA : 0;
  if (how === 'discard') return (count, offset) => connection.trim(count, offset, fua, signal);
  const flags = fua | (args.has('allocate') ? CMD_FLAG_NO_HOLE : 0) | (args.has('fast-zero') ? CMD_FLAG_FAST_ZERO : 0);
  return (count, offset) => connection.zero(count, offset, flags, signal);
}

/** Checks whether the range is already in the state that the command produces: sparse, or all zeroes. */
async function check(args: ParsedArguments, context: CommandContext, how: Erasure, server: Operand): Promise<number> {
  const connection = await openServer(server, context, {
    metaContexts: [CONTEXT_BASE_ALLOCATION],
    ...LAST_BLOCK_MAY_BE_SHORT,
  });
  const range = rangeOf(args, connection.getSize());
  if (how === 'discard' && !connection.canMetaContext(CONTEXT_BASE_ALLOCATION)) {
    throw new CliError('--check: the server does not report holes (base:allocation)');
  }
  const found = await (how === 'zero' ? firstNonZero : firstAllocated)(connection, range, context.signal);
  if (!args.has('quiet')) {
    const what = how === 'zero' ? ['reads as zero', 'not zero'] : ['sparse', 'not sparse'];
    await context.out(found === null ? `${what[0] ?? ''}\n` : `${what[1] ?? ''}: byte ${found}\n`);
  }
  return found === null ? 0 : NO;
}

/** Offset of the first byte that is not zero; null if there is none. */
async function firstNonZero(connection: NbdConnection, range: Range, signal: AbortSignal): Promise<bigint | null> {
  let offset = range.offset;
  for await (const { bytes, length } of readRange(connection, range, signal)) {
    if (bytes !== null && !isAllZero(bytes, 0, bytes.length)) {
      return offset + BigInt(bytes.findIndex((byte) => byte !== 0));
    }
    offset += length;
  }
  return null;
}

/** Offset of the first byte that is not in a hole; null if there is none. */
async function firstAllocated(connection: NbdConnection, range: Range, signal: AbortSignal): Promise<bigint | null> {
  for await (const runs of mapRuns(connection, CONTEXT_BASE_ALLOCATION, range, signal)) {
    for (const { offset, type } of runs) if ((type & BigInt(STATE_HOLE)) === 0n) return offset;
  }
  return null;
}
