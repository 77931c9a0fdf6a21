// A worker: takes ranges from the queue, some at a time, until it is ended. Invariant: when it has ended, nothing of it is
// left: no connection to Redis or to a server, no timer, and no range that is not done, failed, or back in the queue.

import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { EventEmitter } from 'eventemitter3';
import { withJson } from '../bulk/ranges.js';
import { NbdError } from '../errors.js';
import { addAbortListener, removeAbortListener } from '../util/abort.js';
import {
  aBoolean,
  anObject,
  aString,
  checkOptions,
  milliseconds,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
  wholeNumber,
} from '../util/option-checks.js';
import {
  CONNECT_OPTIONS,
  endOptionsOf,
  FLEET_OPTIONS,
  type FleetConnectOptions,
  type FleetOptions,
  storeFor,
} from './options.js';
import { type EngineWorker, ignoreLateErrors } from './redis/engine.js';
import { DEFAULT_FLEET, prefixOf, QUEUE } from './redis/keys.js';
import { isSoon, type Store } from './redis/store.js';
import { aRedis, type FleetRedis } from './redis/target.js';
import type { FleetWorkerEvents } from './worker/events.js';
import { Processor } from './worker/processor.js';
import { Renewals } from './worker/renewals.js';
import { Watchdog } from './worker/watchdog.js';

/** How long a range that failed waits. Milliseconds. */
export interface FleetBackoff {
  /** Before the second attempt; each pause is twice the one before, half of it random. Default 1000. */
  delay?: number;
  /** Longest pause. Default 60,000. */
  maxDelay?: number;
}

/** What {@link work} takes. */
export interface WorkOptions extends FleetOptions, FleetConnectOptions {
  /** Ranges at a time. Default 4. */
  concurrency?: number;
  /**
   * Milliseconds for which a range belongs to a worker without being renewed: after them another worker may begin it. The
   * worker stops itself after 70 % of them. Default 30,000; at least 500.
   */
  lease?: number;
  /** How often a range is tried, where trying again may help (`error.transient`). Default 10. */
  attempts?: number;
  /** How long a range that failed waits. */
  backoff?: FleetBackoff;
  /** End when all that is planned is done, has failed or was cancelled. Default false: wait for more. */
  untilSettled?: boolean;
  /**
   * Start a small process that kills this one with SIGKILL when it does not answer for 85 % of a lease: a process that is
   * frozen, and continued later, then cannot send what it had handed to its sockets. For processes that do nothing else.
   * Default false.
   */
  watchdog?: boolean;
  /** The worker's name in {@link report}. Default: the name of the host and the process id. */
  name?: string;
  /** The most bytes in flight of one range. Default 64 MiB. */
  queueSize?: number;
  /** Bytes that are copied, at the most, between two checkpoints of a range. Default 256 MiB. */
  checkpointEvery?: number;
}

/** What a worker has done. */
export interface WorkResult {
  /** Ranges that are done. */
  readonly ranges: number;
  /** Bytes that were read, or asked for. */
  readonly moved: bigint;
  /** Attempts that failed, and were put back. */
  readonly retries: number;
  /** Ranges that failed for good. */
  readonly failures: number;
  /** Ranges that the worker had to stop working on. */
  readonly lost: number;
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const LEAST_LEASE = 500;

const aTime =
  (least: number): OptionCheck<number> =>
  (where, value) => {
    const time = milliseconds(where, value);
    if (time >= least) return time;
    throw refuse(where, `must be a finite number of milliseconds from ${least}, not ${shown(value)}`);
  };

const BACKOFF: OptionTable<FleetBackoff> = { delay: aTime(1), maxDelay: aTime(1) };

const WORK_OPTIONS: OptionTable<WorkOptions> = {
  ...FLEET_OPTIONS,
  ...CONNECT_OPTIONS,
  concurrency: wholeNumber(1, 1024),
  lease: aTime(LEAST_LEASE),
  attempts: wholeNumber(1, 100_000),
  backoff: (where, value) => checkOptions<FleetBackoff>(where, anObject(where, value), BACKOFF),
  untilSettled: aBoolean,
  watchdog: aBoolean,
  name: aString,
  queueSize: wholeNumber(1),
  checkpointEvery: wholeNumber(1),
};

const DEFAULT_CONCURRENCY = 4;
const DEFAULT_LEASE = 30_000;
const DEFAULT_ATTEMPTS = 10;
const DEFAULT_QUEUE = 64 * 1024 * 1024;
const DEFAULT_EVERY = 256 * 1024 * 1024;
/** Milliseconds between two looks at whether all is settled. */
const LOOK = 500;
/** Milliseconds for Redis to hear of ranges that are put back. */
const CLOSE_TIMEOUT = 5000;

/**
 * Starts a worker, which works on the ranges of a fleet until {@link FleetWorker.shutdown}. Any number of workers, in any
 * number of processes and machines, share a fleet. Every end that a job names must be reachable from each of them.
 *
 * @param redis A URL, options, or a client of ioredis.
 * @throws (rejects) NbdStrictError `EINVAL` for wrong options. NbdError `ENOTSUP` where bullmq is not installed;
 *   NbdConnectionError `ETIMEDOUT` where Redis does not answer. The signal's reason.
 */
export async function work(redis: FleetRedis, options: WorkOptions = {}): Promise<FleetWorker> {
  const checked = checkOptions<WorkOptions>('work', options, WORK_OPTIONS);
  const connection = aRedis('work: redis', redis);
  const store = await storeFor('work', redis, checked);
  try {
    const watchdog = checked.watchdog === true ? await Watchdog.start(checked.lease ?? DEFAULT_LEASE) : null;
    return new FleetWorker(store, connection, watchdog, checked);
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** A worker of a fleet; {@link work} makes it. */
export class FleetWorker extends EventEmitter<FleetWorkerEvents> {
  /** Name of the worker in {@link report}. */
  readonly name: string;
  /**
   * Resolves with what the worker has done when it has ended. Rejects with NbdError `ESTALE` when Redis has lost what was
   * planned, which ends the worker.
   */
  readonly done: Promise<WorkResult>;
  readonly #store: Store;
  readonly #worker: EngineWorker;
  readonly #processor: Processor;
  readonly #renewals: Renewals;
  readonly #watchdog: Watchdog | null;
  readonly #signal: AbortSignal | undefined;
  readonly #aborted = (): void => this.close();
  #looking: NodeJS.Timeout | undefined;
  #ending: Promise<void> | null = null;
  #isForced = false;
  #fleet = '';
  #error: Error | null = null;
  #isAway = false;
  #resolve: (result: WorkResult) => void = () => undefined;
  #reject: (error: Error) => void = () => undefined;

  /** @internal */
  constructor(store: Store, connection: object, watchdog: Watchdog | null, options: Partial<WorkOptions>) {
    super();
    const { lease = DEFAULT_LEASE, backoff = {}, concurrency = DEFAULT_CONCURRENCY, signal } = options;
    this.name = options.name ?? `${hostname()}:${process.pid}`;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => undefined);
    this.#store = store;
    this.#watchdog = watchdog;
    this.#signal = signal;
    const worker = randomUUID();
    this.#processor = new Processor({
      ...{ store, worker, lease },
      attempts: options.attempts ?? DEFAULT_ATTEMPTS,
      ends: endOptionsOf(options),
      queueSize: options.queueSize ?? DEFAULT_QUEUE,
      checkpointEvery: options.checkpointEvery ?? DEFAULT_EVERY,
      emit: (name, ...args) => this.#notify(name, ...args),
    });
    this.#renewals = new Renewals({
      ...{ store, worker, lease },
      describe: () => JSON.stringify({ name: this.name, lease, ranges: this.#processor.leases.length }),
      leases: () => this.#processor.leases,
      extend: (each) => this.#processor.extend(each),
      seen: (fleet) => this.#seen(fleet),
      ended: (each, why) => this.#processor.lost(each, why),
    });
    const { delay = 1000, maxDelay = 60_000 } = backoff;
    this.#worker = new store.engine.Worker(QUEUE, (job, token) => this.#processor.process(job, token ?? ''), {
      ...{ connection, concurrency, prefix: prefixOf(options.fleet ?? DEFAULT_FLEET) },
      lockDuration: lease,
      stalledInterval: Math.max(Math.floor(lease / 2), 100),
      // Leases are renewed together with it.
      skipLockRenewal: true,
      // A range of a worker that has ended is taken again, however often: it is counted where it fails.
      maxStalledCount: Number.MAX_SAFE_INTEGER,
      runRetryDelay: 1000,
      drainDelay: 2,
      settings: {
        backoffStrategy: (attempt: number) => {
          const pause = Math.min(delay * 2 ** Math.min(attempt - 1, 30), maxDelay);
          return Math.round(pause * (0.5 + Math.random() / 2));
        },
      },
      autorun: false,
    });
    ignoreLateErrors(this.#worker);
    this.#worker.on('error', (error) => this.#away(error));
    store.queue.on('error', (error) => this.#away(error));
    store.client.on('ready', this.#ready);
    this.#renewals.start();
    if (options.untilSettled === true) this.#look();
    if (signal !== undefined) addAbortListener(signal, this.#aborted);
    void this.#worker.run().catch((error: unknown) => this.#end(error as Error, true));
  }

  /** What the worker has done so far. */
  get statistics(): WorkResult {
    return withJson({ ...this.#processor.counts });
  }

  /**
   * Graceful end, for SIGTERM: takes no more ranges, lets those that it has end for `within` milliseconds, and puts the
   * rest back into the queue, from where another worker continues at the last checkpoint. Resolves when all is closed.
   *
   * @param options `within`: milliseconds, 0 to put all back at once. Default: no limit.
   */
  async shutdown(options: { within?: number } = {}): Promise<void> {
    const { within = Infinity } = checkOptions<{ within: number }>('shutdown', options, {
      within: (where, value) => (value === 0 ? 0 : milliseconds(where, value) || Infinity),
    });
    const ending = this.#end(null, false);
    if (within !== Infinity) {
      const timer = setTimeout(() => this.#processor.fence('shutdown'), within);
      await ending.finally(() => clearTimeout(timer));
    }
    await ending;
  }

  /** Immediate end: closes all connections at once. Its ranges are taken by others when their leases are over. */
  close(): void {
    void this.#end(null, true);
  }

  /** {@link shutdown} that puts all ranges back, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown({ within: 0 });
  }

  #end(error: Error | null, isForced: boolean): Promise<void> {
    this.#error ??= error;
    if (isForced) this.#force();
    this.#ending ??= this.#close();
    return this.#ending;
  }

  /** What is being worked on stops now. */
  #force(): void {
    this.#isForced = true;
    this.#processor.fence((this.#error as NbdError | null)?.code === 'ESTALE' ? 'emptied' : 'shutdown');
  }

  async #close(): Promise<void> {
    const store = this.#store;
    clearTimeout(this.#looking);
    if (this.#signal !== undefined) removeAbortListener(this.#signal, this.#aborted);
    this.#processor.end();
    // Waits for the ranges; the leases are renewed until then.
    const paused = this.#worker.pause().catch(() => undefined);
    await this.#settled(paused);
    this.#renewals.stop();
    store.client.off('ready', this.#ready);
    // It has no ranges any more: nothing is left to wait for.
    await isSoon(this.#worker.close(true));
    if (store.client.status === 'ready') {
      await isSoon(store.client.hdel(store.keys.workers, this.#processor.worker));
    }
    await store.close();
    this.#watchdog?.stop();
    const error = this.#error;
    if (error === null) this.#resolve(this.statistics);
    else this.#reject(error);
    this.#notify('close', error);
    this.removeAllListeners();
  }

  /** Resolves when no range is being worked on; a while after a forced end, whatever Redis does. */
  async #settled(paused: Promise<void>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      const look = (since: number | null): void => {
        const from = this.#isForced || this.#processor.leases.length === 0 ? (since ?? performance.now()) : null;
        if (from !== null && performance.now() - from > CLOSE_TIMEOUT) resolve();
        else timer = setTimeout(() => look(from), 100);
      };
      look(null);
    });
    await Promise.race([paused, late]);
    clearTimeout(timer);
  }

  #seen(fleet: string): void {
    if (this.#fleet === '') this.#fleet = fleet;
    if (fleet === this.#fleet) return;
    const why = fleet === '' ? 'has nothing of it any more' : 'has another one of that name';
    this.#end(
      new NbdError(
        `work: Redis has lost the fleet, or it was removed: it ${why}; plan again, and start the worker again`,
        { code: 'ESTALE', syscall: 'work', transient: false },
      ),
      true,
    ).catch(() => undefined);
  }

  #look(): void {
    this.#looking = setTimeout(() => {
      void this.#isSettled().then((isSettled) => {
        if (this.#ending !== null) return;
        if (isSettled) void this.#end(null, false);
        else this.#look();
      });
    }, LOOK);
  }

  async #isSettled(): Promise<boolean> {
    const { client, keys } = this.#store;
    try {
      const found = await client.hmget(keys.totals, 'exports', 'done', 'failed', 'cancelled', 'unplanned');
      const [exports = 0, ...settled] = found.map(Number);
      return settled.reduce((sum, count) => sum + count, 0) >= exports;
    } catch {
      return false;
    }
  }

  readonly #ready = (): void => {
    if (!this.#isAway) return;
    this.#isAway = false;
    this.#notify('back');
  };

  #away(error: Error): void {
    if (this.#isAway || this.#store.client.status === 'ready') return;
    this.#isAway = true;
    this.#notify('away', error);
  }

  #notify<Name extends keyof FleetWorkerEvents>(name: Name, ...args: Parameters<FleetWorkerEvents[Name]>): void {
    try {
      // The tuple of a generic name is not known to be the listener's.
      (this.emit as (event: string, ...args: unknown[]) => boolean).call(this, name, ...args);
    } catch (error) {
      // A listener that throws is a bug of its own: it surfaces as an uncaught exception.
      process.nextTick(() => {
        throw error;
      });
    }
  }
}
