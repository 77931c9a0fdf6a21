// Redraws a few lines at the bottom of a terminal. On anything else it prints nothing.

import type { WriteStream } from 'node:tty';
import { visible } from '../../util/visible.js';

/** Milliseconds between two drawings: a faster one cannot be read. */
const PAUSE = 100;
const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;

export class Screen {
  readonly #stream: WriteStream;
  #drawn = 0;
  #last = -Infinity;
  #pending: readonly string[] | null = null;

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  /** Whether anything is shown. */
  get isShown(): boolean {
    return this.#stream.isTTY;
  }

  /** Shows these lines in place of the last ones; what does not fit is cut off. */
  show(lines: readonly string[]): void {
    if (!this.isShown) return;
    this.#pending = lines;
    if (performance.now() - this.#last >= PAUSE) this.#draw(lines);
  }

  /** Leaves the last lines as they are; what is printed from now on comes below them. */
  end(): void {
    if (this.#pending !== null) this.#draw(this.#pending);
    this.#drawn = 0;
  }

  #draw(lines: readonly string[]): void {
    // A terminal that reports no size has a size of 0.
    const columns = this.#stream.columns || DEFAULT_COLUMNS;
    const rows = this.#stream.rows || DEFAULT_ROWS;
    // The last column is left free: a terminal that wraps there would have one line more than was counted.
    const cut = lines.slice(0, rows - 1).map((line) => visible(line).slice(0, columns - 1));
    const back = this.#drawn === 0 ? '\r' : `\x1b[${this.#drawn}A\r`;
    this.#stream.write(`${back}\x1b[J${cut.map((line) => `${line}\n`).join('')}`);
    this.#drawn = cut.length;
    this.#last = performance.now();
    this.#pending = null;
  }
}
