// Tracing through node:diagnostics_channel: nbd:command:start, then :error if it failed, then always :end;
// nbd:connection:open and :close. Without subscribers it costs one property read per command.

import type { Channel } from 'node:diagnostics_channel';
import { nodeModule } from '../util/platform.js';
import type { Command } from './transmission/command.js';

const diagnostics = nodeModule('node:diagnostics_channel');
/** Where there are no channels there are no subscribers. */
const SILENT = { hasSubscribers: false, publish: (): void => undefined };
const channel = (name: string): Pick<Channel, 'hasSubscribers' | 'publish'> => diagnostics?.channel(name) ?? SILENT;

const commandStart = channel('nbd:command:start');
const commandEnd = channel('nbd:command:end');
const commandError = channel('nbd:command:error');
const connectionOpen = channel('nbd:connection:open');
const connectionClose = channel('nbd:connection:close');

/** The message of the nbd:command channels. */
export interface CommandTrace {
  /** The {@link NbdConnection}. */
  readonly connection: object;
  /** Name of the promise method, such as `'pread'`. */
  readonly method: string;
  /** The cookie of the command. */
  readonly cookie: bigint;
  /** Number of bytes; 0n for a flush. */
  readonly count: bigint;
  /** First byte. */
  readonly offset: bigint;
  /** Set when it failed. */
  readonly error?: unknown;
}

// Start and end publish the same object, so that a subscriber can associate its own state with it.
const traces = new WeakMap<Command, CommandTrace>();

/** Whether the command channels have subscribers. */
export const isTraced = (): boolean =>
  commandStart.hasSubscribers || commandEnd.hasSubscribers || commandError.hasSubscribers;

export function startTrace(command: Command, connection: object): void {
  const trace: CommandTrace = {
    connection,
    method: command.spec.method,
    cookie: BigInt(command.cookie),
    count: BigInt(command.count),
    offset: BigInt(command.offset),
  };
  traces.set(command, trace);
  commandStart.publish(trace);
}

export function endTrace(command: Command, failed: boolean, error: unknown): void {
  if (!commandEnd.hasSubscribers && !commandError.hasSubscribers) return;
  const trace = traces.get(command);
  if (trace === undefined) return;
  if (failed) commandError.publish(Object.assign(trace, { error }));
  commandEnd.publish(trace);
}

export function traceOpen(connection: object): void {
  if (connectionOpen.hasSubscribers) connectionOpen.publish({ connection });
}

export function traceClose(connection: object, error: unknown): void {
  if (connectionClose.hasSubscribers) connectionClose.publish({ connection, error });
}
