// Limits what is on the wire at once, in commands and in bytes of payload. A command is sent at once if there is a free
// credit and no other command waits; otherwise it waits in a p-queue, first come first served.
// Invariant: a credit is returned only by release(), which the reply or the end of the connection calls.

import PQueue from 'p-queue';
import { NbdQueueFullError } from '../../errors.js';
import { callDetails, describeCall } from '../../protocol/commands.js';
import { type Command, STAGE_FINISHED } from './command.js';

export interface WindowLimits {
  readonly maxInFlight: number;
  readonly maxInFlightBytes: number;
  readonly maxQueued: number;
}

/**
 * A batch of waiting commands: one task of the p-queue, which runs until its last command has its credit. One task per
 * command would cost 2 µs and almost 1 KB each, half of what a command costs altogether.
 */
class Lot {
  commands: (Command | undefined)[] = [];
  next = 0;
  finish: (() => void) | null = null;
}

const STARTED = Promise.resolve();

/** With fewer aborted commands than this, it is not worth going through the line. */
const COMPACT_AT = 256;

export class InFlightWindow {
  readonly #limits: WindowLimits;
  readonly #issue: (command: Command) => void;
  readonly #onDrain: () => void;
  readonly #line = new PQueue({ concurrency: 1 });
  /** Oldest first. Not a Set, for the reason given in in-flight-commands.ts. */
  #lots: Lot[] = [];
  /** The lot whose first command waits for a credit; and the last lot, which commands may join until its turn comes. */
  #current: Lot | null = null;
  #open: Lot | null = null;
  #inFlight = 0;
  #inFlightBytes = 0;
  #waiting = 0;
  /** Aborted commands in the line: they are skipped, or removed when they are the majority. */
  #cancelled = 0;
  /** A command was refused with EAGAIN: its caller waits for 'drain'. */
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

  /** Issues the command now, or as soon as those before it have been issued and a credit is free. */
  admit(command: Command): void {
    if (this.#lots.length === 0 && this.#hasCredit(command)) {
      this.#take(command);
      return;
    }
    this.#waiting++;
    this.#lastLot().commands.push(command);
  }

  /** Returns a credit. */
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

  /** A waiting command was aborted: it keeps its place in the line and is skipped. */
  cancel(): void {
    this.#waiting--;
    if (++this.#cancelled >= COMPACT_AT && this.#cancelled > this.#waiting) this.#compact();
    // The command behind one that was too large may fit.
    if (this.#current !== null) this.#run(this.#current);
    if (this.#waiting === 0) this.#drained();
  }

  #drained(): void {
    this.#refused = false;
    this.#onDrain();
  }

  /**
   * Removes aborted commands, so that a line that does not move, because the server has stalled, does not hold them.
   */
  #compact(): void {
    this.#cancelled = 0;
    for (const lot of this.#lots) {
      lot.commands = lot.commands.filter((command) => command !== undefined && command.stage !== STAGE_FINISHED);
      lot.next = 0;
    }
  }

  /**
   * Takes every waiting command out of the line, in order. The lists are not copied, because there may be a million
   * commands: they contain gaps, and commands that were aborted (FINISHED).
   */
  takeWaiting(): (Command | undefined)[][] {
    const waiting = this.#lots.map((lot) => lot.commands);
    for (const lot of this.#lots) lot.commands = [];
    // p-queue's own promises of these lots stay pending for ever; nothing waits for them.
    this.#line.clear();
    this.#lots = [];
    this.#current?.finish?.();
    this.#current = null;
    this.#open = null;
    this.#waiting = 0;
    this.#cancelled = 0;
    return waiting;
  }

  /** Takes out everything, finally: 'drain' is not emitted any more. */
  stop(): (Command | undefined)[][] {
    this.#refused = false;
    return this.takeWaiting();
  }

  #hasCredit(command: Command): boolean {
    const { maxInFlight, maxInFlightBytes } = this.#limits;
    if (this.#inFlight >= maxInFlight) return false;
    // A command larger than the whole budget is sent when it is alone.
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
    // One microtask later, so that the continuations of one batch of replies can join before its turn comes.
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
      // A credit was returned before the lot's turn came.
      if (hadWaiting && this.#waiting === 0) this.#drained();
      return undefined;
    }
    return new Promise((resolve) => {
      lot.finish = resolve;
    });
  }

  /** Issues the lot's commands while there are credits; returns true when all have been issued. */
  #run(lot: Lot): boolean {
    while (lot.next < lot.commands.length) {
      const command = lot.commands[lot.next];
      if (command !== undefined && command.stage !== STAGE_FINISHED) {
        if (!this.#hasCredit(command)) return false;
        this.#waiting--;
        this.#take(command);
      }
      // A lot may be long: do not hold commands that have been issued.
      lot.commands[lot.next++] = undefined;
    }
    this.#lots.shift(); // they are run in order
    this.#current = null;
    lot.finish?.();
    return true;
  }
}
