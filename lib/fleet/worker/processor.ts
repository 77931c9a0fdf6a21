// What a worker does with a job of the queue. Invariant: whatever happens, the job goes on: it is done, has failed for
// good with its reason, or will be taken again.

import { setTimeout as sleep } from 'node:timers/promises';
import type { EndOptions } from '../ends.js';
import type { CheckedJob } from '../job.js';
import { placeOf } from '../ranges/cells.js';
import { combineFor, enqueueVerification, type RangeData } from '../ranges/queued.js';
import { isTransient, reasonOf } from '../reason.js';
import type { EngineJob } from '../redis/engine.js';
import type { Store } from '../redis/store.js';
import type { FleetRange, FleetWorkerEvents } from './events.js';
import { type FenceReason, Lease, type Moment, thisMoment } from './lease.js';
import { type RangeResult, runRange } from './run-range.js';

export interface ProcessorOptions {
  readonly store: Store;
  readonly worker: string;
  /** Milliseconds. */
  readonly lease: number;
  readonly attempts: number;
  readonly ends: EndOptions;
  readonly queueSize: number;
  readonly checkpointEvery: number;
  readonly emit: <Name extends keyof FleetWorkerEvents>(
    name: Name,
    ...args: Parameters<FleetWorkerEvents[Name]>
  ) => void;
}

/** A range that this worker has begun. */
interface Begun {
  readonly queued: EngineJob;
  /** Of BullMQ. */
  readonly token: string;
  readonly lease: Lease;
  readonly job: CheckedJob;
  readonly size: bigint;
  readonly destinationSize: bigint;
  readonly shown: FleetRange;
}

type Answer = readonly [state: string, ...rest: (string | null)[]];

const SETTLED = ['done', 'failed', 'cancelled'];
/** Milliseconds for which a range is put back whose server has no free slot, at least; up to twice that. */
const BUSY_DELAY = 1000;
/** Longest pause of a worker that finds nothing but ranges of busy servers. */
const LONGEST_PAUSE = 500;
/** Added to the time after which a lease of another worker is over. */
const HELD_DELAY = 50;

export class Processor {
  readonly #options: ProcessorOptions;
  readonly #leases = new Map<Lease, { readonly begun: Begun; readonly token: string; isLost: boolean }>();
  readonly #ending = new AbortController();
  /** What this worker has done. */
  readonly counts = { ranges: 0, moved: 0n, retries: 0, failures: 0, lost: 0 };
  #begun = 0;
  /** Ranges in a row whose servers were busy. */
  #busy = 0;

  constructor(options: ProcessorOptions) {
    this.#options = options;
  }

  /** The worker's identity in Redis. */
  get worker(): string {
    return this.#options.worker;
  }

  /** The leases of the ranges that are being worked on. */
  get leases(): Lease[] {
    return [...this.#leases.keys()];
  }

  /** No range begins any more. */
  end(): void {
    this.#ending.abort();
  }

  /** Renews BullMQ's own lock. What it answers does not matter: the lease decides. */
  extend(lease: Lease): void {
    const held = this.#leases.get(lease);
    held?.begun.queued.extendLock(held.token, this.#options.lease).catch(() => undefined);
  }

  /** Stops the work on all ranges at once. */
  fence(reason: FenceReason): void {
    for (const lease of this.leases) this.lost(lease, reason);
  }

  /** A lease has ended. */
  lost(lease: Lease, why: FenceReason): void {
    lease.fence(why);
    const held = this.#leases.get(lease);
    if (held === undefined || held.isLost) return;
    held.isLost = true;
    this.counts.lost++;
    this.#options.emit('lost', { ...held.begun.shown, why: lease.fenced ?? why });
  }

  async process(queued: EngineJob, token: string): Promise<void> {
    const { store, lease: duration, worker } = this.#options;
    const range = queued.data as RangeData;
    const { id, phase, index } = range;
    const own = `${worker}:${++this.#begun}`;
    while (!this.#ending.signal.aborted) {
      const from = thisMoment();
      const [state, ...rest] = (await store.run('begin', id, queued.id ?? '', own, duration, phase, index)) as Answer;
      if (state === 'ok') {
        this.#busy = 0;
        await this.#work(this.#beginning(queued, token, own, from, rest));
        return;
      }
      if (state === 'done') return this.#next(id, rest[0] ?? '');
      if (state === 'failed') throw new store.engine.UnrecoverableError(messageOf(rest[0] ?? ''));
      if (state === 'held') return this.#delay(queued, token, Number(rest[0]) + HELD_DELAY);
      if (state === 'busy') {
        await this.#pause(Math.min(2 ** this.#busy++, LONGEST_PAUSE));
        return this.#delay(queued, token, BUSY_DELAY * (1 + Math.random()));
      }
      // Cancelled, or gone with all that was planned.
      if (state !== 'young') return;
      await this.#pause(Math.min(Number(rest[0]), duration / 3));
      await queued.extendLock(token, duration);
    }
    return this.#putBack(queued, token);
  }

  #beginning(queued: EngineJob, token: string, own: string, from: Moment, found: readonly (string | null)[]): Begun {
    const range = queued.data as RangeData;
    const [text, size, destinationSize] = found;
    const job = JSON.parse(text ?? '{}') as CheckedJob;
    const lease: Lease = new Lease(queued.id ?? '', own, range, this.#options.lease, from, () =>
      this.lost(lease, 'expired'),
    );
    const { kind, source, destination } = job;
    const place = placeOf(range, BigInt(size ?? 0), job.rangeSize);
    return {
      ...{ queued, token, lease, job },
      size: BigInt(size ?? 0),
      destinationSize: BigInt(destinationSize ?? 0),
      shown: { id: range.id, kind, source, destination, phase: range.phase, ...place },
    };
  }

  async #work(begun: Begun): Promise<void> {
    const { store, ends, queueSize, checkpointEvery, emit } = this.#options;
    const { lease, job, size, destinationSize, shown, token } = begun;
    this.#leases.set(lease, { begun, token, isLost: false });
    const started = performance.now();
    let next: string | null;
    try {
      emit('begin', shown);
      const checkpoint = {
        every: checkpointEvery,
        load: () => store.client.get(store.keys.checkpoint(lease.job)),
        save: (text: string) => this.#save(lease, text),
      };
      const work = { ...{ job, size, destinationSize, lease, ends, queueSize, checkpoint }, range: lease.range };
      const result = await runRange(work);
      lease.check();
      lease.end();
      next = await this.#finish(begun, result, Math.round(performance.now() - started));
      if (next !== null) {
        this.counts.ranges++;
        this.counts.moved += result.moved;
        emit('done', { ...shown, moved: result.moved, time: Math.round(performance.now() - started) });
      }
    } catch (error) {
      lease.end();
      await this.#failed(begun, error);
      return;
    } finally {
      this.#leases.delete(lease);
    }
    if (next !== null) return this.#next(lease.range.id, next);
    return this.#delay(begun.queued, token, this.#options.lease);
  }

  async #save(lease: Lease, text: string): Promise<void> {
    lease.check();
    const answer = await this.#options.store.run('save', lease.job, lease.token, text);
    if (answer !== 'ok') this.lost(lease, 'lost');
    lease.check();
  }

  /** What comes next for the export; null where another worker has the range by now. */
  async #finish({ lease }: Begun, { moved, digest }: RangeResult, time: number): Promise<string | null> {
    const { job, token, range } = lease;
    const { id, phase, index, bytes } = range;
    const args = [id, job, token, phase, index, bytes, String(moved), time, digest];
    const [state, next] = (await this.#options.store.run('finish', ...args)) as Answer;
    if (state === 'ok') return next ?? '';
    if (state === 'gone') return '';
    this.lost(lease, 'lost');
    return null;
  }

  async #failed({ queued, token, lease, shown }: Begun, error: unknown): Promise<void> {
    const { store, attempts, emit, lease: duration } = this.#options;
    const { range } = lease;
    const { id, phase, index, bytes } = range;
    if (lease.fenced !== null) {
      await this.#release(lease, '', '');
      if (lease.fenced === 'cancelled') return;
      if (lease.fenced === 'shutdown') return this.#putBack(queued, token);
      return this.#delay(queued, token, duration);
    }
    const reason = reasonOf(error);
    const attempt = queued.attemptsMade + 1;
    if (isTransient(error) && attempt < attempts) {
      await this.#release(lease, 'retries', JSON.stringify(reason));
      this.counts.retries++;
      emit('retry', { ...shown, reason, attempt });
      throw new Error(reason.message);
    }
    const { offset: start, length } = shown;
    const letter = {
      ...reason,
      phase,
      index,
      bytes,
      start: String(start),
      length: String(length),
      attempts: attempt,
      at: Date.now(),
    };
    const args = [id, lease.job, lease.token, phase, index, JSON.stringify(letter)];
    const [state, next] = (await store.run('fail', ...args)) as Answer;
    if (state === 'lost') return this.#delay(queued, token, duration);
    if (state === 'ok') {
      this.counts.failures++;
      emit('failed', { ...shown, reason, attempts: attempt });
      await this.#next(id, next ?? '');
    }
    throw new store.engine.UnrecoverableError(reason.message);
  }

  /** Waits for nothing where Redis is away: the lease ends there by itself. */
  async #release(lease: Lease, counter: string, reason: string): Promise<void> {
    const { id } = lease.range;
    await this.#options.store.run('release', id, lease.job, lease.token, counter, reason).catch(() => undefined);
  }

  /** After a range: more of the export, its verification, its hash, or its end. */
  async #next(id: string, next: string): Promise<void> {
    const { store, emit } = this.#options;
    if (next === 'verify') await enqueueVerification(store, id);
    if (next === 'combine') await combineFor(store, id);
    const state = next === 'combine' ? 'done' : next;
    if (SETTLED.includes(state)) emit('export', id, state);
  }

  async #delay(queued: EngineJob, token: string, milliseconds: number): Promise<void> {
    // Without BullMQ's lock, which another worker may have by now, the job is not ours to move.
    await queued.moveToDelayed(Date.now() + Math.round(milliseconds), token).catch(() => undefined);
    throw new this.#options.store.engine.DelayedError();
  }

  async #putBack(queued: EngineJob, token: string): Promise<void> {
    await queued.moveToWait(token).catch(() => undefined);
    throw new this.#options.store.engine.WaitingError();
  }

  async #pause(milliseconds: number): Promise<void> {
    await sleep(milliseconds, undefined, { signal: this.#ending.signal }).catch(() => undefined);
  }
}

function messageOf(reason: string): string {
  const { message } = JSON.parse(reason) as { message?: string };
  return message ?? 'failed before';
}
