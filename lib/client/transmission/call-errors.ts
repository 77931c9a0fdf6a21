// Errors caused by the caller: a call after a disconnect, a callback that throws, a buffer changed while in use.

import { NbdConnectionError, NbdError, NbdStateError, NbdStrictError } from '../../errors.js';
import { callDetails, describeCall } from '../../protocol/commands.js';
import type { Command } from './command.js';

/** A command after a disconnect was requested. */
export function afterDisconnect({ spec, count, offset }: Command): NbdStateError {
  return new NbdStateError(
    `${describeCall(spec, count, offset)}: no command can be issued after a disconnect was requested`,
    { code: 'EINVAL', ...callDetails(spec, count, offset) },
  );
}

/** Wraps a value that a user's callback threw, where an NbdError is required. */
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

/** The buffer of a write was changed before any of it was sent. */
export function payloadSpoiled(command: Command): NbdStrictError {
  const call = describeCall(command.spec, command.count, command.offset);
  return new NbdStrictError(`${call}: the buffer was detached or resized before it was sent; nothing was written`, {
    ...detailsOf(command),
    sent: false,
  });
}

/** The buffer of a write was changed after some of it had been sent. */
export function payloadTorn(command: Command): NbdConnectionError {
  const call = describeCall(command.spec, command.count, command.offset);
  return new NbdConnectionError(
    `${call}: the buffer was detached or resized while it was being sent; the server waits for the rest, so the ` +
      'connection is given up',
    { ...detailsOf(command), sent: true },
  );
}
