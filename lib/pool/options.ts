// The options of a pool: its own, checked here, and those of its connections, checked by the same table as theirs.

import { makeSettings, type NbdConnectionOptions } from '../client/options/options.js';
import { waitForCheck } from '../client/connect/waiting.js';
import type { ByteRange } from '../errors.js';
import {
  aFunction,
  anAbortSignal,
  anArrayOf,
  anObject,
  aString,
  checkOptions,
  type Complete,
  milliseconds,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
  wholeNumber,
} from '../util/option-checks.js';

const METHOD = 'NbdPool.connect';

/** How a pool reconnects. Times are milliseconds. */
export interface ReconnectOptions {
  /** How long commands wait for a connection after the last one was lost; Infinity: no limit. Default 60,000. */
  within?: number | undefined;
  /** Pause before the first attempt. Each pause is twice the one before, half of it random. Default 50. */
  minDelay?: number | undefined;
  /** Longest pause. Default 2000. */
  maxDelay?: number | undefined;
}

/** Which command errors are tried again. */
export interface RetryOptions {
  /** Number of further tries. Default 3. */
  attempts?: number | undefined;
  /** Errno names that the server reports; never `EPERM`, `EINVAL` or `ENOSPC`. Default `['EIO']`. */
  codes?: readonly string[] | undefined;
  /** Pause before each of them. Default 100. */
  delay?: number | undefined;
}

/** What `NbdPool.connect` takes: the options of the connections, and the pool's own. */
export interface NbdPoolOptions extends NbdConnectionOptions {
  /** Maximum number of connections; 1 if the server does not advertise multi-conn (`canMultiConn`). Default 4. */
  connections?: number | undefined;
  /** Milliseconds that opening each connection beyond the first may take. Default 2000. */
  growTimeout?: number | undefined;
  /** Milliseconds to keep trying the first connection while no server is listening yet; Infinity: no limit. Default 0. */
  waitFor?: number | undefined;
  /** How to reconnect after a loss; false: never. */
  reconnect?: false | ReconnectOptions | undefined;
  /** Which command errors on a living connection to try again. Default false. */
  retry?: false | RetryOptions | undefined;
  /**
   * Supplies the bytes of writes that a lost connection may have undone: the complete contents that the export should
   * have in the range, which is at most 4 MiB long. It may run while commands of this pool wait, and must not wait for
   * one of them.
   */
  rewrite?: ((range: ByteRange) => Uint8Array | Promise<Uint8Array>) | undefined;
  /** Aborts the first connect. */
  signal?: AbortSignal | undefined;
}

/** The pool's own options, complete. */
export interface PoolSettings {
  readonly connections: number;
  readonly growTimeout: number;
  readonly waitFor: number;
  readonly reconnect: Complete<ReconnectOptions> | null;
  readonly retry: Complete<RetryOptions> | null;
  readonly rewrite: Complete<NbdPoolOptions>['rewrite'] | null;
  readonly signal: AbortSignal | undefined;
  // Settings of the connections that the pool needs itself.
  readonly maxInFlight: number;
  readonly maxInFlightBytes: number;
  readonly maxQueued: number;
  readonly closeTimeout: number;
  readonly preadInitialize: boolean;
  /** For every connection. */
  readonly connection: NbdConnectionOptions;
}

type OwnOptions = Pick<
  NbdPoolOptions,
  'connections' | 'growTimeout' | 'waitFor' | 'reconnect' | 'retry' | 'rewrite' | 'signal'
>;

const MOST_CONNECTIONS = 1024;
const DEFAULT_REQUEST_TIMEOUT = 30_000;
const FINAL_CODES = ['EPERM', 'EINVAL', 'ENOSPC'];

/** Milliseconds that are a time, or Infinity. */
const aTime: OptionCheck<number> = (where, value) => {
  if (value === 0) throw refuse(where, 'must be more than 0 milliseconds, or Infinity for no limit');
  return value === Infinity ? Infinity : milliseconds(where, value);
};

const aDelay: OptionCheck<number> = (where, value) => {
  if (value === Infinity) throw refuse(where, 'must be a finite number of milliseconds');
  return milliseconds(where, value);
};

const aRetriedCode: OptionCheck<string> = (where, value) => {
  const code = aString(where, value);
  if (!/^E[A-Z0-9]+$/.test(code)) throw refuse(where, `must be errno names, such as 'EIO', not ${shown(value)}`);
  if (FINAL_CODES.includes(code)) throw refuse(where, `${code} is never tried again: it would be the same answer`);
  return code;
};

const RECONNECT: OptionTable<ReconnectOptions> = { within: aTime, minDelay: aDelay, maxDelay: aDelay };
const RETRY: OptionTable<RetryOptions> = {
  attempts: wholeNumber(1),
  codes: anArrayOf(aRetriedCode),
  delay: aDelay,
};

const falseOr =
  <Options extends object>(table: OptionTable<Options>): OptionCheck<false | Partial<Complete<Options>>> =>
  (where, value) => {
    if (value === false) return false;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw refuse(where, `must be false or an object, not ${shown(value)}`);
    }
    return checkOptions(where, anObject(where, value), table);
  };

const OWN: OptionTable<OwnOptions> = {
  connections: wholeNumber(1, MOST_CONNECTIONS),
  growTimeout: aTime,
  waitFor: waitForCheck,
  reconnect: falseOr(RECONNECT),
  retry: falseOr(RETRY),
  rewrite: aFunction,
  signal: anAbortSignal,
};

/** The options over the defaults; an unknown or ill-typed one throws NbdStrictError. */
export function makePoolSettings(options: unknown): PoolSettings {
  if (options !== undefined && (typeof options !== 'object' || options === null || Array.isArray(options))) {
    throw refuse(METHOD, `options must be an object, not ${shown(options)}`);
  }
  const given: Record<string, unknown> = { ...options };
  const own: Record<string, unknown> = {};
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(OWN, key)) continue;
    own[key] = given[key];
    // A computed key of our own table.
    Reflect.deleteProperty(given, key);
  }
  const checked = checkOptions<OwnOptions>(METHOD, own, OWN);
  const connection: NbdConnectionOptions = { requestTimeout: DEFAULT_REQUEST_TIMEOUT, ...definedOf(given) };
  const settings = makeSettings(connection);
  if (settings.optMode) throw refuse(`${METHOD}: optMode`, 'a pool has no option mode: use an NbdConnection for it');
  const { connections = 4, growTimeout = 2000, waitFor = 0, reconnect = {}, retry = false, rewrite, signal } = checked;
  return {
    ...{ connections, growTimeout, waitFor, signal },
    reconnect: reconnect === false ? null : completeReconnect(reconnect),
    retry: retry === false ? null : completeRetry(retry),
    rewrite: rewrite ?? null,
    maxInFlight: settings.maxInFlight,
    maxInFlightBytes: settings.maxInFlightBytes,
    maxQueued: settings.maxQueued,
    closeTimeout: settings.closeTimeout,
    preadInitialize: settings.preadInitialize,
    // The pool's own line is the one in which commands wait.
    connection: { ...connection, maxQueued: Infinity },
  };
}

function completeReconnect(given: ReconnectOptions): Complete<ReconnectOptions> {
  const { within = 60_000, maxDelay = Math.max(2000, given.minDelay ?? 0), minDelay = Math.min(50, maxDelay) } = given;
  if (minDelay > maxDelay) throw refuse(`${METHOD}: reconnect: minDelay`, `${minDelay} is above maxDelay, ${maxDelay}`);
  return { within, minDelay, maxDelay };
}

const completeRetry = ({ attempts = 3, codes = ['EIO'], delay = 100 }: RetryOptions): Complete<RetryOptions> => ({
  attempts,
  codes,
  delay,
});

const definedOf = (given: Record<string, unknown>): NbdConnectionOptions =>
  Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
