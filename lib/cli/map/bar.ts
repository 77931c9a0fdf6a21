// The map as one line for a terminal: a coloured block per cell, and a legend.

import { describeType } from './contexts.js';
import { CellGrid, cellColour, colourOf } from './cells.js';
import { type Run, Totals } from './runs.js';
import type { Range } from '../range.js';
import { type Paint, roundSize } from '../output/text.js';

/** Without colours, each cell is a letter for the type that most of its bytes have. */
const LETTERS = ['#', '.', '0', '-'];

export class MapBar {
  readonly #name: string;
  readonly #paint: Paint;
  readonly #grid: CellGrid;
  readonly #totals = new Totals();

  constructor(name: string, range: Range, paint: Paint, columns: number) {
    const width = BigInt(Math.max(10, Math.min(columns, 120) - 2));
    this.#name = name;
    this.#paint = paint;
    this.#grid = new CellGrid(range, (range.length + width - 1n) / width);
  }

  add(run: Run): void {
    this.#grid.add(run);
    this.#totals.add(run);
  }

  get text(): string {
    const [name, paint] = [this.#name, this.#paint];
    if (this.#grid.cells.length === 0) return '';
    const bar = this.#grid.cells
      .map((cell) => {
        if (paint.on) return `\u001b[48;2;${cellColour(name, cell).light.join(';')}m \u001b[0m`;
        const [commonest = 0n] = [...cell.shares].sort(([, a], [, b]) => (a < b ? 1 : -1))[0] ?? [];
        return LETTERS[Number(commonest)] ?? '?';
      })
      .join('');
    const legend = this.#totals.list.map(([type, bytes]) => {
      const mark = paint.on
        ? `\u001b[48;2;${colourOf(name, type).light.join(';')}m  \u001b[0m`
        : (LETTERS[Number(type)] ?? '?');
      return `${mark} ${describeType(name, type).text ?? String(type)} ${roundSize(bytes)}`;
    });
    return `[${bar}]\n${legend.join('   ')}\n`;
  }
}
