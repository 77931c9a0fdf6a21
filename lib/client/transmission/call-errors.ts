// Errors of calls that are the caller's doing.

import { NbdConnectionError, NbdError, NbdStateError, NbdStrictError } from '../../errors.js';
import { callDetails, type Command, describeCall } from '../../protocol/command.js';

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

const detailsOf = ({ spec, count, offset, cookie }: Command) => ({
  code: 'EFAULT',
  cookie: BigInt(cookie),
  ...callDetails(spec, count, offset),
});

/** A write's buffer is not what it was when the call was made, and nothing of it has been sent. */
export function payloadSpoiled(command: Command): NbdStrictError {
  const call = describeCall(command.spec, command.count, command.offset);
  return new NbdStrictError(`${call}: the buffer was detached or resized before it was sent; nothing was written`, {
    ...detailsOf(command),
    sent: false,
  });
}

/** The same when some of it has been sent. */
export function payloadTorn(command: Command): NbdConnectionError {
  const call = describeCall(command.spec, command.count, command.offset);
  return new NbdConnectionError(
    `${call}: the buffer was detached or resized while it was being sent; the server waits for the rest, so the ` +
      'connection is given up',
    { ...detailsOf(command), sent: true },
  );
}
