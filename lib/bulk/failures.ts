// Errors of whole-export work: where it was when something failed. Invariant: the class, the code and the fields of the
// error stay what they are, so that a caller can distinguish a lost connection from a refused command.

import {
  NbdCommandError,
  NbdConnectionError,
  NbdError,
  NbdProtocolError,
  NbdStateError,
  withMessage,
} from '../errors.js';

/** Where a piece of work failed. */
export interface Place {
  /** The function that was called, such as `copy`. */
  readonly syscall: string;
  /** What it was doing, such as `read`. */
  readonly what: string;
  /** First byte of the piece; null without one. */
  readonly offset: bigint | null;
}

/**
 * The error to report for `cause`: the signal's reason as it is, anything else with what was being done in front of its
 * message. A call that a connection refused because it has ended meanwhile is reported as its end, ENOTCONN.
 */
export function located(cause: unknown, place: Place, signal?: AbortSignal): unknown {
  if (signal?.aborted === true && cause === signal.reason) return cause;
  const { syscall, what, offset } = place;
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `${syscall}: ${what}${offset === null ? '' : ` at offset ${offset}`} failed: ${why}`;
  const where = { syscall, ...(offset === null ? {} : { offset }) };
  if (cause instanceof NbdStateError) {
    return new NbdConnectionError(message, {
      ...where,
      code: 'ENOTCONN',
      sent: false,
      transient: cause.transient,
      cause,
    });
  }
  // A range of its own is more exact than the piece's.
  if (cause instanceof NbdError) return withMessage(cause, message, where);
  const code = (cause as { code?: unknown } | null | undefined)?.code;
  const known = typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : 'EIO';
  return new NbdError(message, { ...where, code: known, cause });
}

/** The promise's result; its failure as {@link located} has it. */
export async function at<Result>(
  doing: Promise<Result> | Result,
  syscall: string,
  what: string,
  offset: bigint | null,
  signal?: AbortSignal,
): Promise<Result> {
  try {
    return await doing;
  } catch (cause) {
    throw located(cause, { syscall, what, offset }, signal);
  }
}

/** Whether a command has failed on a connection that lives on, so that work can go on without its result. */
export const isCommandFailure = (error: unknown): boolean =>
  error instanceof NbdCommandError || error instanceof NbdProtocolError;

/** Holds work against what was asked for: a success that left bytes out would be the worst of all results. */
export function checkAllDone(done: bigint, total: bigint, syscall: string): void {
  if (done === total) return;
  throw new NbdError(`${syscall}: only ${done} of ${total} bytes were gone through`, { code: 'EIO', syscall });
}

/** The promise, or the signal's reason as soon as it is aborted: for what may never settle. */
export async function abortable<Result>(promise: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (signal === undefined) return promise;
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(signal.reason as Error);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
