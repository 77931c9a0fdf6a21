// Planning: exports are cut into ranges, which are put into the queue. Invariant: a job is planned once. The first plan
// that is stored counts, for every planner; ranges that are there already are not added again.

import { randomUUID } from 'node:crypto';
import { inLanes } from '../bulk/lanes.js';
import { withJson } from '../bulk/ranges.js';
import { aFunction, refuse, shown, wholeNumber } from '../util/option-checks.js';
import type { EndOptions } from './ends.js';
import { type CheckedJob, checkJob, type FleetJob, identityOf } from './job.js';
import {
  CONNECT_OPTIONS,
  endOptionsOf,
  FLEET_OPTIONS,
  type FleetConnectOptions,
  type FleetOptions,
  openFleet,
} from './options.js';
import { decodePlan, encodePlan } from './ranges/cells.js';
import { cutExport } from './ranges/cut.js';
import { combineFor, enqueueAll } from './ranges/queued.js';
import { type FleetFailure, reasonOf } from './reason.js';
import type { Store } from './redis/store.js';
import type { FleetRedis } from './redis/target.js';
import { serverOf } from './servers.js';

/** What {@link plan} takes. */
export interface PlanOptions extends FleetOptions, FleetConnectOptions {
  /** Exports that are asked for their block status at a time. Default 8. */
  concurrency?: number;
  /** Called after each job. */
  onProgress?: (progress: PlanProgress) => void;
}

/** How far {@link plan} has come. */
export interface PlanProgress {
  /** Jobs that have been gone through. */
  readonly jobs: number;
  /** Those of them that were planned. */
  readonly planned: number;
  /** Those of them that had been planned before. */
  readonly already: number;
  /** Those of them that could not be planned. */
  readonly failed: number;
  /** Ranges that were planned. */
  readonly ranges: number;
  /** Bytes of data in them. */
  readonly bytes: bigint;
}

/** What {@link plan} has done. */
export interface PlanResult extends PlanProgress {
  /** The identity of the fleet's state in Redis: another one after Redis was emptied. */
  readonly id: string;
  /** Why jobs could not be planned: the first 1000. {@link report} has all of them. */
  readonly failures: readonly FleetFailure[];
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const PLAN_OPTIONS = {
  ...FLEET_OPTIONS,
  ...CONNECT_OPTIONS,
  concurrency: wholeNumber(1, 1024),
  onProgress: aFunction,
};

const DEFAULT_CONCURRENCY = 8;
const MOST_FAILURES = 1000;

/**
 * Plans jobs: asks every export what it holds, cuts that into ranges and puts them into the queue of the workers. A job
 * that was planned before, by whichever planner, is not planned again; a planner that was interrupted is continued by
 * the next one. Jobs are taken from the iterable a few at a time, so that there may be any number of them.
 *
 * An export that cannot be planned (its server is away, the destination is too small or read-only) does not end it: it is
 * listed in the result, and in the report, and is planned anew by the next call.
 *
 * @param redis A URL, options, or a client of ioredis.
 * @throws (rejects) NbdStrictError `EINVAL` for wrong options and for what is not a job: jobs before it have been planned
 *   by then. NbdError `ENOTSUP` where bullmq is not installed; NbdConnectionError `ETIMEDOUT` where Redis does not answer.
 *   What the iterable throws. The signal's reason.
 */
export async function plan(
  redis: FleetRedis,
  jobs: FleetJob | Iterable<FleetJob> | AsyncIterable<FleetJob>,
  options: PlanOptions = {},
): Promise<PlanResult> {
  const list = jobsOf(jobs);
  const { store, checked } = await openFleet<PlanOptions>('plan', redis, options, PLAN_OPTIONS);
  const { signal, onProgress, concurrency = DEFAULT_CONCURRENCY } = checked;
  const counts = { jobs: 0, planned: 0, already: 0, failed: 0, ranges: 0, bytes: 0n };
  const failures: FleetFailure[] = [];
  try {
    await store.client.hsetnx(store.keys.info, 'id', randomUUID());
    await store.client.hsetnx(store.keys.info, 'createdAt', Date.now());
    const id = (await store.client.hget(store.keys.info, 'id')) ?? '';
    const ends = endOptionsOf(checked);
    await inLanes(
      Symbol.asyncIterator in list ? list[Symbol.asyncIterator]() : list[Symbol.iterator](),
      concurrency,
      async (job) => {
        const outcome = await planOne(store, job, ends, signal);
        counts.jobs++;
        counts[outcome.state]++;
        if (outcome.state === 'planned') {
          counts.ranges += outcome.ranges;
          counts.bytes += outcome.bytes;
        } else if (outcome.state === 'failed' && failures.length < MOST_FAILURES) {
          failures.push(outcome.failure);
        }
        onProgress?.({ ...counts });
      },
      signal,
    );
    return withJson({ id, ...counts, failures });
  } finally {
    await store.close();
  }
}

/** Jobs that are there already are checked before anything is done. */
function jobsOf(jobs: unknown): Iterable<CheckedJob> | AsyncIterable<CheckedJob> {
  if (typeof jobs !== 'object' || jobs === null) {
    throw refuse('plan: jobs', `must be a job, or an iterable of jobs, not ${shown(jobs)}`);
  }
  if (Array.isArray(jobs)) return jobs.map((job, index) => checkJob(`plan: jobs[${index}]`, job));
  if (Symbol.iterator in jobs || Symbol.asyncIterator in jobs) return checkedJobs(jobs as Iterable<unknown>);
  return [checkJob('plan: job', jobs)];
}

async function* checkedJobs(
  jobs: Iterable<unknown> | AsyncIterable<unknown>,
): AsyncGenerator<CheckedJob, void, undefined> {
  let index = 0;
  for await (const job of jobs) yield checkJob(`plan: jobs[${index++}]`, job);
}

type Outcome =
  | { readonly state: 'planned'; readonly ranges: number; readonly bytes: bigint }
  | { readonly state: 'already' }
  | { readonly state: 'failed'; readonly failure: FleetFailure };

async function planOne(
  store: Store,
  job: CheckedJob,
  ends: EndOptions,
  signal: AbortSignal | undefined,
): Promise<Outcome> {
  const id = identityOf(job);
  const { kind, source, destination, limits, verify } = job;
  const state = await store.run(
    'claim',
    ...[id, 'job', JSON.stringify(job), 'kind', kind, 'verify', verify ? 1 : 0],
    ...['sourceServer', serverOf(source), 'sourceLimit', limits.source],
    ...(destination === null
      ? []
      : ['destinationServer', serverOf(destination), 'destinationLimit', limits.destination]),
  );
  if (state !== 'planning') {
    // What an interrupted planner, or a Redis that has lost its last seconds, has left out.
    if (state === 'planned') await enqueueAll(store, id, signal);
    return { state: 'already' };
  }
  try {
    const { plan: cells, destinationSize } = await cutExport(job, ends, signal);
    const bytes = cells.ranges.reduce((sum, range) => sum + BigInt(range.bytes), 0n);
    const text = encodePlan(cells);
    const [stored, isFirst, next] = (await store.run(
      'commit',
      ...[id, text, String(cells.size), String(destinationSize), cells.ranges.length, String(bytes)],
    )) as [string, number, string];
    if (stored !== '') await enqueueAll(store, id, signal, decodePlan(stored));
    if (next === 'combine') await combineFor(store, id);
    return isFirst === 1 ? { state: 'planned', ranges: cells.ranges.length, bytes } : { state: 'already' };
  } catch (error) {
    signal?.throwIfAborted();
    const reason = reasonOf(error);
    await store.run('unplan', id, JSON.stringify(reason));
    return { state: 'failed', failure: { id, source, destination, kind, ...reason } };
  }
}
