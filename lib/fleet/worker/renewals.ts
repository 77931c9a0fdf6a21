// Renewing the leases of a worker, all in one call. Invariant: a lease is extended by the time at which its renewal was
// asked for, never by the time of the answer: on a slow Redis that would be too long.

import type { Store } from '../redis/store.js';
import { type FenceReason, type Lease, thisMoment } from './lease.js';

/** Calls within the time of a lease. */
const CALLS = 5;

export interface RenewalsOptions {
  readonly store: Store;
  readonly worker: string;
  /** Milliseconds. */
  readonly lease: number;
  /** What the worker shows of itself. */
  readonly describe: () => string;
  /** The leases that it has. */
  readonly leases: () => Iterable<Lease>;
  /** Renews BullMQ's lock. */
  readonly extend: (lease: Lease) => void;
  /** The identity of the fleet's state in Redis; empty where there is none. */
  readonly seen: (fleet: string) => void;
  /** A lease has ended. */
  readonly ended: (lease: Lease, reason: FenceReason) => void;
}

export class Renewals {
  readonly #options: RenewalsOptions;
  #timer: NodeJS.Timeout | undefined;
  #isAsking = false;
  #isStopped = false;

  constructor(options: RenewalsOptions) {
    this.#options = options;
  }

  start(): void {
    const { lease } = this.#options;
    this.#timer = setInterval(() => void this.#renew(), Math.max(Math.floor(lease / CALLS), 10));
    void this.#renew();
  }

  stop(): void {
    this.#isStopped = true;
    clearInterval(this.#timer);
  }

  async #renew(): Promise<void> {
    const { store, worker, lease: duration, describe, leases, extend, seen, ended } = this.#options;
    const mine = [...leases()].filter((lease) => {
      // After a pause of the whole process this may come before the lease's own timer.
      if (!lease.isOver && !lease.holds) tryCheck(lease);
      return lease.fenced === null && !lease.isOver;
    });
    if (this.#isAsking) return;
    this.#isAsking = true;
    const from = thisMoment();
    try {
      for (const lease of mine) extend(lease);
      const args = mine.flatMap((lease) => [lease.range.id, lease.job, lease.token, `${lease.done} ${worker}`]);
      const answers = (await store.run('renew', duration, worker, describe(), ...args)) as string[];
      if (this.#isStopped) return;
      const [fleet = '', ...states] = answers;
      seen(fleet);
      for (const [index, state] of states.entries()) {
        const lease = mine[index] as Lease;
        if (state === 'ok') {
          lease.renewed(from);
        } else if (lease.fenced === null && !lease.isOver) {
          const reason = state === 'cancelled' ? 'cancelled' : 'lost';
          lease.fence(reason);
          ended(lease, reason);
        }
      }
    } catch {
      // Redis is away: leases end by themselves.
    } finally {
      this.#isAsking = false;
    }
  }
}

function tryCheck(lease: Lease): void {
  try {
    lease.check();
  } catch {
    // It is fenced now.
  }
}
