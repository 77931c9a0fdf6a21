// --reconnect and --retry: an export that the command goes on with when its server was away, as a pool.

import type { NbdConnection, NbdConnectionOptions, NbdPool, NbdPoolOptions } from '../../index.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { messageOf } from '../output/failure.js';
import { parseCount, parseSeconds } from '../output/text.js';
import { connectionSettings, describeConnection, end, isUri, openServer, waitTime } from '../server.js';

export const RECONNECT_OPTIONS: readonly OptionSpec[] = [
  {
    names: ['reconnect'],
    takes: 'value',
    value: 'SECONDS',
    yields: true,
    help:
      'When a connection is lost, try this long to connect again, and issue its commands again. --timeout is 30 then, ' +
      'unless it is given. Not for a server that was started with [ CMD ]. Default 0: end with an error.',
  },
  {
    names: ['retry'],
    takes: 'value',
    value: 'N',
    yields: true,
    help: 'When the server answers a command with EIO, try it up to N times again. Default 0.',
  },
];

/** Either has the facts and the commands of an export. */
export type OpenExport = NbdConnection | NbdPool;

interface Persistence {
  /** Milliseconds; 0 for not at all. */
  readonly reconnect: number;
  readonly retry: number;
}

function persistenceOf(args: ParsedArguments): Persistence {
  const reconnect = args.value('reconnect');
  const retry = args.value('retry');
  return {
    reconnect: reconnect === undefined ? 0 : parseSeconds('reconnect', reconnect),
    retry: retry === undefined ? 0 : parseCount('retry', retry, 0),
  };
}

/** Whether the end is a pool, which keeps account of what it has written and not flushed. */
export const isPool = (connection: OpenExport): connection is NbdPool => 'statistics' in connection;

/**
 * Opens an export: with --reconnect or --retry a pool of up to `connections`, else one connection. A server that is
 * started for this command has one connection, which nothing replaces: started again it may not have the same contents.
 */
export async function openExport(
  operand: Operand,
  context: CommandContext,
  options: NbdConnectionOptions = {},
  connections = 1,
): Promise<OpenExport> {
  const persistence = persistenceOf(context.args);
  const isWanted = persistence.reconnect > 0 || persistence.retry > 0;
  if (!isWanted || !isUri(operand)) return openServer(operand, context, options);
  return openPool(operand.word, context, persistence, { ...options, connections });
}

async function openPool(
  uri: string,
  context: CommandContext,
  { reconnect, retry }: Persistence,
  options: NbdPoolOptions,
): Promise<NbdPool> {
  // Commands that have no use for it start faster without it.
  const { NbdPool } = await import('../../pool/pool.js');
  const pool = await NbdPool.connect(uri, {
    // A server that is frozen counts as away. Where nothing replaces a connection, the default is that of a connection.
    ...(reconnect > 0 ? {} : { requestTimeout: 0 }),
    ...connectionSettings(context),
    ...options,
    waitFor: waitTime(context),
    reconnect: reconnect > 0 ? { within: reconnect } : false,
    retry: retry > 0 ? { attempts: retry } : false,
    signal: context.signal,
  });
  context.onEnd((failed) => end(pool, failed, context));
  if (reconnect > 0) {
    pool.on('away', ({ error }) => {
      const why = error === undefined ? 'the server has closed it' : messageOf(error);
      context.warn(`${uri}: the connection was lost: ${why}; trying for ${reconnect / 1000} s to connect again`);
    });
    pool.on('back', ({ milliseconds }) => {
      context.warn(`${uri}: connected again after ${(milliseconds / 1000).toFixed(1)} s`);
    });
  }
  if (context.verbose) {
    pool.on('retry', ({ method, offset, error, attempt }) => {
      context.warn(
        `${uri}: ${method} at offset ${offset} is tried again (${attempt} of ${retry}): ${messageOf(error)}`,
      );
    });
    await describeConnection(pool, context);
  }
  return pool;
}
