// How a fleet is doing, again and again.

import { setTimeout as sleep } from 'node:timers/promises';
import { withJson } from '../bulk/ranges.js';
import { NbdError } from '../errors.js';
import { aBoolean, milliseconds, type OptionCheck, refuse } from '../util/option-checks.js';
import { FLEET_OPTIONS, type FleetOptions, openFleet } from './options.js';
import type { FleetRedis } from './redis/target.js';
import { type FleetSnapshot, takeSnapshot } from './snapshot.js';

/** What {@link watch} takes. */
export interface WatchOptions extends FleetOptions {
  /** Milliseconds between two looks. Default 1000. */
  every?: number;
  /** Go on when all is settled. Default false. */
  forever?: boolean;
  /** Show short hashes in place of servers and workers. Default false. */
  mask?: boolean;
}

/** A fleet at one moment, and how fast it is. */
export interface FleetProgress extends FleetSnapshot {
  /** Redis does not answer: all else is what it answered last. */
  readonly away: boolean;
  /** Bytes of data that were done per second, as an average of the last ten seconds. */
  readonly rate: number;
  /** Milliseconds left, at this rate; null while there is nothing to estimate from. */
  readonly eta: number | null;
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const aPause: OptionCheck<number> = (where, value) => {
  const pause = milliseconds(where, value);
  if (pause > 0) return pause;
  throw refuse(where, 'must be a finite number of milliseconds above 0');
};

const WATCH_OPTIONS = { ...FLEET_OPTIONS, every: aPause, forever: aBoolean, mask: aBoolean };

const DEFAULT_PAUSE = 1000;
/** Milliseconds over which the rate is averaged. */
const WINDOW = 10_000;
/** Milliseconds without an answer after which Redis counts as away. */
const PATIENCE = 2000;

/**
 * Yields the state of a fleet now, and then every second, until every export is settled.
 *
 * @throws NbdStrictError `EINVAL` for wrong options. NbdError `ENOTSUP` where bullmq is not installed, `ESTALE` when Redis
 *   has lost what was planned; NbdConnectionError `ETIMEDOUT` where Redis does not answer at the beginning. The signal's
 *   reason.
 *
 * @example
 * for await (const { ranges, rate } of watch('redis://localhost')) console.log(ranges.done, '/', ranges.total, rate);
 */
export async function* watch(
  redis: FleetRedis,
  options: WatchOptions = {},
): AsyncGenerator<FleetProgress, void, undefined> {
  const { store, checked } = await openFleet<WatchOptions>('watch', redis, options, WATCH_OPTIONS);
  const { every = DEFAULT_PAUSE, forever = false, mask = false, signal } = checked;
  const pause = (time: number): Promise<void> =>
    sleep(time, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted());
  const rates = new Rates();
  let last: FleetSnapshot | null = null;
  try {
    for (;;) {
      signal?.throwIfAborted();
      const next = takeSnapshot(store, mask);
      next.catch(() => undefined);
      let found = await within(next, PATIENCE);
      while (found === null) {
        if (last !== null) yield progressOf(last, rates, true);
        found = await Promise.race([next, pause(every).then(() => null)]);
      }
      if (last !== null && found.id !== last.id && last.id !== '') throw lost(found.id);
      last = found;
      rates.add(found.bytes.done);
      yield progressOf(found, rates, false);
      if (found.settled && !forever) return;
      await pause(every);
    }
  } finally {
    await store.close();
  }
}

async function within<Value>(promise: Promise<Value>, time: number): Promise<Value | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), time);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function progressOf(snapshot: FleetSnapshot, rates: Rates, away: boolean): FleetProgress {
  const rate = away ? 0 : rates.rate;
  const left = Number(snapshot.bytes.total - snapshot.bytes.done);
  const eta = snapshot.settled ? 0 : rate > 0 ? Math.round((left * 1000) / rate) : null;
  return withJson({ ...snapshot, away, rate, eta });
}

const lost = (id: string): NbdError =>
  new NbdError(
    `watch: Redis has lost the fleet, or it was removed: it has ${id === '' ? 'nothing of it any more' : 'another one of that name'}; plan again`,
    { code: 'ESTALE', syscall: 'watch', transient: false },
  );

class Rates {
  #samples: { readonly time: number; readonly bytes: bigint }[] = [];

  add(bytes: bigint): void {
    const time = performance.now();
    this.#samples.push({ time, bytes });
    while (this.#samples.length > 2 && (this.#samples[1]?.time ?? 0) <= time - WINDOW) this.#samples.shift();
  }

  get rate(): number {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.time <= first.time) return 0;
    return Math.max((Number(last.bytes - first.bytes) * 1000) / (last.time - first.time), 0);
  }
}
