// The commands on the wire, by cookie: an open-addressed table that is only reallocated to grow.
//
// Why not a Map: after a number of deletions a Map allocates a new table, to which the old one points. Once such a dead
// table is in V8's old generation, all later tables survive each young collection, with every command and result that
// they ever held; reads of 4 KiB then spent a third of their time in full collections.

import type { Command } from './command.js';

const FIRST_CAPACITY = 64;

export class InFlightCommands {
  /** At most half full, so that a probe is short; a power of two. */
  #slots: (Command | null)[] = new Array<Command | null>(FIRST_CAPACITY).fill(null);
  #mask = FIRST_CAPACITY - 1;
  #size = 0;

  get(cookie: number): Command | undefined {
    const slots = this.#slots;
    const mask = this.#mask;
    for (let at = cookie & mask; ; at = (at + 1) & mask) {
      const command = slots[at] as Command | null;
      if (command === null) return undefined;
      if (command.cookie === cookie) return command;
    }
  }

  /** The cookie must not be in the table already. */
  add(command: Command): void {
    if (++this.#size * 2 > this.#slots.length) this.#grow();
    this.#place(command);
  }

  /** Returns false if the command is not in the table. */
  delete(command: Command): boolean {
    const slots = this.#slots;
    const mask = this.#mask;
    let hole = command.cookie & mask;
    while (slots[hole] !== command) {
      if (slots[hole] === null) return false;
      hole = (hole + 1) & mask;
    }
    this.#size--;
    // Entries behind it move up, unless that would put them in front of their cookie's own slot.
    for (let at = (hole + 1) & mask; slots[at] !== null; at = (at + 1) & mask) {
      const follower = slots[at] as Command;
      if (((at - follower.cookie) & mask) < ((at - hole) & mask)) continue;
      slots[hole] = follower;
      hole = at;
    }
    slots[hole] = null;
    return true;
  }

  /** All of them, oldest first. */
  list(): Command[] {
    const commands = this.#slots.filter((command) => command !== null);
    return commands.sort((a, b) => a.cookie - b.cookie);
  }

  clear(): void {
    this.#slots.fill(null);
    this.#size = 0;
  }

  #place(command: Command): void {
    let at = command.cookie & this.#mask;
    while (this.#slots[at] !== null) at = (at + 1) & this.#mask;
    this.#slots[at] = command;
  }

  #grow(): void {
    const before = this.#slots;
    const capacity = before.length * 2;
    this.#slots = new Array<Command | null>(capacity).fill(null);
    this.#mask = capacity - 1;
    for (const command of before) if (command !== null) this.#place(command);
  }
}
