// What became of what was planned.

import { withJson } from '../bulk/ranges.js';
import { aBoolean, wholeNumber } from '../util/option-checks.js';
import { makeMask } from './mask.js';
import { FLEET_OPTIONS, type FleetOptions, openFleet } from './options.js';
import type { FleetFailure } from './reason.js';
import type { FleetRedis } from './redis/target.js';
import { exportsIn, type FleetExport, type FleetSnapshot, takeSnapshot } from './snapshot.js';

/** What {@link report} takes. */
export interface ReportOptions extends FleetOptions {
  /** Show short hashes in place of URIs, servers and workers, and no messages of servers. Default false. */
  mask?: boolean;
  /** List all exports. Default true. */
  exports?: boolean;
  /** The most failures that are listed. Default 10,000. */
  failures?: number;
}

/** What {@link report} found. */
export interface FleetReport extends Omit<FleetSnapshot, 'exports'> {
  /** Numbers of exports. */
  readonly counts: FleetSnapshot['exports'];
  /** All exports, in the order of their planning; empty with `exports: false`. */
  readonly exports: readonly FleetExport[];
  /** What failed for good, and what could not be planned. */
  readonly failures: readonly FleetFailure[];
  /** Milliseconds from the beginning of the first range to the end of the last export, or to now; null before. */
  readonly time: number | null;
  /** Bytes that were read, or asked for, per second of `time`. */
  readonly rate: number;
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const REPORT_OPTIONS = { ...FLEET_OPTIONS, mask: aBoolean, exports: aBoolean, failures: wholeNumber(0) };

const MOST_FAILURES = 10_000;

/**
 * What succeeded, what failed and why, bytes and rates, for each export and each server.
 *
 * @throws (rejects) NbdStrictError `EINVAL` for wrong options. NbdError `ENOTSUP` where bullmq is not installed;
 *   NbdConnectionError `ETIMEDOUT` where Redis does not answer. The signal's reason.
 */
export async function report(redis: FleetRedis, options: ReportOptions = {}): Promise<FleetReport> {
  const { store, checked } = await openFleet<ReportOptions>('report', redis, options, REPORT_OPTIONS);
  const { mask = false, exports: isListing = true, failures: most = MOST_FAILURES, signal } = checked;
  try {
    const { exports: counts, ...snapshot } = await takeSnapshot(store, mask);
    const list: FleetExport[] = [];
    const failures: FleetFailure[] = [];
    let first = Infinity;
    let last = 0;
    for await (const { found, failures: failed } of exportsIn(store, makeMask(mask, snapshot.id))) {
      signal?.throwIfAborted();
      if (isListing) list.push(found);
      for (const failure of failed) if (failures.length < most) failures.push(failure);
      first = Math.min(first, found.startedAt ?? Infinity);
      last = Math.max(last, found.endedAt ?? 0);
    }
    const until = snapshot.settled ? last : Date.now();
    const time = first === Infinity ? null : Math.max(until - first, 0);
    const rate = time === null || time === 0 ? 0 : (Number(snapshot.moved) * 1000) / time;
    return withJson({ ...snapshot, counts, exports: list, failures, time, rate });
  } finally {
    await store.close();
  }
}
