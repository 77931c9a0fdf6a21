// Why something failed, as it is stored and reported, and whether it is worth another try.

import { NbdError, NbdUnflushedError } from '../errors.js';
import type { FleetKind } from './job.js';

/** Why a range, or the planning of an export, failed. */
export interface FleetReason {
  /** The errno name, such as `'ENOSPC'`; `'EBADMSG'` where bytes differ. */
  readonly code: string;
  /** The class of the error, such as `'NbdCommandError'`. */
  readonly name: string;
  /** The message: it may contain names of exports, hosts and paths. */
  readonly message: string;
  /** What was called, such as `'copy'`. */
  readonly syscall: string | null;
  /** First byte of what failed; null where that is not known. */
  readonly offset: string | null;
}

/** A dead letter: a range that failed for good, or an export that could not be planned. */
export interface FleetFailure extends FleetReason {
  /** The identity of the export. */
  readonly id: string;
  /** What was done with the export. */
  readonly kind: FleetKind;
  /** The URI or the name of its source. */
  readonly source: string;
  /** The same of the destination; null for a job without a destination. */
  readonly destination: string | null;
  /** `work`, or `verify` where it failed after copying; left out where planning failed. */
  readonly phase?: 'work' | 'verify';
  /** First byte of the range. */
  readonly start?: bigint;
  /** Its number of bytes. */
  readonly length?: bigint;
  /** How often it was tried. */
  readonly attempts?: number;
  /** When it failed for good, in milliseconds since 1970. */
  readonly at?: number;
}

export function reasonOf(error: unknown): FleetReason {
  const { code, name, message, syscall, offset } = Object(error) as Partial<NbdError>;
  return {
    code: typeof code === 'string' ? code : 'EIO',
    name: typeof name === 'string' ? name : typeof error,
    message: typeof message === 'string' ? message : String(error),
    syscall: typeof syscall === 'string' ? syscall : null,
    offset: typeof offset === 'bigint' ? String(offset) : null,
  };
}

/**
 * Whether another try may help. Unlike a flush, a range that is copied again writes again what a lost connection had put
 * at risk. What is not an error of this package is one of Redis.
 */
export const isTransient = (error: unknown): boolean =>
  !(error instanceof NbdError) || error instanceof NbdUnflushedError || error.transient;
