// Errors of calls that are the caller's doing.

import { NbdError, NbdStateError } from '../errors.js';
import { callDetails, type Command, describeCall } from '../protocol/command.js';

/** No command follows a disconnect. */
export function afterDisconnect({ spec, count, offset }: Command): NbdStateError {
  return new NbdStateError(
    `${describeCall(spec, count, offset)}: no command can be issued after a disconnect was requested`,
    { code: 'EINVAL', ...callDetails(spec, count, offset) },
  );
}

/** What a callback of the user's threw, where an error of ours is due. */
export function wrapThrown({ spec, count, offset, cookie }: Command, thrown: unknown): NbdError {
  return new NbdError(`${describeCall(spec, count, offset)}: a callback threw: ${String(thrown)}`, {
    code: 'EPROTO',
    cookie: BigInt(cookie),
    ...callDetails(spec, count, offset),
    cause: thrown,
  });
}
