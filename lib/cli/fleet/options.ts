// The options that all `nbd fleet` commands have.

import type { FleetOptions } from '../../fleet/index.js';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { UsageError } from '../errors.js';
import { CONNECT_OPTIONS } from '../server.js';

const DEFAULT_REDIS = 'redis://127.0.0.1:6379';
/** A URL may contain a password, and the arguments of a process are visible to other users. */
const REDIS_VARIABLE = 'NBD_FLEET_REDIS';

export const FLEET_OPTIONS: readonly OptionSpec[] = [
  {
    names: ['redis'],
    takes: 'value',
    value: 'URL',
    help: `Redis or Valkey: redis:// or rediss://. Default: the variable ${REDIS_VARIABLE}, or ${DEFAULT_REDIS}.`,
  },
  {
    names: ['fleet'],
    short: 'f',
    takes: 'value',
    value: 'NAME',
    help: 'The name of the fleet in Redis. What was done in a fleet is not done again in it. Default fleet.',
  },
];

export const JSON_OPTION: OptionSpec = { names: ['json'], help: 'Print JSON.' };

export const MASK_OPTION: OptionSpec = {
  names: ['mask'],
  help: 'Print short hashes in place of URIs and names of servers, and no messages of servers.',
};

/** What opens an export for planning and for work. A server that is not there yet is tried again anyway. */
export const EXPORT_OPTIONS: readonly OptionSpec[] = CONNECT_OPTIONS.filter(({ names }) => !names.includes('wait'));

export interface FleetArguments {
  readonly redis: string;
  readonly options: FleetOptions;
}

/** Where the fleet is, for the functions of the library. */
export function fleetOf(context: CommandContext): FleetArguments {
  const { args, signal } = context;
  const fleet = args.value('fleet');
  return {
    redis: args.value('redis') ?? process.env[REDIS_VARIABLE] ?? DEFAULT_REDIS,
    options: { signal, ...(fleet === undefined ? {} : { fleet }) },
  };
}

/** For commands without operands. */
export function refuseOperands(args: ParsedArguments): void {
  if (args.operands.length > 0) throw new UsageError('this command takes no operands');
}

/** The words of the operands. */
export function wordsOf(args: ParsedArguments): string[] {
  return args.operands.map((operand) => {
    if ('word' in operand) return operand.word;
    throw new UsageError('a fleet needs URIs that every worker can reach, not [ CMD ]');
  });
}

/** A result of the library as a line of JSON. */
export const jsonLine = (value: object): string => `${JSON.stringify(value)}\n`;
