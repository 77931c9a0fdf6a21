// Hiding names that may be secrets: URIs, names of exports, hosts, paths. Invariant: the same name has the same mask in
// everything that one fleet reports, and masks cannot be computed without the fleet's identity.

import { createHmac } from 'node:crypto';
import type { FleetReason } from './reason.js';

/** Turns names and reasons into what may be shown. */
export interface Mask {
  name(text: string): string;
  reason<Reason extends FleetReason>(reason: Reason): Reason;
}

const LENGTH = 8;

const OPEN: Mask = { name: (text) => text, reason: (reason) => reason };

/** `key`: the identity of the fleet. */
export function makeMask(isMasked: boolean, key: string): Mask {
  if (!isMasked) return OPEN;
  return {
    name: (text) => `x${createHmac('sha256', key).update(text).digest('hex').slice(0, LENGTH)}`,
    // A message may contain anything that a server has sent: what is shown is made of the fields that cannot.
    reason: (reason) => {
      const { syscall, code, offset } = reason;
      const where = offset === null ? '' : ` at offset ${offset}`;
      return { ...reason, message: `${syscall ?? 'fleet'}${where}: ${code}` };
    },
  };
}
