// Debug messages: what happens on a connection, for a person. Costs one property read per command while it is off.

import { visible } from '../util/visible.js';

/** Gets what would otherwise go to stderr; `context` is the method or the event that the message is about. */
export type DebugCallback = (context: string, message: string) => void;

/** Tells the listeners of the `debug` event; false when there is none. Does not throw. */
export type DebugEmit = (context: string, message: string) => boolean;

export class DebugLog {
  /** Whether anything is to be said: looked at before a message is made. */
  enabled: boolean;
  /** In place of stderr, as listeners are. */
  callback: DebugCallback | null = null;
  readonly #name: () => string;
  readonly #emit: DebugEmit;

  constructor(enabled: boolean, name: () => string, emit: DebugEmit) {
    this.enabled = enabled;
    this.#name = name;
    this.#emit = emit;
  }

  say(context: string, text: string): void {
    if (!this.enabled) return;
    const message = visible(text);
    const isHeard = this.#emit(context, message);
    if (this.callback === null) {
      if (isHeard) return;
      process.stderr.write(`nbd-sdk: debug: ${this.#name()}: ${context}: ${message}\n`);
      return;
    }
    try {
      this.callback(context, message);
    } catch (error) {
      // Never inside whatever was being told of.
      process.nextTick(() => {
        throw error;
      });
    }
  }
}
