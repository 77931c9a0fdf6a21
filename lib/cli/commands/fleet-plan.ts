// `nbd fleet plan`: puts the jobs of a manifest into Redis.

import { plan, type PlanProgress } from '../../fleet/index.js';
import type { CliCommand } from '../command.js';
import { CliError, UsageError } from '../errors.js';
import {
  EXPORT_OPTIONS,
  FLEET_OPTIONS,
  fleetOf,
  JSON_OPTION,
  jsonLine,
  MASK_OPTION,
  wordsOf,
} from '../fleet/options.js';
import { type JobDefaults, type Manifest, openManifest } from '../fleet/manifest.js';
import { failureLines } from '../fleet/failures.js';
import { Screen } from '../output/screen.js';
import { connectionSettings } from '../server.js';
import { counted, parseCount, parseSmallSize, roundSize } from '../output/text.js';

const KINDS = ['prefetch', 'copy', 'compare', 'hash', 'backup'];

export const fleetPlan: CliCommand = {
  spec: {
    name: 'fleet plan',
    summary: 'plan copies, backups, comparisons, hashes or prefetches of many exports',
    usage: ['[OPTIONS] MANIFEST | -'],
    description: [
      'Reads a manifest with one job a line, as JSON, asks every export what it contains, cuts that into ranges and ' +
        'puts them into Redis, from where `nbd fleet work` takes them. A line has the keys of a job of the library: ' +
        'kind (prefetch, copy, compare, hash, backup), source, destination, bitmap, rangeSize, limits, verify, ' +
        'readHoles, destinationIsZero. Blank lines, and lines that begin with #, are passed over.',
      'Every line is checked before anything is planned. A job that was planned before is not planned again, so that a ' +
        'plan that was interrupted is completed by running it again.',
      'The exit code is 0 if every job is planned; 1 after an error, and if a line is bad or an export could not be ' +
        'planned, which is in `nbd fleet report` too.',
    ],
    operands: { servers: false, files: true },
    options: [
      {
        names: ['kind'],
        short: 'k',
        takes: 'value',
        value: 'KIND',
        choices: KINDS,
        help: 'The kind of jobs that have none.',
      },
      {
        names: ['range-size'],
        takes: 'value',
        value: 'SIZE',
        help: 'Bytes of one range, a power of 2, for jobs that have no rangeSize. Default 1G.',
      },
      {
        names: ['source-limit'],
        takes: 'value',
        value: 'N',
        help: 'The most ranges at a time, in the whole fleet, that read from one server. Default: no limit.',
      },
      {
        names: ['destination-limit'],
        takes: 'value',
        value: 'N',
        help: 'The most ranges at a time, in the whole fleet, that write to one server. Default: no limit.',
      },
      { names: ['rate'], takes: 'value', value: 'SIZE', help: 'Bytes per second of one range. Default: no limit.' },
      { names: ['no-verify'], help: 'Do not compare source and destination after a copy or backup.' },
      { names: ['skip-bad-lines'], help: 'Plan the good lines even if others are bad. The exit code is still 1.' },
      {
        names: ['concurrency'],
        short: 'c',
        takes: 'value',
        value: 'N',
        help: 'Exports that are asked at a time. Default 8.',
      },
      ...FLEET_OPTIONS,
      MASK_OPTION,
      JSON_OPTION,
      ...EXPORT_OPTIONS,
    ],
    examples: [
      ['nbd fleet plan --fleet weekend exports.jsonl', 'Plans the jobs of a file.'],
      [`echo '{"source":"nbd://nas/golden"}' | nbd fleet plan --kind prefetch -`, 'One job, from standard input.'],
    ],
  },
  async run(args, context) {
    const [path, extra] = wordsOf(args);
    if (path === undefined || extra !== undefined) throw new UsageError('expected one manifest');
    const { redis, options } = fleetOf(context);
    const concurrency = args.value('concurrency');
    const defaults = defaultsOf(context.args);
    const manifest = await openManifest(path, defaults);
    for (const problem of manifest.problems) context.warn(`${path === '-' ? 'standard input' : path}: ${problem}`);
    if (manifest.bad > manifest.problems.length) context.warn(`and ${manifest.bad - manifest.problems.length} more`);
    if (manifest.bad > 0 && !args.has('skip-bad-lines')) throw badLines(manifest);

    const screen = new Screen(process.stderr);
    context.onEnd(() => screen.end());
    const result = await plan(redis, manifest.read(), {
      ...options,
      connection: connectionSettings(context),
      ...(concurrency === undefined ? {} : { concurrency: parseCount('concurrency', concurrency) }),
      onProgress: (progress) => screen.show([statusOf(progress, manifest.jobs)]),
    });
    screen.end();
    if (args.has('json')) await context.out(jsonLine({ ...result.toJSON(), badLines: manifest.bad }));
    else await context.out(`${summaryOf(result)}\n`);
    for (const line of failureLines(result.failures, { id: result.id, isMasked: args.has('mask') })) context.warn(line);
    return result.failed + manifest.bad > 0 ? 1 : 0;
  },
};

function defaultsOf(args: Parameters<CliCommand['run']>[0]): JobDefaults {
  const kind = args.value('kind');
  const size = (name: string): number | undefined => {
    const text = args.value(name);
    return text === undefined ? undefined : parseSmallSize(name, text);
  };
  const count = (name: string): number | undefined => {
    const text = args.value(name);
    return text === undefined ? undefined : parseCount(name, text);
  };
  return {
    kind,
    rangeSize: size('range-size'),
    rate: size('rate'),
    sourceLimit: count('source-limit'),
    destinationLimit: count('destination-limit'),
    verify: args.has('no-verify') ? false : undefined,
  };
}

function badLines({ bad, jobs }: Manifest): CliError {
  return new CliError(`${bad} of ${counted(bad + jobs, 'line')} cannot be planned; nothing was planned`, {
    hint: 'correct them, or use --skip-bad-lines',
  });
}

const statusOf = ({ jobs, failed, ranges, bytes }: PlanProgress, total: number): string =>
  `${jobs} of ${counted(total, 'export')}: ${counted(ranges, 'range')}, ${roundSize(bytes)} of data${failed === 0 ? '' : `, ${failed} failed`}`;

const summaryOf = ({ planned, already, failed, ranges, bytes }: PlanProgress): string =>
  `planned ${counted(planned, 'export')}: ${counted(ranges, 'range')}, ${roundSize(bytes)} of data` +
  (already === 0 ? '' : `; ${already} had been planned before`) +
  (failed === 0 ? '' : `; ${failed} could not be planned`);
