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

type Rgb = readonly [red: number, green: number, blue: number];

const ALLOCATION: readonly Rgb[] = [
  [37, 99, 235],
  [203, 213, 225],
  [250, 204, 21],
  [241, 245, 249],
];
const BITMAP: readonly Rgb[] = [
  [220, 252, 231],
  [220, 38, 38],
];
const OTHERS: readonly Rgb[] = [
  [226, 232, 240],
  [13, 148, 136],
  [124, 58, 237],
  [234, 88, 12],
  [190, 24, 93],
  [101, 163, 13],
];

/** The colour of a type in a picture. */
export function colourOf(context: string, type: bigint): Rgb {
  const at = Number(type % 1024n);
  const palette =
    context === 'base:allocation' ? ALLOCATION : context.startsWith('qemu:dirty-bitmap:') ? BITMAP : OTHERS;
  return palette[at] ?? OTHERS[at % OTHERS.length] ?? [0, 0, 0];
}

/** The type that must stay visible in a picture however rare it is: data, or dirty. */
const loudType = (context: string): bigint => (context === 'base:allocation' ? 0n : 1n);

/** Minimum weight of the loud type in a cell that contains it. */
const LOUD_SHARE = 0.3;

/** The colour of a cell: the colours of its types, mixed by their shares. */
export function cellColour(context: string, cell: Cell): Rgb {
  const loud = loudType(context);
  const weights = [...cell.shares].map(([type, bytes]) => {
    const share = Number(bytes) / Number(cell.length);
    return [type, type === loud ? Math.max(share, LOUD_SHARE) : share] as const;
  });
  const sum = weights.reduce((total, [, weight]) => total + weight, 0);
  const mixed = [0, 0, 0];
  for (const [type, weight] of weights) {
    colourOf(context, type).forEach((value, channel) => {
      mixed[channel] = (mixed[channel] ?? 0) + (value * weight) / sum;
    });
  }
  return [Math.round(mixed[0] ?? 0), Math.round(mixed[1] ?? 0), Math.round(mixed[2] ?? 0)];
}

export const hex = (colour: Rgb): string => `#${colour.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
