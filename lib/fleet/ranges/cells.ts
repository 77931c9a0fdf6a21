// How an export is cut. The cells of a grid of `rangeSize` bytes are the unit: a cell with data is a range of its own,
// and neighbours without any are one range together where a kind needs them at all. Pure.

/** A range of an export: some cells, and how many bytes in them hold data. */
export interface Cells {
  /** Number of the first cell. */
  readonly first: number;
  readonly count: number;
  /** Bytes that hold data, or have changed. */
  readonly bytes: number;
}

/** The ranges of an export. Their order is their index. */
export interface Plan {
  readonly size: bigint;
  readonly rangeSize: number;
  readonly ranges: readonly Cells[];
}

/** Bytes of an export that hold data. */
export interface DataExtent {
  readonly offset: bigint;
  readonly length: bigint;
}

/** Cells without data in one range: zeroing them may be slow all the same. */
const MOST_EMPTY = 16;
/** More of them would not fit in the memory of Redis for many exports. */
export const MOST_CELLS = 2 ** 20;

/** Collects extents in order, and cuts. */
export class Cutter {
  readonly #size: bigint;
  readonly #rangeSize: number;
  readonly #keepsEmpty: boolean;
  readonly #ranges: Cells[] = [];
  #cell = 0;
  #bytes = 0n;

  /** `keepsEmpty`: cells without data are ranges too. */
  constructor(size: bigint, rangeSize: number, keepsEmpty: boolean) {
    this.#size = size;
    this.#rangeSize = rangeSize;
    this.#keepsEmpty = keepsEmpty;
  }

  add({ offset, length }: DataExtent): void {
    const step = BigInt(this.#rangeSize);
    for (let at = offset; at < offset + length;) {
      const cell = Number(at / step);
      const end = BigInt(cell + 1) * step;
      const until = end < offset + length ? end : offset + length;
      if (cell > this.#cell) this.#next(cell);
      this.#bytes += until - at;
      at = until;
    }
  }

  end(): Plan {
    const cells = Number((this.#size + BigInt(this.#rangeSize) - 1n) / BigInt(this.#rangeSize));
    if (this.#cell < cells) this.#next(cells);
    return { size: this.#size, rangeSize: this.#rangeSize, ranges: this.#ranges };
  }

  #next(cell: number): void {
    let empty = this.#cell;
    if (this.#bytes > 0n) {
      this.#ranges.push({ first: this.#cell, count: 1, bytes: Number(this.#bytes) });
      empty++;
    }
    while (this.#keepsEmpty && empty < cell) {
      const count = Math.min(cell - empty, MOST_EMPTY);
      this.#ranges.push({ first: empty, count, bytes: 0 });
      empty += count;
    }
    this.#cell = cell;
    this.#bytes = 0n;
  }
}

/** Where a range is. */
export function placeOf(cells: Cells, size: bigint, rangeSize: number): { offset: bigint; length: bigint } {
  const offset = BigInt(cells.first) * BigInt(rangeSize);
  const end = BigInt(cells.first + cells.count) * BigInt(rangeSize);
  return { offset, length: (end < size ? end : size) - offset };
}

/** A plan as it is stored: three numbers a range. */
export function encodePlan({ size, rangeSize, ranges }: Plan): string {
  return JSON.stringify({
    v: 1,
    size: String(size),
    rangeSize,
    ranges: ranges.flatMap(({ first, count, bytes }) => [first, count, bytes]),
  });
}

export function decodePlan(text: string): Plan {
  const { size, rangeSize, ranges } = JSON.parse(text) as { size: string; rangeSize: number; ranges: number[] };
  const list: Cells[] = [];
  for (let at = 0; at < ranges.length; at += 3) {
    list.push({ first: ranges[at] as number, count: ranges[at + 1] as number, bytes: ranges[at + 2] as number });
  }
  return { size: BigInt(size), rangeSize, ranges: list };
}

/** What is done, as the bits that Redis has: a bit a range, the first one highest in its byte. */
export const isSet = (bits: Buffer | null, index: number): boolean =>
  bits !== null && ((bits[index >> 3] ?? 0) & (0x80 >> (index & 7))) !== 0;
