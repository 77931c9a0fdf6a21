// The table: fault x moment x command, and what the client must answer.

import type { Fault, FaultKind } from '../support/fault-proxy.js';
import { COMMANDS, type FaultCommand } from './commands.js';

/** Where a fault strikes, counted from the first byte of the request or of the reply; undefined: not at all. */
type PlaceOf = (command: FaultCommand) => Pick<Fault, 'of' | 'at'> | undefined;

/** What a fault makes of a connection with three commands: the one under test, one beside it, one that waits. */
export interface Expected {
  /** As the runner writes it down. */
  readonly seen: string;
  readonly requestTimeout: number;
}

/** Long enough not to count where an answer comes. */
const PATIENT = 20_000;
const IMPATIENT = 300;

/** Everything is answered, late; the client does not notice. */
const SURVIVES: Expected = {
  seen: 'own ok; beside ok; waiting ok; then ok; ready',
  requestTimeout: PATIENT,
};
/** The stream ends: everything ends with it, at once. */
const LOST: Expected = {
  seen:
    'own ENOTCONN (NbdConnectionError); beside ENOTCONN; waiting ENOTCONN, not sent; then EINVAL (NbdStateError); ' +
    'dead, close once with ENOTCONN',
  requestTimeout: PATIENT,
};
/** Nothing comes any more: the oldest command's patience ends, and with it the connection. */
const SILENT: Expected = {
  seen:
    'own ETIMEDOUT (NbdConnectionError); beside ENOTCONN; waiting ENOTCONN, not sent; then EINVAL (NbdStateError); ' +
    'dead, close once with ETIMEDOUT',
  requestTimeout: IMPATIENT,
};

export interface FaultGroup {
  readonly title: string;
  readonly kind: FaultKind;
  readonly expected: Expected;
  readonly commands: readonly (readonly [command: FaultCommand, fault: Fault])[];
}

const FAULTS: readonly (readonly [title: string, fault: Omit<Fault, 'of' | 'at'>, expected: Expected])[] = [
  ['a delay', { kind: 'delay', milliseconds: 20 }, SURVIVES],
  ['a trickle', { kind: 'trickle', milliseconds: 1, bytes: 40 }, SURVIVES],
  ['a reset', { kind: 'reset' }, LOST],
  ['a half-close', { kind: 'half-close' }, LOST],
  ['a close', { kind: 'close' }, LOST],
  ['a black hole', { kind: 'black-hole' }, SILENT],
];

/** One group per fault and moment; its commands are tried side by side. */
const groupsOf = (moments: Readonly<Record<string, PlaceOf>>): readonly FaultGroup[] =>
  FAULTS.flatMap(([title, fault, expected]) =>
    Object.entries(moments).map(([moment, placeOf]) => ({
      title: `${title} ${moment}`,
      kind: fault.kind,
      expected,
      commands: COMMANDS.flatMap((command) => {
        const place = placeOf(command);
        return place === undefined ? [] : [[command, { ...fault, ...place }] as const];
      }),
    })),
  );

export const GROUPS = groupsOf({
  'before the request': () => ({ of: 'client', at: 0 }),
  'inside the request header': () => ({ of: 'client', at: 13 }),
  'inside the request payload': ({ insideRequestPayload: at }) => (at === undefined ? at : { of: 'client', at }),
  'before the reply': () => ({ of: 'server', at: 0 }),
  'inside the reply header': () => ({ of: 'server', at: 9 }),
  'inside the reply payload': ({ insideReplyPayload: at }) => (at === undefined ? at : { of: 'server', at }),
});

/** A TLS record has a header of 5 bytes, and the shortest reply makes one of 38. */
export const TLS_GROUPS = groupsOf({
  'inside the header of the record with the request': () => ({ of: 'client', at: 3 }),
  'inside the record with the request': () => ({ of: 'client', at: 30 }),
  'between records': () => ({ of: 'server', at: 0 }),
  'inside the header of the record with the reply': () => ({ of: 'server', at: 3 }),
  'inside the record with the reply': () => ({ of: 'server', at: 30 }),
});
