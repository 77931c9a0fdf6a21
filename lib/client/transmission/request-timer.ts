// requestTimeout: one coarse timer for all commands of a connection, none per command.
//
// Replies share one link: while an earlier command makes progress, a later one is only queued behind it, so earlier
// progress counts for it. Later progress does not, or a server could starve one command for ever.

import { NbdConnectionError } from '../../errors.js';
import { callDetails, describeCall } from '../../protocol/commands.js';
import type { Command } from './command.js';
import { NBD_CMD_DISC } from '../../protocol/constants.js';
import { unrefTimer } from '../../util/timers.js';
import type { InFlightCommands } from './in-flight-commands.js';

/** Sweeps per timeout: a command times out at most an eighth late. */
const SWEEPS = 8;

export class RequestTimer {
  readonly #timeout: number;
  readonly #inFlight: InFlightCommands;
  readonly #onTimeout: (error: NbdConnectionError) => void;
  #timer: NodeJS.Timeout | null = null;
  #sweep = 0;
  /** Lowest cookie that made progress since the last sweep; every later command is considered alive. */
  #passed = Infinity;

  /** `timeout` in milliseconds; 0 disables it. */
  constructor(timeout: number, inFlight: InFlightCommands, onTimeout: (error: NbdConnectionError) => void) {
    this.#timeout = timeout;
    this.#inFlight = inFlight;
    this.#onTimeout = onTimeout;
  }

  /** The command was issued, or a part of its reply was received. */
  touch(command: Command | null): void {
    if (command !== null) command.sweep = this.#sweep;
  }

  /** The command finished, or bytes of its payload were sent: commands behind it have made progress. */
  passed(command: Command): void {
    if (command.cookie < this.#passed) this.#passed = command.cookie;
  }

  start(): void {
    if (this.#timeout === 0 || this.#timer !== null) return;
    this.#timer = setInterval(
      () => {
        this.#check();
      },
      Math.max(1, Math.ceil(this.#timeout / SWEEPS)),
    );
    unrefTimer(this.#timer);
  }

  stop(): void {
    if (this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  #check(): void {
    let latest = -Infinity;
    const passed = this.#passed;
    this.#passed = Infinity;
    const now = this.#sweep++;
    for (const command of this.#inFlight.list()) {
      if (command.cookie > passed) latest = now;
      latest = command.sweep = Math.max(command.sweep, latest);
      if (command.spec.type === NBD_CMD_DISC || this.#sweep - command.sweep <= SWEEPS) continue;
      const { spec, count, offset } = command;
      this.#onTimeout(
        new NbdConnectionError(
          `${describeCall(spec, count, offset)}: no reply within ${this.#timeout} ms (requestTimeout); ` +
            'NBD cannot cancel a command, so the connection is given up',
          { code: 'ETIMEDOUT', cookie: BigInt(command.cookie), sent: true, ...callDetails(spec, count, offset) },
        ),
      );
      return;
    }
  }
}
