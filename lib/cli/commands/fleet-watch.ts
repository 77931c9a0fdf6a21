// `nbd fleet watch`: the progress of a fleet, until all of it is settled.

import { watch, type FleetProgress } from '../../fleet/index.js';
import type { CliCommand } from '../command.js';
import { FLEET_OPTIONS, fleetOf, JSON_OPTION, jsonLine, MASK_OPTION, refuseOperands } from '../fleet/options.js';
import { metricsText } from '../fleet/metrics.js';
import { MetricsServer, parseListen } from '../fleet/metrics-server.js';
import { progressLine, progressLines } from '../fleet/table.js';
import { CliError } from '../errors.js';
import { Screen } from '../output/screen.js';
import { parseSeconds } from '../output/text.js';

/** Seconds between two lines where standard output is not a terminal. */
const LOG_PAUSE = 10;

export const fleetWatch: CliCommand = {
  spec: {
    name: 'fleet watch',
    summary: 'show the progress of a fleet, in the terminal or for Prometheus',
    usage: ['[--every=SECONDS] [--forever] [--metrics=[HOST:]PORT] [--mask] [--json] [OPTIONS]'],
    description: [
      'Shows exports, ranges, bytes, rates, workers and servers until every export is done, has failed or was ' +
        'cancelled. On a terminal the lines are redrawn; elsewhere a line is printed every ten seconds.',
      'The exit code is 0 if all exports are done, and 1 otherwise.',
    ],
    operands: { servers: false },
    options: [
      { names: ['every'], takes: 'value', value: 'SECONDS', help: 'Look this often. Default 1, or 10 for a log.' },
      { names: ['forever'], help: 'Go on when all is settled, and while nothing is planned yet.' },
      {
        names: ['metrics'],
        takes: 'value',
        value: '[HOST:]PORT',
        help: 'Serve /metrics for Prometheus on this port, of 127.0.0.1 unless HOST is given; 0 for a free port.',
      },
      ...FLEET_OPTIONS,
      MASK_OPTION,
      { ...JSON_OPTION, help: 'Print a line of JSON for each look.' },
    ],
    examples: [
      ['nbd fleet watch --fleet weekend', 'A table that is redrawn every second.'],
      ['nbd fleet watch --forever --metrics 9106 > /dev/null', 'An exporter for Prometheus.'],
    ],
  },
  endsBySignal: true,
  async run(args, context) {
    refuseOperands(args);
    const { redis, options } = fleetOf(context);
    const screen = new Screen(process.stdout);
    const every = parseSeconds('every', args.value('every') ?? String(screen.isShown ? 1 : LOG_PAUSE));
    const name = args.value('fleet') ?? 'fleet';
    let last: FleetProgress | null = null;
    const listen = args.value('metrics');
    if (listen !== undefined) {
      const server = await MetricsServer.listen(parseListen('metrics', listen), () =>
        last === null ? null : metricsText(name, last),
      );
      context.onEnd(() => server.close());
      context.warn(`metrics on ${server.url}`);
    }
    try {
      const forever = args.has('forever');
      for await (const progress of watch(redis, { ...options, every, forever, mask: args.has('mask') })) {
        last = progress;
        if (args.has('json')) await context.out(jsonLine(progress));
        else if (screen.isShown) screen.show(progressLines(name, progress));
        else await context.out(`${progressLine(name, progress)}\n`);
      }
    } catch (error) {
      if (!context.signal.aborted) throw error;
    } finally {
      screen.end();
    }
    return codeOf(last, name, context.signal.aborted);
  },
};

function codeOf(last: FleetProgress | null, name: string, wasStopped: boolean): number {
  if (last === null || last.id === '') {
    if (wasStopped) return 1;
    throw new CliError(`nothing is planned in the fleet ${name}`, { hint: 'nbd fleet plan, or another --fleet' });
  }
  return last.exports.done === last.exports.total ? 0 : 1;
}
