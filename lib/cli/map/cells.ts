// Divides a map into cells of equal size, for pictures and bars, and counts the bytes of each type in each cell.

import type { Run, Totals } from './runs.js';
import type { Range } from '../range.js';

export interface Cell {
  readonly offset: bigint;
  readonly length: bigint;
  /** Bytes of each type. */
  readonly shares: ReadonlyMap<bigint, bigint>;
}

/** The map of one context. */
export interface DrawnMap {
  readonly context: string;
  readonly cells: readonly Cell[];
  readonly totals: Totals['list'];
}

/** The contents of a picture. */
export interface Picture extends Range {
  readonly exportName: string;
  /** Size of the whole export in bytes. */
  readonly size: bigint;
  /** Bytes per cell. */
  readonly cellSize: bigint;
  readonly maps: readonly DrawnMap[];
}

/** A range, divided into cells of `cellSize` bytes; the last may be shorter. Only the cells are kept, not the runs. */
export class CellGrid {
  readonly #offset: bigint;
  readonly #cellSize: bigint;
  readonly #cells: (Cell & { readonly shares: Map<bigint, bigint> })[] = [];

  constructor({ offset, length }: Range, cellSize: bigint) {
    this.#offset = offset;
    this.#cellSize = cellSize;
    const end = offset + length;
    for (let start = offset; start < end; start += cellSize) {
      this.#cells.push({
        offset: start,
        length: start + cellSize < end ? cellSize : end - start,
        shares: new Map<bigint, bigint>(),
      });
    }
  }

  get cells(): readonly Cell[] {
    return this.#cells;
  }

  /** Adds a run, which must lie within the range. */
  add({ offset, length, type }: Run): void {
    const end = offset + length;
    for (let at = Number((offset - this.#offset) / this.#cellSize); at < this.#cells.length; at++) {
      const cell = this.#cells[at];
      if (cell === undefined || cell.offset >= end) break;
      const from = offset > cell.offset ? offset : cell.offset;
      const cellEnd = cell.offset + cell.length;
      const to = end < cellEnd ? end : cellEnd;
      cell.shares.set(type, (cell.shares.get(type) ?? 0n) + to - from);
    }
  }
}

/** The smallest power of 2, at least 512, with which `most` cells cover `length` bytes. */
export function niceCellSize(length: bigint, most: number): bigint {
  let size = 512n;
  while (size * BigInt(most) < length) size *= 2n;
  return size;
}

export type Rgb = readonly [red: number, green: number, blue: number];

/** On a light and on a dark page. */
export interface Colour {
  readonly light: Rgb;
  readonly dark: Rgb;
}

const colour = (light: Rgb, dark: Rgb): Colour => ({ light, dark });

const ALLOCATION: readonly Colour[] = [
  colour([37, 99, 235], [96, 165, 250]),
  colour([203, 213, 225], [71, 85, 105]),
  colour([250, 204, 21], [202, 138, 4]),
  colour([241, 245, 249], [30, 41, 59]),
];
const BITMAP: readonly Colour[] = [colour([220, 252, 231], [20, 60, 38]), colour([220, 38, 38], [248, 113, 113])];
const OTHERS: readonly Colour[] = [
  colour([226, 232, 240], [51, 65, 85]),
  colour([13, 148, 136], [45, 212, 191]),
  colour([124, 58, 237], [167, 139, 250]),
  colour([234, 88, 12], [251, 146, 60]),
  colour([190, 24, 93], [244, 114, 182]),
  colour([101, 163, 13], [163, 230, 53]),
];

const paletteOf = (context: string): readonly Colour[] => {
  if (context === 'base:allocation') return ALLOCATION;
  return context.startsWith('qemu:dirty-bitmap:') ? BITMAP : OTHERS;
};

/** The colour of a type in a picture. */
export function colourOf(context: string, type: bigint): Colour {
  const at = Number(type % 1024n);
  return paletteOf(context)[at] ?? OTHERS[at % OTHERS.length] ?? colour([0, 0, 0], [255, 255, 255]);
}

/** The type that must stay visible in a picture however rare it is: data, or dirty. */
const loudType = (context: string): bigint => (context === 'base:allocation' ? 0n : 1n);

/** Minimum weight of the loud type in a cell that contains it. */
const LOUD_SHARE = 0.3;

/** Cells with nearly the same shares have the same colour, so that a picture needs few of them. */
const SHADES = 16;

/** The colour of a cell: the colours of its types, mixed by their shares. */
export function cellColour(context: string, cell: Cell): Colour {
  const loud = loudType(context);
  const weights = [...cell.shares].map(([type, bytes]) => {
    const share = Math.max(1, Math.round((SHADES * Number(bytes)) / Number(cell.length)));
    return [type, type === loud ? Math.max(share, SHADES * LOUD_SHARE) : share] as const;
  });
  const sum = weights.reduce((total, [, weight]) => total + weight, 0);
  const mixed = (theme: keyof Colour): Rgb => {
    const channels = [0, 0, 0];
    for (const [type, weight] of weights) {
      colourOf(context, type)[theme].forEach((value, channel) => {
        channels[channel] = (channels[channel] ?? 0) + (value * weight) / sum;
      });
    }
    return [Math.round(channels[0] ?? 0), Math.round(channels[1] ?? 0), Math.round(channels[2] ?? 0)];
  };
  return { light: mixed('light'), dark: mixed('dark') };
}

export const hex = (rgb: Rgb): string => `#${rgb.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
