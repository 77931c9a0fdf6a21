// Debug messages: a log of a connection for people. While it is off, it costs one property read per command.

import { throwLater, writeError } from '../util/platform.js';
import { visible } from '../util/visible.js';

/**
 * Receives messages that would otherwise go to stderr; `context` is the method or the event that the message is about.
 */
export type DebugCallback = (context: string, message: string) => void;

/** Emits the `debug` event; returns false when it has no listener. Does not throw. */
export type DebugEmit = (context: string, message: string) => boolean;

export class DebugLog {
  /** Checked before a message is composed. */
  enabled: boolean;
  /** Replaces stderr, like a `debug` listener. */
  callback: DebugCallback | null = null;
  readonly #name: () => string;
  readonly #emit: DebugEmit;

  constructor(enabled: boolean, name: () => string, emit: DebugEmit) {
    this.enabled = enabled;
    this.#name = name;
    this.#emit = emit;
  }

  log(context: string, text: string): void {
    if (!this.enabled) return;
    const message = visible(text);
    const isHeard = this.#emit(context, message);
    if (this.callback === null) {
      if (isHeard) return;
      writeError(`nbd-sdk: debug: ${this.#name()}: ${context}: ${message}`);
      return;
    }
    try {
      this.callback(context, message);
    } catch (error) {
      // Thrown later, so that it cannot interrupt the operation that the message is about.
      throwLater(error);
    }
  }
}
