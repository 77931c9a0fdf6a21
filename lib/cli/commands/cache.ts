// `nbd cache`: prefetches an export, so that a boot or a copy that follows is fast.

import { CONTEXT_BASE_ALLOCATION, NbdError, prefetch, type PrefetchProgress } from '../../index.js';
import type { CliCommand } from '../command.js';
import { makeProgress, PROGRESS_OPTION } from '../output/progress.js';
import { blocksAround, givenRange, LAST_BLOCK_MAY_BE_SHORT, RANGE_OPTIONS, rangeOf } from '../range.js';
import { openExport, RECONNECT_OPTIONS } from '../copy/reconnect.js';
import { CONNECT_OPTIONS, DEEP_WINDOW, onlyServer, SERVER } from '../server.js';
import { CliError, duration, parseCount, parseSmallSize, roundSize, UsageError } from '../output/text.js';
import { visibleJson } from '../../util/visible.js';

export const cache: CliCommand = {
  spec: {
    name: 'cache',
    summary: 'prefetch an export, or a part of it, on the server',
    usage: [
      `[-o N|--offset=N] [-n N|--length=N] [--all] [--read] [-p|--progress[=FD]] [--reconnect=SECONDS] [--retry=N] [--json] ${SERVER}`,
    ],
    description: [
      'Asks the server to prefetch (NBD_CMD_CACHE) the parts that contain data according to base:allocation, a few ' +
        'requests at a time. The exit code 0 means that the server accepted every request, not that every byte is ' +
        'already in its cache; after an error, it is 1.',
      'It is an error if the server does not support the command; use --read to warm its cache by reading instead.',
    ],
    options: [
      ...RANGE_OPTIONS,
      { names: ['all'], help: 'Prefetch holes and zeroes too.' },
      { names: ['read'], help: 'Read the data and discard it instead of sending cache commands.' },
      { names: ['request-size'], takes: 'value', value: 'N', help: 'Bytes per request. Default 4M.' },
      {
        names: ['requests'],
        short: 'R',
        takes: 'value',
        value: 'N',
        help: 'Requests in flight. Default: as many as make it faster.',
      },
      PROGRESS_OPTION,
      { names: ['quiet'], short: 'q', help: 'Do not print totals at the end.' },
      { names: ['json'], help: 'Print the totals as JSON.' },
      ...RECONNECT_OPTIONS,
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd cache nbd://localhost', 'Prefetch everything that contains data.'],
      ['nbd cache --length 1G nbd://localhost/disk', 'The first GiB.'],
      ['nbd cache --read nbd://localhost', 'For a server without the cache command.'],
    ],
  },
  async run(args, context) {
    const size = args.value('request-size');
    const requests = args.value('requests');
    const settings = {
      ...(size === undefined ? {} : { requestSize: positive(parseSmallSize('request-size', size)) }),
      ...(requests === undefined ? {} : { requests: parseCount('requests', requests) }),
    };
    givenRange(args);
    if (args.has('json') && args.has('quiet')) throw new UsageError('you cannot use --json and --quiet together');
    const connection = await openExport(onlyServer(args), context, {
      metaContexts: args.has('all') ? [] : [CONTEXT_BASE_ALLOCATION],
      ...LAST_BLOCK_MAY_BE_SHORT,
      ...DEEP_WINDOW,
    });
    const read = args.has('read');
    if (!read && !connection.canCache()) {
      throw new CliError('the server does not support the cache command (NBD_CMD_CACHE)', {
        hint: 'use --read to warm its cache by reading',
      });
    }
    const range = blocksAround(connection, rangeOf(args, connection.getSize()));
    const progress = await makeProgress(args, Number(range.length), context, !args.has('quiet'));
    const begun = performance.now();
    let last: Pick<PrefetchProgress, 'cached' | 'skipped' | 'commands'> = { cached: 0n, skipped: 0n, commands: 0 };
    try {
      await prefetch(connection, {
        ...range,
        read,
        dataOnly: !args.has('all'),
        ...settings,
        signal: context.signal,
        onProgress: (now) => {
          last = now;
          progress.update(Number(now.cached + now.skipped), now);
        },
      });
    } catch (error) {
      progress.stop();
      const done = `incomplete: ${roundSize(last.cached)} of ${roundSize(range.length)} were prefetched`;
      if (context.signal.aborted || error instanceof NbdError) context.warn(done);
      throw error;
    }
    progress.finish();
    const seconds = (performance.now() - begun) / 1000;
    if (args.has('json')) {
      const { cached, skipped, commands } = last;
      const totals = { cached: Number(cached), skipped: Number(skipped), commands, seconds };
      await context.out(`${visibleJson(JSON.stringify(totals))}\n`);
    } else if (!args.has('quiet')) {
      await context.out(totalsLine(last, seconds, read));
    }
  },
};

function positive(value: number): number {
  if (value < 1) throw new UsageError('--request-size: must be at least 1');
  return value;
}

function totalsLine(
  { cached, skipped, commands }: Pick<PrefetchProgress, 'cached' | 'skipped' | 'commands'>,
  seconds: number,
  read: boolean,
): string {
  const rate = roundSize(Number(cached) / Math.max(seconds, 0.001));
  const left = skipped === 0n ? '' : `, ${roundSize(skipped)} of zeroes skipped`;
  return (
    `${roundSize(cached)} ${read ? 'read' : 'prefetched'} in ${commands} requests${left}, ` +
    `${seconds < 10 ? `${seconds.toFixed(2)} s` : duration(seconds)}, ${rate}/s\n`
  );
}
