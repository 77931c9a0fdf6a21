// `nbd fleet work`: a worker, which runs until it is stopped.

import { type FleetRange, type FleetWorker, watch, work, type WorkOptions } from '../../fleet/index.js';
import { makeMask, type Mask } from '../../fleet/mask.js';
import type { ParsedArguments } from '../arguments.js';
import type { CliCommand, CommandContext } from '../command.js';
import {
  EXPORT_OPTIONS,
  FLEET_OPTIONS,
  type FleetArguments,
  fleetOf,
  JSON_OPTION,
  jsonLine,
  MASK_OPTION,
  refuseOperands,
} from '../fleet/options.js';
import { messageOf } from '../output/failure.js';
import { connectionSettings } from '../server.js';
import { counted, duration, parseCount, parseSeconds, parseSmallSize, roundSize } from '../output/text.js';

const DEFAULT_WITHIN = '10';

export const fleetWork: CliCommand = {
  spec: {
    name: 'fleet work',
    summary: 'run a worker that takes ranges from a fleet',
    usage: ['[OPTIONS]'],
    description: [
      'Takes ranges that `nbd fleet plan` has planned, until it is stopped. Any number of workers, on any number of ' +
        'machines, share a fleet; each must reach Redis and all exports.',
      'Ctrl-C and SIGTERM end it in order: ranges that end within --within are finished, the others are put back and ' +
        'continued by other workers at their last checkpoint. A second signal ends it at once.',
      'The exit code is 0 after Ctrl-C or SIGTERM; with --until-settled, 1 if a range has failed for good on this ' +
        'worker; 1 after an error.',
    ],
    operands: { servers: false },
    options: [
      { names: ['concurrency'], short: 'c', takes: 'value', value: 'N', help: 'Ranges at a time. Default 4.' },
      { names: ['until-settled'], help: 'End when all that is planned is done, has failed or was cancelled.' },
      {
        names: ['within'],
        takes: 'value',
        value: 'SECONDS',
        help: `After a signal, how long ranges may take to end before they are put back. Default ${DEFAULT_WITHIN}.`,
      },
      {
        names: ['lease'],
        takes: 'value',
        value: 'SECONDS',
        help: 'How long a range belongs to a worker that does not answer any more. Default 30.',
      },
      {
        names: ['attempts'],
        takes: 'value',
        value: 'N',
        help: 'How often a range is tried, where trying again may help. Default 10.',
      },
      {
        names: ['queue-size'],
        takes: 'value',
        value: 'SIZE',
        help: 'The most bytes in flight of one range. Default 64M.',
      },
      {
        names: ['checkpoint-every'],
        takes: 'value',
        value: 'SIZE',
        help: 'The most bytes that are copied between two checkpoints of a range. Default 256M.',
      },
      {
        names: ['watchdog'],
        help: 'Start a process that kills this one when it does not answer for 85 % of a lease.',
      },
      { names: ['name'], takes: 'value', value: 'NAME', help: 'The name of the worker in reports. Default HOST:PID.' },
      ...FLEET_OPTIONS,
      MASK_OPTION,
      { ...JSON_OPTION, help: 'Print every event as a line of JSON.' },
      ...EXPORT_OPTIONS,
    ],
    examples: [
      ['nbd fleet work --fleet weekend', 'A worker.'],
      ['nbd fleet work --until-settled --concurrency 8', 'One that ends with the work.'],
    ],
  },
  endsBySignal: true,
  async run(args, context) {
    refuseOperands(args);
    const fleet = fleetOf(context);
    const within = parseSeconds('within', args.value('within') ?? DEFAULT_WITHIN);
    // The signal ends the worker in order: it must not reach the library, where it ends the worker at once.
    const { fleet: name } = fleet.options;
    const options = { ...workOptions(args, context), ...(name === undefined ? {} : { fleet: name }) };
    const mask = await maskOf(args, fleet);
    const worker = await work(fleet.redis, options);
    context.onEnd((failed) => (failed ? worker.close() : undefined));
    const stop = (): void => void worker.shutdown({ within });
    if (context.signal.aborted) stop();
    else context.signal.addEventListener('abort', stop);
    if (args.has('json')) printEvents(worker, context, mask);
    else logEvents(worker, context, mask);
    context.warn(`worker ${mask.name(worker.name)} is ready`);
    const result = await worker.done;
    context.warn(
      `ended: ${counted(result.ranges, 'range')} done, ${roundSize(result.moved)} read, ${result.retries} tried again, ` +
        `${result.failures} failed, ${result.lost} given up`,
    );
    return args.has('until-settled') && result.failures > 0 ? 1 : 0;
  },
};

function workOptions(args: ParsedArguments, context: CommandContext): WorkOptions {
  const given = <Value>(name: string, parse: (option: string, text: string) => Value): Value | undefined => {
    const text = args.value(name);
    return text === undefined ? undefined : parse(name, text);
  };
  const all = {
    concurrency: given('concurrency', parseCount),
    attempts: given('attempts', parseCount),
    lease: given('lease', parseSeconds),
    queueSize: given('queue-size', parseSmallSize),
    checkpointEvery: given('checkpoint-every', parseSmallSize),
    name: args.value('name'),
  };
  return {
    ...(Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as WorkOptions),
    untilSettled: args.has('until-settled'),
    watchdog: args.has('watchdog'),
    connection: connectionSettings(context),
  };
}

/** Masks are keyed with the identity of the fleet, so that they are those of reports. */
async function maskOf(args: ParsedArguments, { redis, options }: FleetArguments): Promise<Mask> {
  if (!args.has('mask')) return makeMask(false, '');
  for await (const { id } of watch(redis, options)) return makeMask(true, id);
  return makeMask(true, '');
}

function logEvents(worker: FleetWorker, context: CommandContext, mask: Mask): void {
  const what = (range: FleetRange): string => {
    const { kind, source, destination, offset, length, phase } = range;
    const ends = destination === null ? mask.name(source) : `${mask.name(source)} -> ${mask.name(destination)}`;
    return `${kind}${phase === 'verify' ? ', verifying' : ''}: ${ends}, ${roundSize(length)} at ${offset}`;
  };
  if (context.verbose) {
    worker.on('begin', (range) => context.warn(`${what(range)}: begun`));
    worker.on('done', (range) => context.warn(`${what(range)}: done in ${duration(range.time / 1000)}`));
  }
  worker.on('retry', (range) => {
    context.warn(`${what(range)}: attempt ${range.attempt} failed: ${mask.reason(range.reason).message}`);
  });
  worker.on('failed', (range) => {
    context.warn(`${what(range)}: failed for good: ${mask.reason(range.reason).message}`);
  });
  worker.on('lost', (range) => context.warn(`${what(range)}: given up: ${range.why}`));
  worker.on('export', (id, state) => context.warn(`export ${id}: ${state}`));
  worker.on('away', (error) => context.warn(`Redis cannot be reached: ${messageOf(error)}`));
  worker.on('back', () => context.warn('Redis can be reached again'));
}

function printEvents(worker: FleetWorker, context: CommandContext, mask: Mask): void {
  const print = (event: string, detail: object): void => {
    // A reader that has gone away ends the command when it ends.
    context.out(jsonLine({ event, ...detail })).catch(() => undefined);
  };
  const range = (each: FleetRange): object => ({
    ...Object.fromEntries(
      Object.entries(each).map(([key, value]) => [key, typeof value === 'bigint' ? String(value) : (value as unknown)]),
    ),
    source: mask.name(each.source),
    destination: each.destination === null ? null : mask.name(each.destination),
  });
  worker.on('begin', (each) => print('begin', range(each)));
  worker.on('done', (each) => print('done', range(each)));
  worker.on('retry', (each) => print('retry', { ...range(each), reason: mask.reason(each.reason) }));
  worker.on('failed', (each) => print('failed', { ...range(each), reason: mask.reason(each.reason) }));
  worker.on('lost', (each) => print('lost', range(each)));
  worker.on('export', (id, state) => print('export', { id, state }));
  worker.on('away', (error) => print('away', { message: messageOf(error) }));
  worker.on('back', () => print('back', {}));
}
