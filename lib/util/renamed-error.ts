// An error with another message. Invariant: its class, code and fields stay what they are.

import { NbdError } from '../errors.js';

/** `cause` with this message, which is its cause then. `fields` are for those that it lacks, `syscall` takes the place of its own. */
export function withMessage(
  cause: NbdError,
  message: string,
  fields: { readonly syscall?: string; readonly offset?: bigint } = {},
): NbdError {
  const own = Object.fromEntries(Object.entries(cause));
  const syscall = fields.syscall ?? cause.syscall;
  const error = new NbdError(message, { ...fields, ...own, code: cause.code, syscall, cause });
  // Its own class, which may be one that a user has derived.
  Object.setPrototypeOf(error, Object.getPrototypeOf(cause) as object);
  Error.captureStackTrace(error, withMessage);
  return error;
}
