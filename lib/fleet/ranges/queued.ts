// The ranges of an export in the queue. Invariant: what is not done and has not failed is in the queue, or being worked
// on: whatever was interrupted, adding everything that is not done again is always right.

import { jobId, type Phase } from '../redis/keys.js';
import type { QueuedRange, Store } from '../redis/store.js';
import { combineDigests } from './block-hash.js';
import { decodePlan, isSet, type Plan } from './cells.js';

/** What a job of the queue contains: the range, and which export it is of. */
export interface RangeData {
  readonly id: string;
  readonly phase: Phase;
  readonly index: number;
  readonly first: number;
  readonly count: number;
  /** Bytes that hold data, or have changed. */
  readonly bytes: number;
}

/** Ranges that are added at a time. */
const BATCH = 1000;

/** Adds all ranges of an export that are not done, those of its verification when its work is; their number. */
export async function enqueueAll(store: Store, id: string, signal?: AbortSignal, known?: Plan): Promise<number> {
  const plan = known ?? (await planOf(store, id));
  if (plan === null) return 0;
  const added = await enqueue(store, id, 'work', plan, signal);
  if (added > 0 || (await store.client.hget(store.keys.export(id), 'verify')) !== '1') return added;
  return enqueue(store, id, 'verify', plan, signal);
}

/** Adds all ranges of the verification that are not done. */
export async function enqueueVerification(store: Store, id: string): Promise<void> {
  const plan = await planOf(store, id);
  if (plan !== null) await enqueue(store, id, 'verify', plan);
}

async function enqueue(store: Store, id: string, phase: Phase, plan: Plan, signal?: AbortSignal): Promise<number> {
  const bits = await store.client.getBuffer(`${store.keys.root}${phase}:${id}`);
  let batch: QueuedRange[] = [];
  let added = 0;
  const flush = async (): Promise<void> => {
    signal?.throwIfAborted();
    await store.add(batch);
    added += batch.length;
    batch = [];
  };
  for (const [index, { first, count, bytes }] of plan.ranges.entries()) {
    if (isSet(bits, index)) continue;
    const data: RangeData = { id, phase, index, first, count, bytes };
    batch.push({ jobId: jobId(id, phase, index), data });
    if (batch.length === BATCH) await flush();
  }
  await flush();
  return added;
}

async function planOf(store: Store, id: string): Promise<Plan | null> {
  const text = await store.client.get(store.keys.plan(id));
  return text === null ? null : decodePlan(text);
}

/** All digests of an export's ranges are there: makes its hash of them. */
export async function combineFor(store: Store, id: string): Promise<void> {
  const plan = await planOf(store, id);
  if (plan === null) return;
  const digests = await store.client.hgetall(store.keys.digests(id));
  // Another worker was here first.
  if ((await store.client.hget(store.keys.export(id), 'result')) !== null) return;
  await store.run('conclude', id, combineDigests(plan, digests));
}
