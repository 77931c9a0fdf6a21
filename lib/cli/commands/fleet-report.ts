// `nbd fleet report`: what succeeded, and what failed and why.

import { type FleetExport, type FleetReport, report } from '../../fleet/index.js';
import type { CliCommand } from '../command.js';
import { CliError } from '../errors.js';
import { failureLines } from '../fleet/failures.js';
import { FLEET_OPTIONS, fleetOf, JSON_OPTION, jsonLine, MASK_OPTION, refuseOperands } from '../fleet/options.js';
import { columns, exportCounts, serverTable } from '../fleet/table.js';
import { visible } from '../../util/visible.js';
import { counted, duration, roundSize } from '../output/text.js';

export const fleetReport: CliCommand = {
  spec: {
    name: 'fleet report',
    summary: 'report what a fleet has done, and what failed and why',
    usage: ['[--exports] [--mask] [--json] [OPTIONS]'],
    description: [
      'Prints totals, a table of the servers, and the failures by reason. With --exports every export is listed, with ' +
        'its identity, which `nbd fleet cancel` and `nbd fleet retry` take, and the block hash of a hash.',
      'The exit code is 0 if all exports are done, and 1 otherwise.',
    ],
    operands: { servers: false },
    options: [
      { names: ['exports'], help: 'List every export, and every failure.' },
      ...FLEET_OPTIONS,
      MASK_OPTION,
      JSON_OPTION,
    ],
    examples: [
      ['nbd fleet report --fleet weekend', 'What was done, and what was not.'],
      ['nbd fleet report --json | jq .failures', 'The failures, for a program.'],
    ],
  },
  async run(args, context) {
    refuseOperands(args);
    const { redis, options } = fleetOf(context);
    const isListing = args.has('exports');
    const found = await report(redis, { ...options, mask: args.has('mask'), exports: isListing || args.has('json') });
    if (found.id === '') {
      throw new CliError(`nothing is planned in the fleet ${args.value('fleet') ?? 'fleet'}`, {
        hint: 'nbd fleet plan, or another --fleet',
      });
    }
    if (args.has('json')) await context.out(jsonLine(found));
    else for (const line of linesOf(found, isListing)) await context.out(`${visible(line)}\n`);
    return found.counts.done === found.counts.total ? 0 : 1;
  },
};

function linesOf(found: FleetReport, isListing: boolean): string[] {
  const { counts, ranges, bytes, moved, rate, time, retries, failures, servers } = found;
  const most = isListing ? Infinity : undefined;
  return [
    exportCounts(counts),
    `${ranges.done} of ${counted(ranges.total, 'range')}, ${roundSize(bytes.done)} of ${roundSize(bytes.total)} of data; ` +
      `${retries} tried again`,
    ...(time === null ? [] : [`${roundSize(moved)} read in ${duration(time / 1000)}, ${roundSize(rate)}/s`]),
    ...(servers.length === 0 ? [] : ['', ...serverTable(servers, most)]),
    ...(failures.length === 0 ? [] : ['', ...failureLines(failures, most === undefined ? {} : { most })]),
    ...(isListing ? ['', ...exportTable(found.exports)] : []),
  ];
}

const exportTable = (exports: readonly FleetExport[]): string[] =>
  columns(
    [
      ['ID', 'KIND', 'STATE', 'EXPORT', 'SIZE', 'DATA', 'DONE', 'VERIFIED', 'HASH'],
      ...exports.map(({ id, kind, state, source, destination, size, bytes, ranges, verified, hash }) => [
        ...[id, kind, state],
        destination === null ? source : `${source} -> ${destination}`,
        ...[roundSize(size), roundSize(bytes.total), `${ranges.done}/${ranges.total}`],
        verified === null ? '-' : `${verified.done}/${verified.total}`,
        hash ?? '-',
      ]),
    ],
    4,
  );
