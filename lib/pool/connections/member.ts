// One connection of a pool, with what is on it.

import type { Submission } from '../../client/api/submission.js';
import { submissionOf } from '../../client/connection.js';
import type { NbdConnection } from '../../client/node.js';
import type { CommandObserver } from '../../client/transmission/command.js';
import type { PoolTarget } from './targets.js';

/** What may be on one connection at a time. */
export interface Room {
  readonly maxInFlight: number;
  readonly maxInFlightBytes: number;
}

export class Member {
  readonly connection: NbdConnection;
  readonly submission: Submission;
  /** Follows the commands that were put on it without a task. */
  observer: CommandObserver | null = null;
  readonly target: PoolTarget;
  /** How many losses the pool had had when it was made: those of one number belong to one run of the server. */
  readonly epoch: number;
  /** Commands that the pool has put on it, and their payload. */
  inFlight = 0;
  bytes = 0;
  /** The same of aborted commands that the server may still be busy with. */
  #aborted = 0;
  #abortedBytes = 0;
  /** Takes no new commands: it is being closed, or its server has announced its end. */
  isLeaving = false;
  /** Closed by the pool: its end does not count as a loss. */
  isDismissed = false;
  /** It has ended, and not by the pool's doing. */
  isLost = false;
  /** The segment of its last acknowledged write, and the last one that a flush on it has covered. */
  wroteIn = 0;
  flushedThrough = 0;
  /** How often it was found idle since its last command. */
  idleLooks = 0;

  constructor(connection: NbdConnection, target: PoolTarget, epoch: number) {
    this.connection = connection;
    this.submission = submissionOf(connection);
    this.target = target;
    this.epoch = epoch;
  }

  begin(weight: number): void {
    this.inFlight++;
    this.bytes += weight;
    this.idleLooks = 0;
  }

  end(weight: number): void {
    this.bytes -= weight;
    this.inFlight--;
  }

  /** The command was aborted; whether its payload still moves, only the connection knows. */
  abandon(weight: number): void {
    this.end(weight);
    this.#aborted++;
    this.#abortedBytes += weight;
  }

  hasRoom(weight: number, room: Room): boolean {
    if (this.isLeaving || this.inFlight >= room.maxInFlight) return false;
    return this.bytes + weight <= room.maxInFlightBytes || this.bytes === 0;
  }

  /** Bytes in flight; of two with as many, the one with fewer commands has less. */
  get load(): number {
    if (this.#aborted > 0 && (!this.isLiving || this.connection.aioInFlight() <= this.inFlight)) {
      this.#aborted = 0;
      this.#abortedBytes = 0;
    }
    return this.bytes + this.#abortedBytes + (this.inFlight + this.#aborted) / 0x1_0000;
  }

  get isBusy(): boolean {
    return this.inFlight > 0;
  }

  get hasUnflushed(): boolean {
    return this.wroteIn > this.flushedThrough;
  }

  get isLiving(): boolean {
    return this.connection.aioIsReady() || this.connection.aioIsProcessing();
  }
}
