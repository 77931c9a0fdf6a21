// `nbd cache`: prefetch an export, so that a boot or a copy that follows is fast.

import { CONTEXT_BASE_ALLOCATION, NbdError, prefetch, type PrefetchResult } from '../../index.js';
import type { Command } from '../command.js';
import { rangeOf } from '../map-report.js';
import { makeProgress, PROGRESS_OPTION } from '../progress.js';
import { onlyServer, openServer, SERVER } from '../server.js';
import { CliError, duration, parseCount, parseSmallSize, roundSize, UsageError } from '../text.js';
import { visibleJson } from '../../util/visible.js';

export const cache: Command = {
  spec: {
    name: 'cache',
    summary: 'prefetch an export, or a part of it, on the server',
    usage: [`[--offset=N] [--length=N] [--all] [--read] [-p|--progress[=FD]] [--json] ${SERVER}`],
    description: [
      'Asks the server to prefetch (NBD_CMD_CACHE) what holds data, as base:allocation tells, in requests that the ' +
        'server takes, a few at a time. Success says that the server has taken note, not that every byte is there.',
      'A server without the command is an error; --read then warms it by reading everything instead.',
    ],
    options: [
      { names: ['offset'], takes: 'value', value: 'N', help: 'Begin here. Takes k, M, G …' },
      { names: ['length'], takes: 'value', value: 'N', help: 'Only so many bytes.' },
      { names: ['all'], help: 'Holes and zeroes too.' },
      { names: ['read'], help: 'Read and throw away instead of asking for a prefetch.' },
      { names: ['request-size'], takes: 'value', value: 'N', help: 'Bytes of one request. Default 4M.' },
      { names: ['requests'], short: 'R', takes: 'value', value: 'N', help: 'Requests in flight. Default 8.' },
      PROGRESS_OPTION,
      { names: ['quiet'], short: 'q', help: 'No totals at the end.' },
      { names: ['json'], help: 'Print the totals as JSON.' },
    ],
    examples: [
      ['nbd cache nbd://localhost', 'Prefetch what holds data.'],
      ['nbd cache --length 1G nbd://localhost/disk', 'The first GiB.'],
      ['nbd cache --read nbd://localhost', 'Where the server has no cache command.'],
    ],
  },
  async run(args, context) {
    const requestSize = args.value('request-size');
    const requests = args.value('requests');
    if (args.has('json') && args.has('quiet')) throw new UsageError('you cannot use --json and --quiet together');
    const connection = await openServer(onlyServer(args), context, {
      metaContexts: args.has('all') ? [] : [CONTEXT_BASE_ALLOCATION],
    });
    const read = args.has('read');
    if (!read && !connection.canCache()) {
      throw new CliError('the server does not support the cache command (NBD_CMD_CACHE)', {
        hint: 'use --read to warm it by reading',
      });
    }
    const range = rangeOf(args, connection.getSize());
    const progress = await makeProgress(args, Number(range.length), context, !args.has('quiet'));
    const begun = performance.now();
    let last: PrefetchResult = { cached: 0n, skipped: 0n, commands: 0 };
    try {
      await prefetch(connection, {
        ...range,
        read,
        dataOnly: !args.has('all'),
        ...(requestSize === undefined ? {} : { requestSize: positive(parseSmallSize('request-size', requestSize)) }),
        ...(requests === undefined ? {} : { requests: parseCount('requests', requests) }),
        signal: context.signal,
        onProgress: (now) => {
          last = now;
          progress.update(Number(now.cached + now.skipped));
        },
      });
    } catch (error) {
      progress.stop();
      const done = `${roundSize(last.cached)} of ${roundSize(range.length)} were prefetched before`;
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

function totalsLine({ cached, skipped, commands }: PrefetchResult, seconds: number, read: boolean): string {
  const rate = roundSize(Number(cached) / Math.max(seconds, 0.001));
  const left = skipped === 0n ? '' : `, ${roundSize(skipped)} of zeroes left out`;
  return (
    `${roundSize(cached)} ${read ? 'read' : 'prefetched'} in ${commands} requests${left}, ` +
    `${seconds < 10 ? `${seconds.toFixed(2)} s` : duration(seconds)}, ${rate}/s\n`
  );
}
