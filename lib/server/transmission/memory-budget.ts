// The memory that all connections of a server hold together: payloads that arrive, requests that run, replies that wait.
// Invariants: nobody takes more while the limit is reached, but for one request when nothing else is held; who waits is
// served in order; and a client that stands still cannot keep it from the others.

import { clearInterval, setInterval } from 'node:timers';

/** A connection, as the budget needs it. */
export interface BudgetHolder {
  /** What did not fit may fit now. */
  roomAgain(): void;
  /** Whether the client, and not the server, has been at a standstill for this many milliseconds. */
  isStalled(milliseconds: number): boolean;
  /** Ends the connection to get its memory back. */
  evict(): void;
}

/** How long a client may stand still while others wait for memory. */
const PATIENCE = 10_000;

export class MemoryBudget {
  readonly #limit: number;
  readonly #patience: number;
  readonly #accounts = new Set<MemoryAccount>();
  readonly #waiting = new Set<MemoryAccount>();
  #used = 0;
  #isServing = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(limit: number, patience = PATIENCE) {
    this.#limit = limit;
    this.#patience = patience;
  }

  /** Bytes that are held now. */
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

  /** Called by an account: whether it may take this much more. If not, its holder is called when it may. */
  admits(account: MemoryAccount, bytes: number): boolean {
    const isNext = this.#waiting.size === 0 || this.#waiting.values().next().value === account;
    if (isNext && (this.#used === 0 || this.#used + bytes <= this.#limit)) {
      this.#stopWaiting(account);
      return true;
    }
    this.#waiting.add(account);
    this.#timer ??= setInterval(() => {
      this.#evictOne();
    }, this.#patience).unref();
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
      // Refused again, it keeps its place; otherwise it has got what it wanted, or wants no more.
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

/** The holder has changed it behind the compiler's back. */
const refused = (account: MemoryAccount): boolean => account.wasRefused;

/** What one connection holds. */
export class MemoryAccount {
  readonly holder: BudgetHolder;
  readonly #budget: MemoryBudget;
  /** For the budget: its last question was answered with no. */
  wasRefused = false;
  #held = 0;

  constructor(budget: MemoryBudget, holder: BudgetHolder) {
    this.#budget = budget;
    this.holder = holder;
  }

  get held(): number {
    return this.#held;
  }

  /** Sets what is held now. */
  set(bytes: number): void {
    const by = bytes - this.#held;
    if (by === 0) return;
    this.#held = bytes;
    this.#budget.change(by);
  }

  /** Whether this much more may be taken; if not, the holder's roomAgain() is called later. */
  mayTake(bytes: number): boolean {
    const isAdmitted = this.#budget.admits(this, bytes);
    this.wasRefused = !isAdmitted;
    return isAdmitted;
  }

  /** The connection is gone. What still runs for it counts until set() takes it back. */
  close(): void {
    this.#budget.forget(this);
  }
}
