// Events of a pool, and its channels of node:diagnostics_channel. None of them is needed to use a pool.

import { channel } from 'node:diagnostics_channel';
import type { NbdError } from '../errors.js';

/** A connection of a pool has been lost. */
export interface PoolLost {
  /** The target, as messages show it. */
  readonly target: string;
  /** The reason; undefined if the server closed the connection in good order. */
  readonly error: NbdError | undefined;
  /** Commands that were in flight on it; they are issued again. */
  readonly inFlight: number;
  /** Number of connections left. */
  readonly connections: number;
}

/** A connection has been made in place of a lost one. */
export interface PoolReconnected {
  /** The target, as messages show it. */
  readonly target: string;
  /** Number of attempts that it took. */
  readonly attempts: number;
  /** Number of open connections. */
  readonly connections: number;
}

/** A command on which the server reported an error will be tried again. */
export interface PoolRetry {
  /** The method, such as `'pread'`. */
  readonly method: string;
  /** First byte of the command's range. */
  readonly offset: bigint;
  /** Number of bytes. */
  readonly count: bigint;
  /** The error that the server reported. */
  readonly error: NbdError;
  /** Number of the try, from 1. */
  readonly attempt: number;
}

/** No connection is left. */
export interface PoolAway {
  /** Why the last one was lost; undefined if the server closed it in good order. */
  readonly error: NbdError | undefined;
}

/** There is a connection again. */
export interface PoolBack {
  /** How long no connection was open. */
  readonly milliseconds: number;
}

/** What an `NbdPool` emits. */
export interface NbdPoolEvents {
  /** A connection was lost. */
  lost: (detail: PoolLost) => void;
  /** A connection took the place of a lost one. */
  reconnected: (detail: PoolReconnected) => void;
  /** A command that failed will be tried again (`retry`). */
  retry: (detail: PoolRetry) => void;
  /** No connection is left; commands wait. */
  away: (detail: PoolAway) => void;
  /** A connection is open again. */
  back: (detail: PoolBack) => void;
  /** The waiting line is empty again: continue after an `EAGAIN`. */
  drain: () => void;
  /** The pool has ended; `error` is undefined after an ordinary end. Emitted once, as the last event. */
  close: (error?: NbdError) => void;
}

type Details<Name extends keyof NbdPoolEvents> = Parameters<NbdPoolEvents[Name]>;

/** Reports an event; does not throw. */
export type Notify = <Name extends keyof NbdPoolEvents>(name: Name, ...details: Details<Name>) => void;

const CHANNELS = {
  lost: channel('nbd:pool:lost'),
  reconnected: channel('nbd:pool:reconnected'),
  retry: channel('nbd:pool:retry'),
};

/** Publishes the detail of an event, with the pool, on the channel of its name. */
export function trace(name: keyof typeof CHANNELS, pool: object, detail: object): void {
  const each = CHANNELS[name];
  if (each.hasSubscribers) each.publish({ pool, ...detail });
}
