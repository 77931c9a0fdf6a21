// Debug messages: what happens on a connection, for a person. Costs one property read per command while it is off.

/** Gets what would otherwise go to stderr; `context` is the method or the event that the message is about. */
export type DebugCallback = (context: string, message: string) => void;

export class DebugLog {
  /** Whether anything is to be said: looked at before a message is made. */
  enabled: boolean;
  /** In place of stderr. */
  callback: DebugCallback | null = null;
  readonly #name: () => string;

  constructor(enabled: boolean, name: () => string) {
    this.enabled = enabled;
    this.#name = name;
  }

  say(context: string, message: string): void {
    if (!this.enabled) return;
    if (this.callback === null) {
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
