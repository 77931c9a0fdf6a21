// Errors for the end of a connection and for a failure to connect, as its callers receive them.

import { NbdConnectionError, NbdError, NbdProtocolError } from '../errors.js';
import { callDetails, describeCall } from '../protocol/commands.js';
import { type Command, STAGE_ISSUED } from './transmission/command.js';
import { printableText } from '../protocol/names.js';

/** Reason of an ordinary close(). One shared instance: its stack trace would mean nothing. */
export const CLOSED = new NbdConnectionError('the connection was closed', {
  code: 'ENOTCONN',
  transient: false,
});

/**
 * The error of a command that was unfinished when the connection ended: ENOTCONN, with the reason as its cause. It has
 * no stack: the stack would contain only our own frames, and costs more than everything else for a million commands.
 */
function endOfCommand(command: Command, reason: NbdError): NbdError {
  // The command whose reply violated the protocol, or timed out, gets the original error.
  if (reason.cookie !== undefined && reason.cookie === BigInt(command.cookie)) return reason;
  const limit = Error.stackTraceLimit;
  // It cannot be written when intrinsics are frozen; the error has a stack then.
  Reflect.set(Error, 'stackTraceLimit', 0);
  try {
    return makeEnd(command, reason);
  } finally {
    Reflect.set(Error, 'stackTraceLimit', limit);
  }
}

/** How many waiting commands get an error of their own when a connection ends; further ones share one. */
const OWN_ERRORS = 1024;

/**
 * Makes the errors for all commands that one end affects, in order. A million separate errors would take a second and a
 * gigabyte.
 */
export function endOfCommands(reason: NbdError): (command: Command) => NbdError {
  let own = 0;
  let shared: NbdError | null = null;
  return (command) => {
    if (command.stage === STAGE_ISSUED || own++ < OWN_ERRORS) return endOfCommand(command, reason);
    shared ??= new NbdConnectionError(
      `the connection ended while the command was waiting; nothing of it was sent: ${reason.message}`,
      { code: 'ENOTCONN', sent: false, cause: reason },
    );
    return shared;
  };
}

function makeEnd(command: Command, reason: NbdError): NbdError {
  const { spec, count, offset } = command;
  return new NbdConnectionError(`${describeCall(spec, count, offset)}: the connection ended: ${reason.message}`, {
    code: 'ENOTCONN',
    cookie: BigInt(command.cookie),
    sent: command.stage === STAGE_ISSUED,
    ...callDetails(spec, count, offset),
    cause: reason,
  });
}

/** Wraps a transport's error, or any other thrown value. Keeps its code if that is the name of an errno. */
export function toConnectionError(cause: unknown, what: string, code?: string): NbdError {
  if (cause instanceof NbdError) return cause;
  const own = (cause as { code?: unknown } | null)?.code;
  const known = code ?? (typeof own === 'string' && /^E[A-Z0-9]+$/.test(own) ? own : 'ENOTCONN');
  // Node quotes a path or a host as it was given, and both may come from an untrusted URI.
  const message = printableText(cause instanceof Error ? cause.message : String(cause));
  return new NbdConnectionError(`${what}: ${message}`, { code: known, syscall: 'connect', cause });
}

/** Adds what was attempted to an error that was created where that was not known: as message prefix and `syscall`. */
export function withContext(error: NbdError, what: string, syscall: string): NbdError {
  error.message = `${what}: ${error.message}`;
  if (error.syscall === undefined) Object.defineProperty(error, 'syscall', { value: syscall, enumerable: true });
  return error;
}

/** The server closed before it had answered everything; `position` describes where in its replies. */
export const endedEarly = (position: string, unanswered: number): NbdConnectionError =>
  new NbdConnectionError(
    `the server closed the connection ${position}, with ${unanswered} command${unanswered === 1 ? '' : 's'} unanswered`,
    { code: 'ENOTCONN' },
  );

export const optionTimeout = (method: string, timeout: number): NbdConnectionError =>
  new NbdConnectionError(`${method}: no answer within ${timeout} ms (connectTimeout)`, {
    code: 'ETIMEDOUT',
    syscall: method,
  });

/** Whether an error of the handshake ends the connection. Refusals and misuse do not. */
export const isFatal = (error: unknown): boolean =>
  !(error instanceof NbdError) || error instanceof NbdProtocolError || error instanceof NbdConnectionError;
