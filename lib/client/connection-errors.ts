// How the end of a connection, or the failure to make one, looks to whoever was waiting.

import { NbdConnectionError, NbdError, NbdProtocolError } from '../errors.js';
import { callDetails, type Command, describeCall, STAGE_ISSUED } from '../protocol/command.js';
import { printableText } from '../protocol/names.js';

/** The reason where nobody did anything wrong; shared, so it has no stack of its own. */
export const CLOSED = new NbdConnectionError('the connection was closed', {
  code: 'ENOTCONN',
  transient: false,
});

/**
 * For a command that the end has caught: ENOTCONN, with the reason as its cause. Without a stack, which would be ours
 * alone and costs more than all the rest: there may be a million of them.
 */
function endOfCommand(command: Command, reason: NbdError): NbdError {
  // The command in whose reply the rule was broken, or that had no reply in time, gets that very error.
  if (reason.cookie !== undefined && reason.cookie === BigInt(command.cookie)) return reason;
  const limit = Error.stackTraceLimit;
  // Where it cannot be written (frozen intrinsics) there is a stack.
  Reflect.set(Error, 'stackTraceLimit', 0);
  try {
    return makeEnd(command, reason);
  } finally {
    Reflect.set(Error, 'stackTraceLimit', limit);
  }
}

/** Commands that wait when a connection ends and have an error of their own; further ones share one. */
const OWN_ERRORS = 1024;

/**
 * For the commands of one end, in order. A million errors would take a second and a gigabyte, which the event loop and
 * the memory do not have to spare just then.
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

/** A transport's error, or whatever was thrown, as ours; with its own code where that is an errno name. */
export function toConnectionError(cause: unknown, what: string, code?: string): NbdError {
  if (cause instanceof NbdError) return cause;
  const own = (cause as { code?: unknown } | null)?.code;
  const known = code ?? (typeof own === 'string' && /^E[A-Z0-9]+$/.test(own) ? own : 'ENOTCONN');
  // Node repeats a path or a host as it was given, and either may come out of a stranger's URI.
  const said = printableText(cause instanceof Error ? cause.message : String(cause));
  return new NbdConnectionError(`${what}: ${said}`, { code: known, syscall: 'connect', cause });
}

/** The same error, with what was tried in front of its message and as its `syscall`: it was made where neither was known. */
export function withContext(error: NbdError, what: string, syscall: string): NbdError {
  error.message = `${what}: ${error.message}`;
  if (error.syscall === undefined) Object.defineProperty(error, 'syscall', { value: syscall, enumerable: true });
  return error;
}

/** The server closed before it had answered everything; `position` says where in its replies. */
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

/** Whether an error of the handshake leaves nothing to go on with; refusals and misuse do not. */
export const isFatal = (error: unknown): boolean =>
  !(error instanceof NbdError) || error instanceof NbdProtocolError || error instanceof NbdConnectionError;
