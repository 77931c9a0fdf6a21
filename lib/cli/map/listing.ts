// A list that is printed when all of it is known: lines of text, or the elements of a JSON array.

import type { CommandContext } from '../command.js';
import { Spool } from '../output/spool.js';

/** Characters that are put together before they go to the spool. */
const PIECE = 64 * 1024;

export class Listing {
  readonly #spool: Spool;
  readonly #isJson: boolean;
  #text: string;
  #isFirst = true;

  constructor(context: CommandContext, isJson: boolean) {
    this.#spool = new Spool(context);
    this.#isJson = isJson;
    this.#text = isJson ? '[\n' : '';
  }

  /** Adds a line with its end, or an element. Returns a promise to wait for where there is one. */
  add(item: string): Promise<void> | null {
    this.#text += this.#isJson && !this.#isFirst ? `,\n${item}` : item;
    this.#isFirst = false;
    if (this.#text.length < PIECE) return null;
    const text = this.#text;
    this.#text = '';
    return this.#spool.write(text);
  }

  /** Prints the list, and `tail` below it. */
  async print(tail = ''): Promise<void> {
    await this.#spool.write(this.#isJson ? `${this.#text}\n]\n` : this.#text);
    await this.#spool.write(tail);
    await this.#spool.print();
  }
}
