// A rung of the ladder: one behaviour, as a function that any server is tried with. It asserts with expect(), and
// where the server cannot do the thing it returns what the server itself reported: a flag, a refusal.

import { expect } from '@jest/globals';

import {
  NbdCommandError,
  type NbdConnection,
  type NbdConnectionOptions,
  NbdError,
  NbdOptionError,
} from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { type LadderServer } from './servers.js';

/** The server has it, or why it has not. */
export type Verdict = 'ok' | { readonly no: string };

/** What a rung works with. */
export interface Stage {
  readonly server: LadderServer;
  /** A connection to the writable export (Unix socket), ended after the rung. */
  readonly connect: (options?: NbdConnectionOptions) => Promise<NbdConnection>;
  /** The same in option mode: negotiating. */
  readonly negotiate: (options?: NbdConnectionOptions) => Promise<NbdConnection>;
  /** The same to the read-only export (TCP). */
  readonly connectReadOnly: (options?: NbdConnectionOptions) => Promise<NbdConnection>;
  /** A connection that is not connected, ended after the rung. */
  readonly create: (options?: NbdConnectionOptions) => NbdConnection;
  /** First byte of the block that belongs to this rung. */
  readonly scratch: number;
}

export type Rung = (stage: Stage) => Promise<Verdict>;

export interface Group {
  readonly name: string;
  readonly rungs: Readonly<Record<string, Rung>>;
}

export const OK = 'ok';
export const no = (why: string): Verdict => ({ no: why });

/** The server's refusal, as a verdict; any other error is a failure of the rung. */
export function refused(error: unknown): Verdict {
  if (error instanceof NbdCommandError || error instanceof NbdOptionError) {
    return no(`${error.code}: ${error.serverMessage ?? 'refused'}`);
  }
  throw error;
}

/** Asserts that the bytes are the same; expect().toEqual() takes a second for what this does in a millisecond. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  expect(actual.length).toBe(expected.length);
  const at = expected.findIndex((byte, i) => actual[i] !== byte);
  expect({ at, bytes: actual.subarray(at, at + 16) }).toEqual({ at, bytes: expected.subarray(at, at + 16) });
}

/** The NbdError that the promise rejects with. */
export async function failure(promise: Promise<unknown>): Promise<NbdError> {
  const error = await rejection(promise);
  expect(error).toBeInstanceOf(NbdError);
  return error as NbdError;
}

/** Begins a raw call and resolves with the argument of its completion. */
export const completed = (begin: (completion: (error: NbdError | null) => true) => unknown): Promise<NbdError | null> =>
  new Promise((resolve) => {
    begin((error) => {
      resolve(error);
      return true;
    });
  });

/** Resolves with the error of the `close` event. */
export const closed = (connection: NbdConnection): Promise<NbdError | undefined> =>
  new Promise((resolve) => connection.once('close', resolve));

/** Asserts that a command that was not advertised is refused unsent, with that reason. */
export async function lacking(
  connection: NbdConnection,
  flag: string,
  command: () => Promise<unknown>,
  code = 'EINVAL',
): Promise<Verdict> {
  const sent = connection.statsBytesSent();
  expect(await failure(command())).toMatchObject({ code, name: 'NbdStrictError' });
  expect(connection.statsBytesSent()).toBe(sent);
  return no(`flags: no ${flag}`);
}
