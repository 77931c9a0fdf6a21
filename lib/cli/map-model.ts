// A map as cells of equal size, for pictures and bars: how much of each cell is of which type.

import type { Run } from './map-report.js';

export interface Cell {
  readonly offset: bigint;
  readonly length: bigint;
  /** Bytes of each type. */
  readonly shares: ReadonlyMap<bigint, bigint>;
}

/** Cuts a range into cells of `cellSize` bytes; the last may be shorter. Runs are in order and cover the range. */
export function toCells(runs: readonly Run[], offset: bigint, length: bigint, cellSize: bigint): Cell[] {
  const cells: Cell[] = [];
  let at = 0;
  for (let start = offset; start < offset + length; start += cellSize) {
    const end = start + cellSize < offset + length ? start + cellSize : offset + length;
    const shares = new Map<bigint, bigint>();
    for (; at < runs.length; at++) {
      const run = runs[at];
      if (run === undefined || run.offset >= end) break;
      const runEnd = run.offset + run.length;
      const from = run.offset > start ? run.offset : start;
      const to = runEnd < end ? runEnd : end;
      if (to > from) shares.set(run.type, (shares.get(run.type) ?? 0n) + to - from);
      if (runEnd > end) break;
    }
    cells.push({ offset: start, length: end - start, shares });
  }
  return cells;
}

/** The smallest power of 2, from 512, of which at most `most` cells cover `length`. */
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

/** The type that a picture must not lose, however little of it there is: data, or what is dirty. */
const loudType = (context: string): bigint => (context === 'base:allocation' ? 0n : 1n);

/** Least weight of the loud type in a cell that has some of it. */
const LOUD_SHARE = 0.3;

/** A cell's colour: its types mixed by their shares. */
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
