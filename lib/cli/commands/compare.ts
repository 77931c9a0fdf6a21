// `nbd compare`: checks whether two exports, or an export and a file, contain the same bytes.

import { compare as compareExports, type CompareResult } from '../../index.js';
import type { CliCommand } from '../command.js';
import { UsageError } from '../errors.js';
import { openSource, sizeOf, sourceOf } from '../copy/ends.js';
import { RECONNECT_OPTIONS } from '../copy/reconnect.js';
import { PROGRESS_OPTION, withProgress } from '../output/progress.js';
import { givenRange, RANGE_OPTIONS, rangeOf } from '../range.js';
import { CONNECT_OPTIONS } from '../server.js';
import { CliError, roundSize } from '../output/text.js';
import { visibleJson } from '../../util/visible.js';

export const compare: CliCommand = {
  spec: {
    name: 'compare',
    summary: 'compare two exports, or an export and a file',
    usage: [
      '[--stop] [-o N|--offset=N] [-n N|--length=N] [--trailing-zeroes] [--no-extents] [-p|--progress[=FD]] ' +
        '[-q|--quiet | --json] [--reconnect=SECONDS] [--retry=N] [--timeout=SECONDS] [--connect-timeout=SECONDS] [--export-name-only] ' +
        '[--wait=SECONDS] A B',
      '',
      'A, B := FILE | DEVICE | NBD-URI | [ CMD ARGS ... ]',
    ],
    description: [
      'Parts that are known to be zero on both sides are not read. The exit code is 0 if both are the same, 2 if they ' +
        'differ in a byte or in size, and 1 after an error.',
    ],
    operands: { files: true },
    options: [
      ...RANGE_OPTIONS,
      {
        names: ['trailing-zeroes'],
        help: 'Treat zeroes behind the end of the shorter one as equal.',
      },
      { names: ['stop'], help: 'Stop at the first difference instead of counting all differing bytes.' },
      { names: ['no-extents'], help: 'Read everything, including holes.' },
      PROGRESS_OPTION,
      { names: ['quiet'], short: 'q', help: 'Print nothing, only return the exit code.' },
      { names: ['json'], help: 'Print JSON.' },
      ...RECONNECT_OPTIONS,
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd compare nbd://old/disk nbd://new/disk', 'After a migration.'],
      ['nbd compare -q disk.img nbd://localhost && echo same', 'In a script.'],
    ],
  },
  async run(args, context) {
    const [a, b, extra] = args.operands;
    if (a === undefined || b === undefined || extra !== undefined) throw new UsageError('expected two operands');
    givenRange(args);
    if (args.has('quiet') && args.has('json')) throw new UsageError('you cannot use --json and --quiet together');
    const ends = [await openSource(a, context), await openSource(b, context)] as const;
    const sources = [];
    for (const end of ends) {
      const size = await sizeOf(end);
      if (size === null) throw new CliError(`${end.name}: cannot compare a pipe`);
      sources.push(await sourceOf(end, size, end.kind === 'nbd' ? [end.connection] : []));
    }
    const [from, to] = sources;
    if (from === undefined || to === undefined) throw new UsageError('expected two operands');
    const isPadded = args.has('trailing-zeroes');
    const sizes = [from, to].map(({ size }) => BigInt(size)).sort((one, other) => (one < other ? -1 : 1));
    const { offset, length } = rangeOf(args, sizes[isPadded ? 1 : 0] ?? 0n);
    const result = await withProgress(
      args,
      Number(length),
      context,
      (done, total) => `the comparison is incomplete: ${done} of ${total} were compared`,
      (report) =>
        compareExports(from, to, {
          offset,
          ...(args.has('length') ? { length } : {}),
          trailingZeroes: isPadded ? 'equal' : 'differ',
          extents: !args.has('no-extents'),
          stopAtFirst: args.has('stop'),
          signal: context.signal,
          onProgress: (now) => report(now.done, now),
        }),
    );
    if (args.has('json')) await context.out(`${visibleJson(JSON.stringify(result))}\n`);
    else if (!args.has('quiet')) await context.out(describe(result, args.has('stop')));
    return result.equal ? 0 : 2;
  },
};

function describe(result: CompareResult, stopped: boolean): string {
  const { equal, sizes, firstDifference, differing, compared, skipped } = result;
  const lines: string[] = [];
  if (sizes[0] !== sizes[1]) lines.push(`sizes differ: ${sizes[0]} and ${sizes[1]} bytes`);
  if (firstDifference !== null) {
    lines.push(`first difference at byte ${firstDifference} (0x${firstDifference.toString(16)})`);
    if (!stopped) lines.push(`${differing} of ${compared} bytes differ`);
  } else if (sizes[0] !== sizes[1]) {
    lines.push(`the first ${compared} bytes are the same`);
  }
  if (equal) lines.push(`the same: ${compared} bytes, of which ${roundSize(skipped)} of zeroes were not read`);
  return `${lines.join('\n')}\n`;
}
