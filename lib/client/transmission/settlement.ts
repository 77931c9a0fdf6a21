// Announces and settles commands: debug messages, traces, the promise or the completion callback, and what is kept
// until a command is retired. Invariant: a command is settled once, and holds nothing of the caller's afterwards.

import { afterTick } from '../../util/platform.js';
import { NbdError } from '../../errors.js';
import type { Command } from './command.js';
import { describeCall, DISCONNECT } from '../../protocol/commands.js';
import type { AbortRegistry } from './abort-registry.js';
import { wrapThrown } from './call-errors.js';
import type { Completions } from './completions.js';
import type { DebugLog } from '../debug.js';
import { endTrace, isTraced, startTrace } from '../tracing.js';

/**
 * Settlement value of a command that succeeded; users may throw or abort with anything, `null` and `undefined`
 * included.
 */
export const SUCCESS = Symbol('success');

export class Settlement {
  readonly #handle: object;
  readonly #aborts: AbortRegistry;
  readonly #completions: Completions;
  readonly #debug: DebugLog;

  constructor(handle: object, aborts: AbortRegistry, completions: Completions, debug: DebugLog) {
    this.#handle = handle;
    this.#aborts = aborts;
    this.#completions = completions;
    this.#debug = debug;
  }

  /**
   * Reports a command that was accepted. It is the last step of accepting, because a listener may abort the command,
   * close the connection or disconnect.
   */
  announce(command: Command): void {
    if (!this.#debug.enabled && !isTraced()) return;
    command.entering = true;
    if (this.#debug.enabled)
      this.#debug.log(
        command.spec.method,
        `enter: ${describeCall(command.spec, command.count, command.offset)}, cookie ${command.cookie}`,
      );
    if (!command.settled) startTrace(command, this.#handle);
    command.entering = false;
  }

  /** `failure` is SUCCESS, or the reason of the failure, which can be any value. */
  settle(command: Command, failure: unknown): void {
    command.settled = true;
    const { signal, observer, resolve, reject, result } = command;
    if (signal !== null) this.#aborts.forget(command);
    const isTakenOver = observer !== null && failure !== SUCCESS;
    if (isTakenOver) observer.failed(command, failure, signal);
    // What still refers to the command, such as a dead object in V8's old generation, must not keep its data alive.
    command.result = undefined;
    command.buffer = null;
    command.payload = null;
    endTrace(command, failure !== SUCCESS, failure);
    if (this.#debug.enabled)
      this.#debug.log(
        command.spec.method,
        `leave: cookie ${command.cookie}${failure === SUCCESS ? '' : `: ${String(failure)}`}`,
      );
    if (reject !== null && resolve !== null) {
      command.resolve = null;
      command.reject = null;
      if (failure === SUCCESS) {
        resolve(result);
        observer?.succeeded(command);
      } else if (!isTakenOver) {
        reject(failure);
      }
    } else {
      this.#complete(command, failure);
    }
  }

  #complete(command: Command, failure: unknown): void {
    if (command.entering && command.completion !== null) {
      // The call has not returned the cookie yet.
      afterTick(() => {
        command.entering = false;
        this.#complete(command, failure);
      });
      return;
    }
    let kept: unknown = failure === SUCCESS ? null : (failure ?? wrapThrown(command, failure));
    const { completion } = command;
    command.completion = null;
    if (completion !== null) {
      try {
        const error = kept === null || kept instanceof NbdError ? kept : wrapThrown(command, kept);
        if (completion(error, BigInt(command.cookie)) === true) return;
      } catch (thrown) {
        // As in libnbd's Python binding, the command fails with what the callback throws.
        kept = thrown ?? wrapThrown(command, thrown);
      }
    }
    if (command.spec !== DISCONNECT) this.#completions.add(command.cookie, kept);
  }
}
