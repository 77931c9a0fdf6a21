// What `nbd zero` and `nbd discard` share: one command over a range, in pieces, with progress.

import type { NbdConnection } from '../index.js';
import { inRange } from '../stream/prefetch.js';
import type { ParsedArguments } from './arguments.js';
import type { CommandContext, OptionSpec } from './command.js';
import { rangeOf } from './map-report.js';
import { PROGRESS_OPTION, withProgress } from './progress.js';
import { parseCount, parseSmallSize, UsageError } from './text.js';

export const RANGE_OPTIONS: readonly OptionSpec[] = [
  { names: ['offset', 'skip'], short: 'o', takes: 'value', value: 'N', help: 'Begin here. Takes k, M, G …' },
  { names: ['length', 'limit'], short: 'n', takes: 'value', value: 'N', help: 'Only so many bytes.' },
  { names: ['fua'], help: 'Each request is on permanent storage before it counts as done.' },
  { names: ['flush'], help: 'Flush at the end.' },
  { names: ['request-size'], takes: 'value', value: 'N', help: 'Bytes of one request. Default 128M.' },
  { names: ['requests'], short: 'R', takes: 'value', value: 'N', help: 'Requests in flight. Default 8.' },
  PROGRESS_OPTION,
];

const DEFAULT_REQUEST = 128 * 1024 * 1024;

/** Runs `command` over the range that the options name. */
export async function erase(
  connection: NbdConnection,
  args: ParsedArguments,
  context: CommandContext,
  command: (count: bigint, offset: bigint) => Promise<void>,
): Promise<void> {
  const range = rangeOf(args, connection.getSize());
  const settings = eraseSettings(args);
  await withProgress(
    args,
    Number(range.length),
    context,
    (done, total) => `incomplete: ${done} of ${total} were done`,
    async (report) => {
      let done = 0;
      await inRange(connection, { ...range, ...settings, signal: context.signal }, async (count, offset) => {
        await command(count, offset);
        done += Number(count);
        report(done);
      });
      if (args.has('flush')) await connection.flush(0, context.signal);
    },
  );
}

function eraseSettings(args: ParsedArguments): { requestSize: number; requests: number } {
  const size = args.value('request-size');
  const requestSize = size === undefined ? DEFAULT_REQUEST : parseSmallSize('request-size', size);
  if (requestSize < 1) throw new UsageError('--request-size: must be at least 1');
  const requests = args.value('requests');
  return { requestSize, requests: requests === undefined ? 8 : parseCount('requests', requests) };
}
