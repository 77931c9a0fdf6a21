// AbortSignals of commands. There is one listener per signal and connection, however many commands share it: a listener
// for each costs a microsecond and causes Node's MaxListenersExceededWarning from eleven on. Invariant: a signal
// without commands has no listener.

import type { Command } from './command.js';
import { addAbortListener, removeAbortListener } from '../../util/abort.js';

interface Watch<Item> {
  readonly commands: Set<Item>;
  readonly listener: () => void;
}

export class AbortRegistry<Item extends { signal: AbortSignal | null } = Command> {
  readonly #watches = new Map<AbortSignal, Watch<Item>>();
  readonly #onAbort: (command: Item, reason: unknown) => void;

  constructor(onAbort: (command: Item, reason: unknown) => void) {
    this.#onAbort = onAbort;
  }

  watch(command: Item, signal: AbortSignal): void {
    command.signal = signal;
    const watch = this.#watches.get(signal);
    if (watch !== undefined) {
      watch.commands.add(command);
      return;
    }
    const commands = new Set([command]);
    const listener = (): void => {
      this.#watches.delete(signal);
      for (const each of commands) this.#onAbort(each, signal.reason);
    };
    this.#watches.set(signal, { commands, listener });
    addAbortListener(signal, listener);
  }

  forget(command: Item): void {
    const { signal } = command;
    if (signal === null) return;
    command.signal = null;
    const watch = this.#watches.get(signal);
    if (watch === undefined) return;
    watch.commands.delete(command);
    if (watch.commands.size === 0) {
      this.#watches.delete(signal);
      removeAbortListener(signal, watch.listener);
    }
  }
}
