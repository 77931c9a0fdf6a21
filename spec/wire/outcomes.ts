// Whether what was seen in a case is what a table expects. Each function gives the reason why not, or undefined.

import {
  NbdCommandError,
  NbdConnectionError,
  NbdError,
  NbdOptionError,
  NbdProtocolError,
  NbdStateError,
  NbdStrictError,
} from '../../lib/index.js';
import { type PeerRecording } from '../../lib/testing/index.js';
import { CMD, type OperationResult, OPT, type Outcome, type WireCase } from './notation.js';

/** All that was seen of one case. */
export interface Observation {
  readonly row: WireCase;
  /** `connect` first. */
  readonly results: readonly OperationResult[];
  readonly record: PeerRecording;
  /** How long the client took to end the connection after the last call had settled; undefined if it did not. */
  readonly closedAfter: number | undefined;
  /** What one more read gave, at once. */
  readonly later: OperationResult;
  readonly state: string;
}

/** Milliseconds in which a client that must disconnect has done so, on the slowest machine. */
export const PROMPTLY = 30_000;

type Reason = string | undefined;

/** Why the observation is not this outcome. */
export function mismatch(outcome: Outcome, seen: Observation): Reason {
  return happened(outcome, seen) ?? wrongClass(outcome, seen);
}

/** The class of what was rejected first; everything after it is an error of ours with a code. */
function wrongClass(outcome: Outcome, seen: Observation): Reason {
  const rejected = [...seen.results, seen.later].filter(({ status }) => status === 'rejected');
  const stranger = rejected.find((result) => !(result.error instanceof NbdError) || codeOf(result) === '');
  if (stranger !== undefined) return `${describe(stranger)}: not an NbdError with a code`;
  const first = failed(seen);
  if (first === undefined) return undefined;
  // Calls after the end find the connection in the wrong state.
  const after: readonly ErrorClass[] = seen.row.late === true ? [NbdStateError] : [];
  const classes = [...CLASSES[outcome.kind](codeOf(first)), ...after];
  if (classes.some((one) => first.error instanceof one)) return undefined;
  return `${describe(first)}: not ${classes.map(({ name }) => name).join(' or ')}`;
}

type ErrorClass = typeof NbdError;
const ENDED: readonly ErrorClass[] = [NbdProtocolError, NbdConnectionError];
// An endless or overlong answer is a violation or a bound of ours.
const REFUSED: readonly ErrorClass[] = [NbdOptionError, NbdProtocolError, NbdError];
const CLASSES: Readonly<Record<Outcome['kind'], (code: string) => readonly ErrorClass[]>> = {
  OK: () => [],
  'OK-close': () => [],
  D: () => ENDED,
  'OK then D': () => ENDED,
  'D!': () => [...ENDED, NbdOptionError],
  'D+A': () => [NbdOptionError],
  E: () => REFUSED,
  'E+A': () => [NbdOptionError],
  T: () => [NbdConnectionError],
  F: (code) => (code === 'EPROTO' || code === 'EOVERFLOW' ? [NbdProtocolError, NbdCommandError] : [NbdCommandError]),
  'F+DISC': () => [NbdCommandError],
  'F then D': () => [NbdCommandError],
  'F+D': () => [NbdCommandError, ...ENDED],
  L: () => [NbdStrictError],
  local: () => [NbdStateError],
};

function happened(outcome: Outcome, seen: Observation): Reason {
  switch (outcome.kind) {
    case 'OK':
      return all(seen.results, 'resolved') ?? alive(seen);
    case 'D':
      return dead(seen) ?? nothingMore(seen, []);
    case 'D!':
      return dead(seen);
    case 'D+A':
      return dead(seen) ?? nothingMore(seen, [OPT.ABORT]) ?? (aborted(seen) ? undefined : 'no OPT_ABORT was sent');
    case 'T':
      return timedOut(seen);
    case 'E':
      return onlyOneFails(seen);
    case 'E+A':
      return failed(seen) === undefined ? 'nothing failed' : aborted(seen) ? undefined : 'no OPT_ABORT was sent';
    case 'F':
      return onlyOneFails(seen) ?? hasCode(failed(seen), outcome.code) ?? alive(seen);
    case 'F+DISC':
      return hasCode(failed(seen), outcome.code) ?? disconnected(seen) ?? refusesMore(seen);
    case 'F+D':
      return all(operations(seen), 'rejected') ?? dead(seen);
    case 'F then D':
      return hasCode(seen.results[1], outcome.code) ?? deadAfter(seen, seen.results[2]);
    case 'OK then D':
      return okThenDead(seen);
    case 'OK-close':
      return all(seen.results, 'resolved') ?? (seen.closedAfter === undefined ? 'it did not close' : refusesMore(seen));
    case 'L':
      return onlyOneFails(seen) ?? hasCode(failed(seen), outcome.code) ?? notSent(seen) ?? alive(seen);
    case 'local':
      return failed(seen) === undefined ? 'nothing failed' : undefined;
  }
}

function operations(seen: Observation): readonly OperationResult[] {
  return seen.results.slice(1);
}

function failed(seen: Observation): OperationResult | undefined {
  return seen.results.find((result) => result.status === 'rejected');
}

function all(results: readonly OperationResult[], status: OperationResult['status']): Reason {
  const other = results.find((result) => result.status !== status);
  return other === undefined ? undefined : `${describe(other)} although all should be ${status}`;
}

function alive(seen: Observation): Reason {
  // An export that is smaller than the probe, or a call that has ended the connection, is the row's own affair.
  return seen.state === 'ready' || seen.state === 'negotiating' ? undefined : `the connection is ${seen.state}`;
}

/** The first failure and everything after it rejects with a code, and the client itself ends the connection. */
function dead(seen: Observation): Reason {
  const { results, row } = seen;
  const first = results.findIndex((result) => result.status === 'rejected');
  if (first === -1) return 'nothing was rejected';
  if (row.late !== true && first > 1) return `${describe(results[1])}, only a later call failed`;
  // With two reads at once either may be the one that found out.
  const rest = results.slice(first).find((result) => result.status !== 'rejected' && !result.name.startsWith('wait'));
  if (rest !== undefined && !(row.user ?? '').startsWith('pread2')) return `${describe(rest)} after the failure`;
  if (codeOf(results[first]) === '') return `${describe(results[first])} has no code`;
  if (!namesViolation(seen, results[first])) return `${describe(results[first])}: neither it nor its cause is EPROTO`;
  if (seen.closedAfter === undefined) return `the connection was not closed within ${PROMPTLY} ms`;
  return refusesMore(seen);
}

/** What breaks the protocol is EPROTO, itself or as the cause; an end of the stream and a refusal are something else. */
function namesViolation({ record, row }: Observation, result: OperationResult | undefined): boolean {
  const isBroken =
    row.expected.some(({ kind }) => /^D$| then D$/.test(kind)) && record.ending !== 'closed' && row.ends !== true;
  const { code, cause } = result?.error as { code?: string; cause?: { code?: string } };
  return !isBroken || code === 'EPROTO' || cause?.code === 'EPROTO';
}

/** After the server's violation the client has sent nothing but these options. */
function nothingMore(seen: Observation, allowed: readonly number[]): Reason {
  const { mark } = seen.record;
  if (mark === undefined || seen.row.late === true) return undefined;
  const options = seen.record.options.slice(mark.options).filter(({ option }) => !allowed.includes(option));
  if (options.length > 0) return `option ${options[0]?.option} was sent afterwards`;
  const commands = seen.record.commands.slice(mark.commands);
  return commands.length > 0 ? `command ${commands[0]?.type} was sent afterwards` : undefined;
}

function aborted(seen: Observation): boolean {
  return seen.record.options.at(-1)?.option === OPT.ABORT;
}

function timedOut(seen: Observation): Reason {
  const first = failed(seen);
  const { timeout = 0 } = seen.row;
  if (first === undefined) return 'nothing was rejected';
  if (codeOf(first) !== 'ETIMEDOUT') return `${describe(first)} instead of ETIMEDOUT`;
  // Not before the timeout. How long after it depends on how busy the machine is.
  if (first.took < timeout * 0.8 || first.took > timeout + PROMPTLY) return `it took ${Math.round(first.took)} ms`;
  if (seen.closedAfter === undefined) return 'the connection was not closed';
  return refusesMore(seen);
}

/** One call rejects, with a code; everything else resolves, unless there is nothing left to call. */
function onlyOneFails(seen: Observation): Reason {
  const rejected = seen.results.filter((result) => result.status === 'rejected');
  if (rejected.length === 0) return 'nothing was rejected';
  if (codeOf(rejected[0]) === '') return `${describe(rejected[0])} has no code`;
  const isEndless = seen.row.memory !== undefined && seen.row.timeout !== undefined;
  if (isEndless) return seen.results.some((result) => result.status === 'pending') ? 'a call is pending' : undefined;
  return rejected.length === 1 ? undefined : `${describe(rejected[1])} as well`;
}

function hasCode(result: OperationResult | undefined, code: string): Reason {
  if (result === undefined) return 'nothing was rejected';
  return codeOf(result) === code ? undefined : `${describe(result)} instead of ${code}`;
}

function disconnected(seen: Observation): Reason {
  const last = seen.record.commands.at(-1);
  return last?.type === CMD.DISC ? undefined : 'no NBD_CMD_DISC was sent';
}

function refusesMore(seen: Observation): Reason {
  const { later } = seen;
  if (later.status !== 'rejected') return `a later read is ${later.status}`;
  if (later.took > PROMPTLY) return `a later read took ${Math.round(later.took)} ms to reject`;
  return codeOf(later) === '' ? 'a later read rejects without a code' : undefined;
}

function okThenDead(seen: Observation): Reason {
  const [, first, second] = seen.results;
  if (first?.status !== 'resolved') return `${describe(first)} although its data had come`;
  return deadAfter(seen, second);
}

function deadAfter(seen: Observation, second: OperationResult | undefined): Reason {
  if (second?.status !== 'rejected') return `${describe(second)} although the stream is out of step`;
  if (!namesViolation(seen, second)) return `${describe(second)}: neither it nor its cause is EPROTO`;
  return seen.closedAfter === undefined ? 'the connection was not closed' : refusesMore(seen);
}

/** What was refused locally is not on the wire. */
function notSent(seen: Observation): Reason {
  const verb = failed(seen)?.name.split(' ')[0] ?? '';
  const type = new Map<string, number>([
    ['pwrite', CMD.WRITE],
    ['bs', CMD.STATUS],
    ['trim', CMD.TRIM],
  ]).get(verb);
  return seen.record.commands.some((command) => command.type === type) ? `${verb} was sent` : undefined;
}

/** The error's code, or `''`. */
export function codeOf(result: OperationResult | undefined): string {
  const error = result?.error as { code?: unknown } | undefined;
  return typeof error?.code === 'string' ? error.code : '';
}

/** One call and what it gave, in a few words. */
export function describe(result: OperationResult | undefined): string {
  if (result === undefined) return 'no call';
  if (result.status !== 'rejected') return `${result.name} ${result.status}`;
  const { name, message } = result.error as Error;
  return `${result.name} rejected: ${codeOf(result)} ${name}: ${message.slice(0, 120)}`;
}

/** An outcome as the tables write it. */
export function outcomeName(outcome: Outcome): string {
  if (!('code' in outcome)) return outcome.kind;
  return outcome.kind.startsWith('F') ? outcome.kind.replace('F', `F(${outcome.code})`) : `L(${outcome.code})`;
}
