// What the functions of a fleet take in common.

import type { NbdTarget } from '../client/connect/targets.js';
import type { NbdPoolOptions } from '../pool/options.js';
import {
  aFunction,
  anAbortSignal,
  anObject,
  checkOptions,
  milliseconds,
  type OptionTable,
} from '../util/option-checks.js';
import type { EndOptions, FleetEnd } from './ends.js';
import { aFleetName, DEFAULT_FLEET } from './redis/keys.js';
import { Store } from './redis/store.js';
import { aRedis } from './redis/target.js';

/** What every function of a fleet takes. */
export interface FleetOptions {
  /**
   * The name of the fleet in Redis: letters, digits, dots, dashes and underscores. What was done in a fleet is not done
   * again in it, so that every campaign (a weekend, a nightly run) has a name of its own. Default `fleet`.
   */
  fleet?: string;
  /** Milliseconds within which Redis has to answer the first time; 0 or Infinity: no limit. Default 10,000. */
  connectTimeout?: number;
  /** Aborts the work, which rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** How a planner and a worker open exports. */
export interface FleetConnectOptions {
  /**
   * Options of the pools, such as certificates for TLS. They stay in the process, and do not come into Redis. `signal`
   * is not among them.
   */
  connection?: NbdPoolOptions;
  /**
   * Makes a target of what a job has as `source` or `destination`: the jobs then contain names, and Redis no URIs.
   * Default: both are NBD URIs.
   */
  resolve?: (name: string, end: FleetEnd) => NbdTarget | Promise<NbdTarget>;
}

const DEFAULT_TIMEOUT = 10_000;

export const FLEET_OPTIONS: OptionTable<FleetOptions> = {
  fleet: aFleetName,
  connectTimeout: milliseconds,
  signal: anAbortSignal,
};

export const CONNECT_OPTIONS: OptionTable<FleetConnectOptions> = { connection: anObject, resolve: aFunction };

/** Checks the options of a function, and where Redis is; connects. */
export async function openFleet<Options extends FleetOptions>(
  syscall: string,
  redis: unknown,
  options: unknown,
  table: OptionTable<Options>,
): Promise<{ store: Store; checked: Partial<Options> }> {
  const checked = checkOptions<Options>(syscall, options, table);
  const store = await storeFor(syscall, redis, checked);
  return { store, checked };
}

/** Connects for checked options. */
export function storeFor(syscall: string, redis: unknown, checked: Partial<FleetOptions>): Promise<Store> {
  const connection = aRedis(`${syscall}: redis`, redis);
  checked.signal?.throwIfAborted();
  return Store.open({
    connection,
    syscall,
    fleet: checked.fleet ?? DEFAULT_FLEET,
    timeout: checked.connectTimeout ?? DEFAULT_TIMEOUT,
    signal: checked.signal,
  });
}

/** How exports are opened, for checked options. */
export const endOptionsOf = ({ connection, resolve }: Partial<FleetConnectOptions>): EndOptions => ({
  connection: connection ?? {},
  resolve: resolve ?? null,
});
