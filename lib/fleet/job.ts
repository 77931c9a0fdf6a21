// What a fleet works on: one export, or a pair of them, and what to do with it. Invariant: two jobs with the same
// identity are one job, however often they are planned.

import { createHash } from 'node:crypto';
import {
  aBoolean,
  anObject,
  aString,
  checkOptions,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
  wholeNumber,
} from '../util/option-checks.js';

/** What is done with an export. */
export type FleetKind = 'prefetch' | 'copy' | 'compare' | 'hash' | 'backup';

/** Limits of one job. Those of servers hold for the whole fleet, however many workers there are. */
export interface FleetLimits {
  /** The most ranges at a time that read from the server of the source. Default: no limit. */
  source?: number;
  /** The most ranges at a time that use the server of the destination. Default: no limit. */
  destination?: number;
  /** Bytes per second that each range of a copy or backup reads. Default: no limit. */
  rate?: number;
}

/** One export, or a pair of them, and what to do with it. It is stored in Redis as it is, URIs included. */
export interface FleetJob {
  /**
   * `prefetch`: the server reads the data of `source` into its cache. `copy`: `source` to `destination`, zeroes included.
   * `compare`: all bytes of both. `hash`: the block hash of `source` with `rangeSize` as the block size. `backup`: what
   * `bitmap` marks as changed, from `source` to `destination`, which has the state before the changes.
   */
  kind: FleetKind;
  /** An NBD URI, or what {@link WorkOptions.resolve} makes a target of. */
  source: string;
  /** The same, for `copy`, `compare` and `backup`. */
  destination?: string;
  /** The dirty bitmap of a `backup`: `b0`, or `qemu:dirty-bitmap:b0`. */
  bitmap?: string;
  /**
   * Bytes of one range: a power of 2 from 64 KiB, and a multiple of the exports' minimum block size; for `hash` at most
   * 1 GiB. Default 1 GiB.
   */
  rangeSize?: number;
  /** How much may run at a time. */
  limits?: FleetLimits;
  /** Compare source and destination after a `copy` or `backup`. Default true. */
  verify?: boolean;
  /** Read holes too when comparing, instead of relying on the block status of both servers. Default false. */
  readHoles?: boolean;
  /** The destination of a `copy` reads as zeroes: zeroes are left out. Default false. */
  destinationIsZero?: boolean;
}

/** A job with its defaults, as it is stored. */
export interface CheckedJob {
  readonly kind: FleetKind;
  readonly source: string;
  readonly destination: string | null;
  readonly bitmap: string | null;
  readonly rangeSize: number;
  readonly limits: { readonly source: number; readonly destination: number; readonly rate: number };
  readonly verify: boolean;
  readonly readHoles: boolean;
  readonly destinationIsZero: boolean;
}

const KINDS = ['prefetch', 'copy', 'compare', 'hash', 'backup'] as const;
const DEFAULT_RANGE = 2 ** 30;
const LEAST_RANGE = 2 ** 16;
const MOST_RANGE = 2 ** 40;
/** The block hash has no larger blocks. */
const MOST_HASHED = 2 ** 30;
/** Characters of an identity: 80 bits. */
const ID_LENGTH = 20;

const aPowerOfTwo: OptionCheck<number> = (where, value) => {
  if (typeof value === 'number' && value >= LEAST_RANGE && value <= MOST_RANGE && Number.isInteger(Math.log2(value))) {
    return value;
  }
  throw refuse(where, `must be a power of 2 from ${LEAST_RANGE} to ${MOST_RANGE}, not ${shown(value)}`);
};

const aName: OptionCheck<string> = (where, value) => {
  if (aString(where, value) === '') throw refuse(where, 'must not be empty');
  return value as string;
};

const LIMITS: OptionTable<FleetLimits> = { source: wholeNumber(1), destination: wholeNumber(1), rate: wholeNumber(1) };

const JOB: OptionTable<FleetJob> = {
  kind: oneOf(...KINDS),
  source: aName,
  destination: aName,
  bitmap: aName,
  rangeSize: aPowerOfTwo,
  limits: (where, value) => checkOptions<FleetLimits>(where, anObject(where, value), LIMITS),
  verify: aBoolean,
  readHoles: aBoolean,
  destinationIsZero: aBoolean,
};

/** Whether a kind has two ends. */
export const isPair = (kind: FleetKind): boolean => kind === 'copy' || kind === 'compare' || kind === 'backup';
/** Whether a kind writes to its destination. */
export const isWriting = (kind: FleetKind): boolean => kind === 'copy' || kind === 'backup';

/** @throws NbdStrictError `EINVAL` for what is not a job. */
export function checkJob(where: string, given: unknown): CheckedJob {
  const job = checkOptions<FleetJob>(where, anObject(where, given), JOB);
  const { kind, source, destination, bitmap, limits = {} } = job;
  const rangeSize = job.rangeSize ?? DEFAULT_RANGE;
  if (kind === undefined) throw refuse(where, `kind is missing: one of ${KINDS.join(', ')}`);
  if (source === undefined) throw refuse(where, 'source is missing: an NBD URI');
  const refuseFor = (key: keyof FleetJob | 'limits.destination' | 'limits.rate', isGiven: boolean): void => {
    if (isGiven) throw refuse(`${where}: ${key}`, `has no meaning for ${kind}`);
  };
  if (!isPair(kind)) {
    refuseFor('destination', destination !== undefined);
    refuseFor('limits.destination', limits.destination !== undefined);
    refuseFor('readHoles', job.readHoles !== undefined);
  } else if (destination === undefined) {
    throw refuse(where, `destination is missing: an NBD URI, for ${kind}`);
  }
  if (!isWriting(kind)) {
    refuseFor('verify', job.verify !== undefined);
    refuseFor('limits.rate', limits.rate !== undefined);
  } else if (source === destination) {
    throw refuse(where, 'the source and the destination are the same');
  }
  if (kind === 'backup' && bitmap === undefined) throw refuse(where, 'bitmap is missing: the dirty bitmap of a backup');
  refuseFor('bitmap', kind !== 'backup' && bitmap !== undefined);
  refuseFor('destinationIsZero', kind !== 'copy' && job.destinationIsZero !== undefined);
  if (kind === 'hash' && rangeSize > MOST_HASHED) {
    throw refuse(`${where}: rangeSize`, `must be at most ${MOST_HASHED} for hash, whose blocks the ranges are`);
  }
  return {
    ...{ kind, source, rangeSize, destination: destination ?? null, bitmap: bitmap ?? null },
    limits: { source: limits.source ?? 0, destination: limits.destination ?? 0, rate: limits.rate ?? 0 },
    verify: isWriting(kind) && job.verify !== false,
    readHoles: job.readHoles ?? false,
    destinationIsZero: job.destinationIsZero ?? false,
  };
}

/** What a job is called: the same for all jobs that do the same with the same exports. */
export function identityOf({ kind, source, destination, bitmap }: CheckedJob): string {
  const text = JSON.stringify([kind, source, destination, bitmap]);
  return createHash('sha256').update(text).digest('hex').slice(0, ID_LENGTH);
}
