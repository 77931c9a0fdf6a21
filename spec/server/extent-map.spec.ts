import { describe, expect, it } from '@jest/globals';
import { ExtentMap } from '../../lib/server/index.js';
import { randomNumbers } from '../support/deliver.js';

const runs = (map: ExtentMap, offset: number | bigint = 0, count: number | bigint = map.size): unknown[] =>
  [...map.extents(offset, count)].map(({ length, flags }) => [length, flags]);

describe('ExtentMap', () => {
  it('is one run of the initial flags', () => {
    expect(runs(new ExtentMap(100))).toEqual([[100, 0]]);
    expect(runs(new ExtentMap(100, 3), 10, 20)).toEqual([[20, 3]]);
  });

  it('keeps one run where neighbours are equal, on both sides', () => {
    const map = new ExtentMap(100);
    map.set(10, 10, 1);
    map.set(30, 10, 1);
    map.set(20, 10, 1);
    expect(runs(map)).toEqual([
      [10, 0],
      [30, 1],
      [60, 0],
    ]);
    map.set(10, 30, 0);
    expect(runs(map)).toEqual([[100, 0]]);
  });

  it('ignores what lies beyond its size, and ranges of nothing', () => {
    const map = new ExtentMap(100);
    map.set(90, 1000, 1);
    map.set(100, 5, 2);
    map.set(50, 0, 3);
    expect(runs(map)).toEqual([
      [90, 0],
      [10, 1],
    ]);
    expect(runs(map, 95, 1000)).toEqual([[5, 1]]);
    expect(runs(map, 100, 1)).toEqual([]);
  });

  it('covers 64 bits, with offsets as bigint or number', () => {
    const map = new ExtentMap((1n << 64n) - 1n);
    map.set(1n << 63n, 4096n, 1n << 40n);
    map.set(5n, 1n, 7);
    expect(runs(map)).toEqual([
      [5, 0],
      [1, 7],
      [(1n << 63n) - 6n, 0],
      [4096, 1n << 40n],
      [(1n << 63n) - 4097n, 0],
    ]);
    expect(runs(map, (1n << 63n) + 4095n, 2n)).toEqual([
      [1, 1n << 40n],
      [1, 0],
    ]);
  });

  it('agrees with an array of flags, whatever is set in whatever order', () => {
    const SIZE = 64;
    for (let seed = 1; seed <= 200; seed += 1) {
      const next = randomNumbers(seed);
      const map = new ExtentMap(SIZE);
      const model = new Array<number>(SIZE).fill(0);
      for (let step = 0; step < 20; step += 1) {
        const offset = Math.floor(next() * SIZE);
        const count = Math.floor(next() * (SIZE - offset + 1));
        const flags = Math.floor(next() * 3);
        map.set(offset, count, flags);
        model.fill(flags, offset, offset + count);
        const flat = [...map.extents(0, SIZE)].flatMap(
          (run) => new Array(Number(run.length)).fill(run.flags) as number[],
        );
        expect({ seed, step, flat }).toEqual({ seed, step, flat: model });
      }
      const all = [...map.extents(0, SIZE)];
      for (const [i, run] of all.entries()) expect(run.flags).not.toBe(all[i + 1]?.flags);
    }
  });
});
