// Which Redis: a URL, options, or a client. Invariant: a client of the caller's own is used and not closed.

import { aFunction, anObject, type OptionCheck, refuse, shown, wholeNumber } from '../../util/option-checks.js';

/** Options of a connection to Redis, as ioredis takes them. */
export interface FleetRedisOptions {
  /** Default `127.0.0.1`. */
  host?: string;
  /** Default 6379. */
  port?: number;
  /** A Unix socket, in place of host and port. */
  path?: string;
  /** For Redis with access control lists. */
  username?: string;
  /** The password. */
  password?: string;
  /** Number of the database. Default 0. */
  db?: number;
  /** Options of `tls.connect`. */
  tls?: object;
  /** Anything else that ioredis takes. */
  [option: string]: unknown;
}

/** A client as ioredis has it. It must have been made with `maxRetriesPerRequest: null`. */
export interface FleetRedisClient {
  /** As of ioredis. */
  connect(...args: never[]): unknown;
  /** As of ioredis. */
  disconnect(...args: never[]): unknown;
  /** As of ioredis: connections that block are duplicates. */
  duplicate(...args: never[]): unknown;
}

/** Where Redis, or Valkey, is: `redis://` or `rediss://`, options, or a client of ioredis. */
export type FleetRedis = string | FleetRedisOptions | FleetRedisClient;

/** Whether it is a client of the caller's own. */
export const isClient = (value: object): value is FleetRedisClient =>
  ['connect', 'disconnect', 'duplicate'].every(
    (name) => typeof (value as Readonly<Record<string, unknown>>)[name] === 'function',
  );

/** Milliseconds between attempts to connect. */
const FIRST_PAUSE = 50;
const LONGEST_PAUSE = 1000;

/** What BullMQ takes as `connection`. */
export const aRedis: OptionCheck<object> = (where, value) => {
  if (typeof value === 'string') {
    if (!/^rediss?:\/\/|^\//.test(value)) {
      // Not the text itself, which may contain a password.
      throw refuse(where, 'must be a URL that starts with redis:// or rediss://, options, or a client of ioredis');
    }
    return { ...DEFAULTS, url: value };
  }
  const options = anObject(where, value);
  if (isClient(options)) return options;
  const { host, port } = options as FleetRedisOptions;
  if (port !== undefined) wholeNumber(1, 65_535)(`${where}: port`, port);
  if (host !== undefined && typeof host !== 'string')
    throw refuse(`${where}: host`, `must be a string, not ${shown(host)}`);
  const { retryStrategy } = options as FleetRedisOptions;
  if (retryStrategy !== undefined) aFunction(`${where}: retryStrategy`, retryStrategy);
  return { ...DEFAULTS, ...options };
};

const DEFAULTS = {
  maxRetriesPerRequest: null,
  retryStrategy: (times: number): number => Math.min(FIRST_PAUSE * 2 ** Math.min(times, 10), LONGEST_PAUSE),
};
