// `nbd fleet cancel`, `retry`, `pause`, `resume` and `remove`.

import { cancel, pause, remove, resume, retry } from '../../fleet/index.js';
import type { CliCommand, CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { UsageError } from '../errors.js';
import { FLEET_OPTIONS, fleetOf, JSON_OPTION, jsonLine, refuseOperands, wordsOf } from '../fleet/options.js';
import { counted } from '../output/text.js';

const ALL_OPTION: OptionSpec = { names: ['all'], help: 'All exports of the fleet.' };

/** The identities on the command line; undefined for all exports. What was forgotten must not mean all. */
function selection(context: CommandContext): { ids?: readonly string[] } {
  const ids = wordsOf(context.args);
  if (context.args.has('all') === ids.length > 0) {
    throw new UsageError('expected identities of exports, or --all', {
      hint: 'nbd fleet report --exports lists the identities',
    });
  }
  return ids.length > 0 ? { ids } : {};
}

export const fleetCancel: CliCommand = {
  spec: {
    name: 'fleet cancel',
    summary: 'cancel exports of a fleet that are not settled',
    usage: ['ID ... | --all [--json] [OPTIONS]'],
    description: [
      'Workers stop within a third of their lease. What was copied by then stays at the destination; `nbd fleet retry` ' +
        'continues it.',
    ],
    operands: { servers: false },
    options: [ALL_OPTION, ...FLEET_OPTIONS, JSON_OPTION],
    examples: [
      ['nbd fleet cancel 5f2c9a0b1d3e4f567890', 'One export.'],
      ['nbd fleet cancel --all --fleet weekend', 'Everything that is not settled.'],
    ],
  },
  async run(args, context) {
    const { redis, options } = fleetOf(context);
    const result = await cancel(redis, { ...options, ...selection(context) });
    await context.out(args.has('json') ? jsonLine(result) : `cancelled ${counted(result.exports, 'export')}\n`);
  },
};

export const fleetRetry: CliCommand = {
  spec: {
    name: 'fleet retry',
    summary: 'try again what failed in a fleet, and continue what was cancelled',
    usage: ['ID ... | --all [--json] [OPTIONS]'],
    description: ['What could not be planned is planned again by `nbd fleet plan` with the same manifest.'],
    operands: { servers: false },
    options: [ALL_OPTION, ...FLEET_OPTIONS, JSON_OPTION],
    examples: [['nbd fleet retry --all --fleet weekend', 'After the cause has been removed.']],
  },
  async run(args, context) {
    const { redis, options } = fleetOf(context);
    const result = await retry(redis, { ...options, ...selection(context) });
    await context.out(
      args.has('json')
        ? jsonLine(result)
        : `put back ${counted(result.ranges, 'range')} of ${counted(result.exports, 'export')}, of which ${result.failed} had failed\n`,
    );
  },
};

const simple = (
  name: 'pause' | 'resume' | 'remove',
  summary: string,
  description: string,
  example: string,
): CliCommand => ({
  spec: {
    name: `fleet ${name}`,
    summary,
    usage: ['[OPTIONS]'],
    description: [description],
    operands: { servers: false },
    options: [...FLEET_OPTIONS],
    examples: [[`nbd fleet ${name} --fleet weekend`, example]],
  },
  async run(args, context) {
    refuseOperands(args);
    const { redis, options } = fleetOf(context);
    await { pause, resume, remove }[name](redis, options);
  },
});

export const fleetPause = simple(
  'pause',
  'let workers take no more ranges',
  'Ranges that are being worked on are finished.',
  'Nothing new is begun until `nbd fleet resume`.',
);

export const fleetResume = simple('resume', 'let workers take ranges again', 'Reverts `nbd fleet pause`.', 'Goes on.');

export const fleetRemove = simple(
  'remove',
  'remove a fleet from Redis',
  'Removes everything that Redis has of the fleet, its results included. Workers that work on it end with an error.',
  'When the report has been kept elsewhere.',
);
