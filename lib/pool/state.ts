// What the parts of a pool share.

import type { NbdError } from '../errors.js';
import type { Notify } from './events.js';
import type { PoolSettings } from './options.js';
import { UnflushedWrites } from './unflushed/unflushed.js';

export class PoolState {
  /** The public object, for tracing. */
  readonly pool: object;
  readonly settings: PoolSettings;
  readonly notify: Notify;
  readonly unflushed = new UnflushedWrites();
  readonly counts = { reconnects: 0, retries: 0, replayed: 0 };
  phase: 'open' | 'ending' | 'closed' = 'open';
  /** Why it has ended, where it did not by itself. */
  error: NbdError | null = null;
  /** Commands wait while lost writes are written again. */
  isHolding = false;
  /** What is not on the wire yet shall not be: nothing is issued again. */
  isAbandoning = false;
  isReferenced = true;
  /** Commands accepted and not settled. */
  unfinished = 0;

  constructor(pool: object, settings: PoolSettings, notify: Notify) {
    this.pool = pool;
    this.settings = settings;
    this.notify = notify;
  }
}
