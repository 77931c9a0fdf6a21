// Pausing, cancelling, trying again and removing.

import { withJson } from '../bulk/ranges.js';
import { NbdError } from '../errors.js';
import { anArrayOf, aString, type OptionTable } from '../util/option-checks.js';
import { FLEET_OPTIONS, type FleetOptions, openFleet } from './options.js';
import { enqueueAll } from './ranges/queued.js';
import type { Store } from './redis/store.js';
import type { FleetRedis } from './redis/target.js';
import { takeSnapshot } from './snapshot.js';

/** What {@link cancel} and {@link retry} take. */
export interface SelectOptions extends FleetOptions {
  /** Identities of exports, as {@link report} lists them. Default: all. */
  ids?: readonly string[];
}

/** What {@link cancel} has done. */
export interface CancelResult {
  /** Exports that were cancelled. */
  readonly exports: number;
  /** For JSON.stringify. */
  toJSON(): Record<string, unknown>;
}

/** What {@link retry} has done. */
export interface RetryResult {
  /** Exports of which something is tried again. */
  readonly exports: number;
  /** Ranges that had failed. */
  readonly failed: number;
  /** Ranges that were put into the queue, those of cancelled exports included. */
  readonly ranges: number;
  /** For JSON.stringify. */
  toJSON(): Record<string, unknown>;
}

const SELECT_OPTIONS: OptionTable<SelectOptions> = { ...FLEET_OPTIONS, ids: anArrayOf(aString) };

/** Of the script `revive`. */
const NOTHING_FAILED = -2;
/** Identities that are asked for at a time. */
const BATCH = 500;

/** Workers take no more ranges until {@link resume}; those that they have are finished. */
export async function pause(redis: FleetRedis, options: FleetOptions = {}): Promise<void> {
  const { store } = await openFleet<FleetOptions>('pause', redis, options, FLEET_OPTIONS);
  await store.queue.pause().finally(() => store.close());
}

/** Reverts {@link pause}. */
export async function resume(redis: FleetRedis, options: FleetOptions = {}): Promise<void> {
  const { store } = await openFleet<FleetOptions>('resume', redis, options, FLEET_OPTIONS);
  await store.queue.resume().finally(() => store.close());
}

/**
 * Cancels exports that are not settled. Workers stop within a third of a lease; what was copied by then stays at the
 * destination. {@link retry} continues them.
 *
 * @throws (rejects) NbdStrictError `EINVAL` for wrong options. NbdError `ENOTSUP` where bullmq is not installed;
 *   NbdConnectionError `ETIMEDOUT` where Redis does not answer. The signal's reason.
 */
export async function cancel(redis: FleetRedis, options: SelectOptions = {}): Promise<CancelResult> {
  const { store, checked } = await openFleet<SelectOptions>('cancel', redis, options, SELECT_OPTIONS);
  let exports = 0;
  try {
    for await (const id of selected(store, checked)) exports += Number(await store.run('cancel', id));
    // What was left in the queue would be passed over one by one.
    if (checked.ids === undefined) await store.queue.drain(true);
    return withJson({ exports });
  } finally {
    await store.close();
  }
}

/**
 * Tries again what failed for good, and continues what was cancelled. A range whose verification found a difference is
 * copied again. What could not be planned is planned again by {@link plan}.
 *
 * @throws (rejects) As {@link cancel}.
 */
export async function retry(redis: FleetRedis, options: SelectOptions = {}): Promise<RetryResult> {
  const { store, checked } = await openFleet<SelectOptions>('retry', redis, options, SELECT_OPTIONS);
  const { signal } = checked;
  const counts = { exports: 0, failed: 0, ranges: 0 };
  try {
    for await (const id of selected(store, checked)) {
      const failed = Number(await store.run('revive', id));
      // Whatever was interrupted: what is left is in the queue.
      if (failed === NOTHING_FAILED) await enqueueAll(store, id, signal);
      if (failed < 0) continue;
      counts.exports++;
      counts.failed += failed;
      counts.ranges += await enqueueAll(store, id, signal);
    }
    return withJson(counts);
  } finally {
    await store.close();
  }
}

/**
 * Removes everything of a fleet from Redis. Workers that wait for its ranges end with `ESTALE`.
 *
 * @throws (rejects) NbdError `EBUSY` while ranges are being worked on: cancel them first. As {@link cancel}.
 */
export async function remove(redis: FleetRedis, options: FleetOptions = {}): Promise<void> {
  const { store } = await openFleet<FleetOptions>('remove', redis, options, FLEET_OPTIONS);
  try {
    const { running } = (await takeSnapshot(store, false)).ranges;
    // A fleet of the same name could begin a range again before its worker knows.
    if (running > 0) {
      throw new NbdError(`remove: ${running} ranges are being worked on; cancel them first`, {
        code: 'EBUSY',
        syscall: 'remove',
      });
    }
    // First, so that workers notice.
    await store.client.del(store.keys.info);
    await store.queue.obliterate({ force: true, count: 10_000 });
    let cursor = '0';
    do {
      const [next, keys] = await store.client.scan(
        cursor,
        'MATCH',
        `${store.keys.root.replace(/[[\]*?\\]/g, '\\$&')}*`,
        'COUNT',
        1000,
      );
      if (keys.length > 0) await store.client.del(...keys);
      cursor = next;
    } while (cursor !== '0');
  } finally {
    await store.close();
  }
}

async function* selected(
  store: Store,
  { ids, signal }: Partial<SelectOptions>,
): AsyncGenerator<string, void, undefined> {
  if (ids !== undefined) {
    yield* ids;
    return;
  }
  for (let start = 0; ; start += BATCH) {
    signal?.throwIfAborted();
    const found = await store.client.zrange(store.keys.exports, start, start + BATCH - 1);
    yield* found;
    if (found.length < BATCH) return;
  }
}
