// What a pool reports: events for its user, channels of node:diagnostics_channel for tracing. None is needed to use it.

import { channel } from 'node:diagnostics_channel';
import type { NbdError } from '../errors.js';

/** A connection of a pool has been lost. */
export interface PoolLost {
  /** The target, as messages show it. */
  readonly target: string;
  /** Why; undefined where the server closed it in good order. */
  readonly error: NbdError | undefined;
  /** Commands that were on it; they are issued again. */
  readonly inFlight: number;
  /** Connections that are left. */
  readonly connections: number;
}

/** A connection has been made in place of a lost one. */
export interface PoolReconnected {
  readonly target: string;
  /** How many attempts it took. */
  readonly attempts: number;
  /** Connections there are now. */
  readonly connections: number;
}

/** A command that the server has failed will be tried again. */
export interface PoolRetry {
  /** The method, such as `'pread'`. */
  readonly method: string;
  readonly offset: bigint;
  readonly count: bigint;
  readonly error: NbdError;
  /** From 1. */
  readonly attempt: number;
}

/** No connection is left. */
export interface PoolAway {
  /** Why the last one was lost; undefined where the server closed it in good order. */
  readonly error: NbdError | undefined;
}

/** There is a connection again. */
export interface PoolBack {
  /** How long there was none. */
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
  /** There is one again. */
  back: (detail: PoolBack) => void;
  /** No command is waiting any more after some had to: the moment to go on after `EAGAIN`. */
  drain: () => void;
  /** The pool has ended, with the error if it did not end by itself. Once, last. */
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
