// What a worker reports while it works.

import type { FleetKind } from '../job.js';
import type { FleetReason } from '../reason.js';
import type { FenceReason } from './lease.js';

/** A range of an export, in the events of a worker. */
export interface FleetRange {
  /** The identity of the export. */
  readonly id: string;
  /** What is done with the export. */
  readonly kind: FleetKind;
  /** The URI or the name of its source. */
  readonly source: string;
  /** The same of the destination; null for a job without a destination. */
  readonly destination: string | null;
  /** `work`, or `verify` where what was copied is compared. */
  readonly phase: 'work' | 'verify';
  /** First byte. */
  readonly offset: bigint;
  /** Number of bytes. */
  readonly length: bigint;
}

/** A range is done. */
export interface FleetRangeDone extends FleetRange {
  /** Bytes that were read, or asked for. */
  readonly moved: bigint;
  /** Milliseconds. */
  readonly time: number;
}

/** A range failed, and is tried again. */
export interface FleetRangeRetry extends FleetRange {
  /** The error of this attempt. */
  readonly reason: FleetReason;
  /** The number of the attempt that failed, from 1. */
  readonly attempt: number;
}

/** A range failed for good. */
export interface FleetRangeFailed extends FleetRange {
  /** The error of the last attempt. */
  readonly reason: FleetReason;
  /** How often it was tried. */
  readonly attempts: number;
}

/** A worker had to stop working on a range; its connections have been closed. */
export interface FleetRangeLost extends FleetRange {
  /**
   * `expired`: the lease could not be renewed in time. `lost`: another worker has the range. `cancelled`, `shutdown`, and
   * `emptied` (Redis has lost what was planned) are what they are called.
   */
  readonly why: FenceReason;
}

/** Names and arguments of a worker's events. */
export interface FleetWorkerEvents {
  /** A range has begun. */
  begin: (range: FleetRange) => void;
  /** A range is done. */
  done: (range: FleetRangeDone) => void;
  /** A range failed, and is tried again. */
  retry: (range: FleetRangeRetry) => void;
  /** A range failed for good. */
  failed: (range: FleetRangeFailed) => void;
  /** The worker had to stop working on a range. */
  lost: (range: FleetRangeLost) => void;
  /** An export is settled: its identity, and `done`, `failed` or `cancelled`. */
  export: (id: string, state: string) => void;
  /** Redis cannot be reached. */
  away: (error: Error) => void;
  /** Redis can be reached again. */
  back: () => void;
  /** The worker has ended; null, or the error that has ended it. */
  close: (error: Error | null) => void;
}
