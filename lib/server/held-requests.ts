// Requests that a fault holds until the test releases them.

import { NbdStateError } from '../errors.js';
import { addAbortListener, removeAbortListener } from '../util/abort.js';
import { anAbortSignal, wholeNumber } from '../util/option-checks.js';
import type { CommandName } from './transmission/command-name.js';

/** A request, as passed to `when` of a fault and to `onRequest` of a server. */
export interface FaultedRequest {
  /** The command. */
  readonly command: CommandName;
  /** NBD_CMD_FLAG_* bits. */
  readonly flags: number;
  /** First byte of the range. */
  readonly offset: number | bigint;
  /** Number of bytes of the range. */
  readonly count: number | bigint;
  /** The name of the export. */
  readonly exportName: string;
  /** The connection's number, from 1 in order of arrival. */
  readonly connection: number;
}

/** A request that is held. */
export interface HeldRequest {
  /** The request. */
  readonly request: FaultedRequest;
  /** Carries the request out, or sends its reply. Does nothing if it is not held any more. */
  release(): void;
}

interface Waiter {
  readonly count: number;
  readonly settle: (error: Error | null) => void;
}

export class HeldRequests {
  readonly #held = new Set<HeldRequest>();
  readonly #waiters = new Set<Waiter>();
  #closed = false;

  get all(): readonly HeldRequest[] {
    return [...this.#held];
  }

  add(request: FaultedRequest, released: () => void): () => void {
    const held = {
      request,
      release: (): void => {
        if (this.#held.delete(held)) released();
      },
    };
    this.#held.add(held);
    for (const waiter of [...this.#waiters]) if (this.#held.size >= waiter.count) waiter.settle(null);
    return () => {
      this.#held.delete(held);
    };
  }

  async until(count: number, signal: AbortSignal | undefined): Promise<readonly HeldRequest[]> {
    wholeNumber(1)('FaultPlan.untilHeld: count', count);
    if (signal !== undefined) anAbortSignal('FaultPlan.untilHeld: signal', signal);
    signal?.throwIfAborted();
    if (this.#held.size < count) {
      if (this.#closed) throw shutDown();
      await new Promise<void>((resolve, reject) => {
        const settle = (error: Error | null): void => {
          this.#waiters.delete(waiter);
          if (signal !== undefined) removeAbortListener(signal, aborted);
          if (error === null) resolve();
          else reject(error);
        };
        const aborted = (): void => {
          settle(signal?.reason as Error);
        };
        const waiter = { count, settle };
        this.#waiters.add(waiter);
        if (signal !== undefined) addAbortListener(signal, aborted);
      });
    }
    return this.all;
  }

  close(): void {
    this.#closed = true;
    for (const waiter of [...this.#waiters]) waiter.settle(shutDown());
  }
}

const shutDown = (): NbdStateError =>
  new NbdStateError('FaultPlan.untilHeld: the server is closed', { code: 'ESHUTDOWN', syscall: 'FaultPlan.untilHeld' });
