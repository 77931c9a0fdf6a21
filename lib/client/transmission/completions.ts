// Raw commands that have finished and have not been retired, for aioCommandCompleted and aioPeekCommandCompleted.

import { NbdStateError, NbdStrictError } from '../../errors.js';
import { warn } from '../../util/platform.js';
import { toU64 } from '../../protocol/strict.js';

const METHOD = 'aioCommandCompleted';

/** Warn once at this size: entries stay in memory until they are retired. */
const WARN_AT = 65_536;

export class Completions {
  readonly #finished = new Map<number, unknown>();
  #warned = false;

  /** Keeps the outcome of a command until it is retired: its error, or null for success. */
  add(cookie: number, error: unknown): void {
    this.#finished.set(cookie, error);
    if (this.#finished.size >= WARN_AT && !this.#warned) {
      this.#warned = true;
      warn(
        `${WARN_AT} completed NBD commands have not been retired: call aioCommandCompleted(cookie) for each, ` +
          'or let their completion callbacks return true',
        'NbdWarning',
        'NBD_UNRETIRED_COMMANDS',
      );
    }
  }

  /** The oldest one; 0n while commands are in flight and none has finished. */
  peek(inFlight: number): bigint {
    const oldest = this.#finished.keys().next().value;
    if (oldest !== undefined) return BigInt(oldest);
    if (inFlight > 0) return 0n;
    throw new NbdStateError('aioPeekCommandCompleted: no commands are in flight', {
      code: 'EINVAL',
      syscall: 'aioPeekCommandCompleted',
    });
  }

  /** Retires the command: returns true if it succeeded and throws its error if it failed; false if it is not known. */
  completed(cookie: unknown): boolean {
    const number = Number(toU64(cookie, METHOD, 'cookie'));
    if (number === 0) throw new NbdStrictError(`${METHOD}: invalid cookie 0`, { code: 'EINVAL', syscall: METHOD });
    const error = this.#finished.get(number);
    if (!this.#finished.delete(number)) return false;
    if (error !== null) throw error as Error;
    return true;
  }
}
