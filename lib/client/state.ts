// The states of a connection, and which calls are permitted in which (libnbd's permitted_states).

import { NbdStateError } from '../errors.js';

/**
 * The state of a connection. Every permission treats `ready` and `processing` as one state, connected. The state is
 * `processing` while a request is partly written or a reply partly read, and `ready` otherwise, whatever is in flight.
 * While an option waits for its answer, the state is `connecting` instead of `negotiating`.
 */
export type ConnectionState = 'created' | 'connecting' | 'negotiating' | 'ready' | 'processing' | 'closed' | 'dead';

/** A state as far as permissions depend on it. */
export type Phase = 'created' | 'connecting' | 'negotiating' | 'connected' | 'closed' | 'dead';

/** The state that events report. Commands are too frequent to be events: connected is always `ready`. */
export const asEvent = (phase: Phase): ConnectionState => (phase === 'connected' ? 'ready' : phase);

/** A set of phases, and how messages describe it. */
export interface Permission {
  readonly phases: ReadonlySet<Phase>;
  readonly must: string;
}

const permission = (must: string, ...phases: Phase[]): Permission => Object.freeze({ phases: new Set(phases), must });

export const WHEN_CREATED = permission('created and not yet connecting', 'created');
export const WHEN_CREATED_OR_NEGOTIATING = permission('created or negotiating', 'created', 'negotiating');
export const WHEN_NEGOTIATING = permission('negotiating (see setOptMode)', 'negotiating');
export const WHEN_CONNECTED = permission('connected', 'connected');
export const WHEN_INFORMED = permission('negotiating, connected or closed', 'negotiating', 'connected', 'closed');
export const WHEN_STARTED = permission('connected, closed or dead', 'connected', 'closed', 'dead');
export const WHEN_NOT_CREATED = permission(
  'connecting or further',
  'connecting',
  'negotiating',
  'connected',
  'closed',
  'dead',
);

/** Throws unless the call is permitted: ENOTCONN on a fresh connection, else EINVAL; `cause` is why it ended. */
export function checkState(method: string, phase: Phase, permitted: Permission, cause?: Error | null): void {
  if (permitted.phases.has(phase)) return;
  const ended = cause == null ? '' : ` (it ended: ${cause.message})`;
  throw new NbdStateError(`${method}: invalid state: ${phase}: the connection must be ${permitted.must}${ended}`, {
    code: phase === 'created' ? 'ENOTCONN' : 'EINVAL',
    syscall: method,
    ...(cause == null ? {} : { cause }),
  });
}
