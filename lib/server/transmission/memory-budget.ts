// The memory that all connections of a server hold together: arriving payloads, running requests, waiting replies.
// Invariants: no connection takes more once the limit is reached, except for one request when nothing else is held;
// waiting connections are served in order; and a stalled client cannot withhold memory from the others.

import { clearInterval, setInterval, unrefTimer } from '../../util/timers.js';

/** The part of a connection that the budget uses. */
export interface BudgetHolder {
  /** Called when memory that was refused may be available. */
  roomAgain(): void;
  /** Whether there has been no progress for this many milliseconds because of the client, not the server. */
  isStalled(milliseconds: number): boolean;
  /** Ends the connection to get its memory back. */
  evict(): void;
}

/** Milliseconds that a client may make no progress while others wait for memory. */
const PATIENCE = 10_000;

export class MemoryBudget {
  readonly #limit: number;
  readonly #patience: number;
  readonly #accounts = new Set<MemoryAccount>();
  readonly #waiting = new Set<MemoryAccount>();
  #used = 0;
  #isServing = false;
  #timer: ReturnType<typeof setInterval> | null = null;

  constructor(limit: number, patience = PATIENCE) {
    this.#limit = limit;
    this.#patience = patience;
  }

  /** Bytes held at the moment. */
  get used(): number {
    return this.#used;
  }

  open(holder: BudgetHolder): MemoryAccount {
    const account = new MemoryAccount(this, holder);
    this.#accounts.add(account);
    return account;
  }

  /** Called by an account. */
  change(by: number): void {
    this.#used += by;
    if (by < 0) this.#serve();
  }

  /** Called by an account: whether it may take this many more bytes. If not, its holder is called back later. */
  admits(account: MemoryAccount, bytes: number): boolean {
    const isNext = this.#waiting.size === 0 || this.#waiting.values().next().value === account;
    if (isNext && (this.#used === 0 || this.#used + bytes <= this.#limit)) {
      this.#stopWaiting(account);
      return true;
    }
    this.#waiting.add(account);
    if (this.#timer !== null) return false;
    this.#timer = setInterval(() => {
      this.#evictOne();
    }, this.#patience);
    unrefTimer(this.#timer);
    return false;
  }

  /** Called by an account. */
  forget(account: MemoryAccount): void {
    this.#accounts.delete(account);
    this.#stopWaiting(account);
    this.#serve();
  }

  #stopWaiting(account: MemoryAccount): void {
    this.#waiting.delete(account);
    if (this.#waiting.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  #serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    for (;;) {
      const next = this.#waiting.values().next().value;
      if (next === undefined) break;
      next.wasRefused = false;
      next.holder.roomAgain();
      // If it was refused again it keeps its place; otherwise it has its memory, or no longer needs any.
      if (refused(next)) break;
      this.#stopWaiting(next);
    }
    this.#isServing = false;
  }

  #evictOne(): void {
    let largest: MemoryAccount | null = null;
    for (const account of this.#accounts) {
      if (account.held <= (largest?.held ?? 0) || !account.holder.isStalled(this.#patience)) continue;
      largest = account;
    }
    largest?.holder.evict();
  }
}

/** A function, because the compiler does not know that the holder changes this field. */
const refused = (account: MemoryAccount): boolean => account.wasRefused;

/** The memory that one connection holds. */
export class MemoryAccount {
  readonly holder: BudgetHolder;
  readonly #budget: MemoryBudget;
  /** For the budget: whether its last request was refused. */
  wasRefused = false;
  #held = 0;

  constructor(budget: MemoryBudget, holder: BudgetHolder) {
    this.#budget = budget;
    this.holder = holder;
  }

  get held(): number {
    return this.#held;
  }

  /** Sets the number of bytes held. */
  set(bytes: number): void {
    const by = bytes - this.#held;
    if (by === 0) return;
    this.#held = bytes;
    this.#budget.change(by);
  }

  /** Whether this many more bytes may be taken; if not, the holder's roomAgain() is called later. */
  mayTake(bytes: number): boolean {
    const isAdmitted = this.#budget.admits(this, bytes);
    this.wasRefused = !isAdmitted;
    return isAdmitted;
  }

  /** Called when the connection has ended. Bytes of requests still running count until set() releases them. */
  close(): void {
    this.#budget.forget(this);
  }
}
