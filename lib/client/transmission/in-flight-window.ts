// What may be on the wire at once, in commands and in bytes of payload. A command that finds a free credit and
// nobody waiting goes straight out; everything else waits, first come first served, in a p-queue.
// Invariant: a credit comes back only through release(), which the reply or the end of the connection calls.

import PQueue from 'p-queue';
import { NbdQueueFullError } from '../../errors.js';
import { callDetails, type Command, describeCall, STAGE_FINISHED } from '../../protocol/command.js';

export interface WindowLimits {
  readonly maxInFlight: number;
  readonly maxInFlightBytes: number;
  readonly maxQueued: number;
}

/**
 * The commands that came to the end of the line while the same lot was the last in it. Adding to a p-queue costs 2 µs
 * and most of a kilobyte, a whole command 4 µs; so its tasks are lots, each run until its last command has its credit.
 */
class Lot {
  commands: (Command | undefined)[] = [];
  next = 0;
  finish: (() => void) | null = null;
}

const STARTED = Promise.resolve();

/** Fewer aborted commands than this are not worth a walk along the line. */
const COMPACT_AT = 256;

export class InFlightWindow {
  readonly #limits: WindowLimits;
  readonly #issue: (command: Command) => void;
  readonly #onDrain: () => void;
  readonly #line = new PQueue({ concurrency: 1 });
  /** Oldest first. No Set, for the reason told in in-flight-commands.ts. */
  #lots: Lot[] = [];
  /** The lot whose head waits for a credit, and the last one, which more may join until it is its turn. */
  #current: Lot | null = null;
  #open: Lot | null = null;
  #inFlight = 0;
  #inFlightBytes = 0;
  #waiting = 0;
  /** Commands in the line that were aborted: they are passed over, or removed when they are the most of it. */
  #cancelled = 0;
  /** Somebody was refused and told to wait for 'drain'. */
  #refused = false;

  constructor(limits: WindowLimits, issue: (command: Command) => void, onDrain: () => void) {
    this.#limits = limits;
    this.#issue = issue;
    this.#onDrain = onDrain;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Bytes of payload per command in flight. */
  get averageWeight(): number {
    return this.#inFlight === 0 ? 0 : this.#inFlightBytes / this.#inFlight;
  }

  /** Throws NbdQueueFullError when the command would have to wait and `maxQueued` others do. */
  checkRoom(command: Command): void {
    if (this.#waiting < this.#limits.maxQueued || (this.#lots.length === 0 && this.#hasCredit(command))) return;
    this.#refused = true;
    const { spec, count, offset } = command;
    throw new NbdQueueFullError(
      `${describeCall(spec, count, offset)}: ${this.#waiting} commands are waiting already (maxQueued); wait for 'drain'`,
      { code: 'EAGAIN', ...callDetails(spec, count, offset) },
    );
  }

  /** Issues the command now or as soon as those before it have gone and a credit is free. */
  admit(command: Command): void {
    if (this.#lots.length === 0 && this.#hasCredit(command)) {
      this.#take(command);
      return;
    }
    this.#waiting++;
    this.#lastLot().commands.push(command);
  }

  /** A credit comes back. */
  release(command: Command): void {
    this.#inFlight--;
    this.#inFlightBytes -= command.weight;
    if (this.#current !== null) {
      this.#run(this.#current);
      if (this.#waiting === 0) this.#drained();
    } else if (this.#refused && this.#waiting === 0) {
      this.#drained();
    }
  }

  /** A command that waits will not be issued; its place in the line is passed over. */
  cancel(): void {
    this.#waiting--;
    if (++this.#cancelled >= COMPACT_AT && this.#cancelled > this.#waiting) this.#compact();
    // What waited behind one that was too large may find room where that one did not.
    if (this.#current !== null) this.#run(this.#current);
    if (this.#waiting === 0) this.#drained();
  }

  #drained(): void {
    this.#refused = false;
    this.#onDrain();
  }

  /** A line that does not move, because the server has stalled, does not hold what was aborted in it. */
  #compact(): void {
    this.#cancelled = 0;
    for (const lot of this.#lots) {
      lot.commands = lot.commands.filter((command) => command !== undefined && command.stage !== STAGE_FINISHED);
      lot.next = 0;
    }
  }

  /**
   * Takes every waiting command out of the line, in order. As it lay there, because there may be a million: with gaps,
   * and with those that were aborted (FINISHED).
   */
  takeWaiting(): (Command | undefined)[][] {
    const waiting = this.#lots.map((lot) => lot.commands);
    for (const lot of this.#lots) lot.commands = [];
    // p-queue's own promises of these lots stay pending for ever, which nobody waits for.
    this.#line.clear();
    this.#lots = [];
    this.#current?.finish?.();
    this.#current = null;
    this.#open = null;
    this.#waiting = 0;
    this.#cancelled = 0;
    return waiting;
  }

  /** Takes out everything, for good: there is no 'drain' any more. */
  stop(): (Command | undefined)[][] {
    this.#refused = false;
    return this.takeWaiting();
  }

  #hasCredit(command: Command): boolean {
    const { maxInFlight, maxInFlightBytes } = this.#limits;
    if (this.#inFlight >= maxInFlight) return false;
    // A command larger than the whole budget goes when it is alone.
    return this.#inFlightBytes + command.weight <= maxInFlightBytes || this.#inFlightBytes === 0;
  }

  #take(command: Command): void {
    this.#inFlight++;
    this.#inFlightBytes += command.weight;
    this.#issue(command);
  }

  #lastLot(): Lot {
    if (this.#open !== null) return this.#open;
    const lot = new Lot();
    this.#open = lot;
    this.#lots.push(lot);
    // One microtask on, so that it is its turn no sooner than the continuations of one batch of replies have joined.
    queueMicrotask(() => {
      if (this.#lots.includes(lot)) void this.#line.add(() => this.#start(lot) ?? STARTED);
    });
    return lot;
  }

  #start(lot: Lot): Promise<void> | undefined {
    if (!this.#lots.includes(lot)) return undefined;
    if (this.#open === lot) this.#open = null;
    this.#current = lot;
    const hadWaiting = this.#waiting > 0;
    if (this.#run(lot)) {
      // A credit came back before it was the lot's turn.
      if (hadWaiting && this.#waiting === 0) this.#drained();
      return undefined;
    }
    return new Promise((resolve) => {
      lot.finish = resolve;
    });
  }

  /** Issues the lot's commands while there are credits; true when none is left. */
  #run(lot: Lot): boolean {
    while (lot.next < lot.commands.length) {
      const command = lot.commands[lot.next];
      if (command !== undefined && command.stage !== STAGE_FINISHED) {
        if (!this.#hasCredit(command)) return false;
        this.#waiting--;
        this.#take(command);
      }
      // The lot may be long and its end far away: what has gone is not held.
      lot.commands[lot.next++] = undefined;
    }
    this.#lots.shift(); // they are run in order
    this.#current = null;
    lot.finish?.();
    return true;
  }
}
