import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { WrittenRanges } from '../../lib/pool/unflushed/written-ranges.js';
import { fromBigInt } from '../../lib/util/u64.js';
import { UnflushedWrites } from '../../lib/pool/unflushed/unflushed.js';

const covered = (set: WrittenRanges, size: number): boolean[] => {
  const bytes = Array<boolean>(size).fill(false);
  for (const { offset, length } of set.ranges()) bytes.fill(true, Number(offset), Number(offset + length));
  return bytes;
};

const ADDITIONS = fc.array(fc.tuple(fc.nat(200), fc.nat(30)), { maxLength: 60 });

describe('the ranges of writes', () => {
  it('hold what was added and no more, in order, none touching another', () => {
    fc.assert(
      fc.property(ADDITIONS, fc.array(fc.nat(60), { maxLength: 3 }), (additions, looks) => {
        const set = new WrittenRanges();
        const model = Array<boolean>(256).fill(false);
        additions.forEach(([start, length], i) => {
          set.add(start, length);
          model.fill(true, start, start + length);
          if (looks.includes(i)) expect(covered(set, 256)).toEqual(model);
        });
        expect(covered(set, 256)).toEqual(model);
        expect(set.isEmpty).toBe(!model.includes(true));
        const ranges = set.ranges();
        for (let i = 1; i < ranges.length; i++) {
          expect(ranges[i]!.offset).toBeGreaterThan(ranges[i - 1]!.offset + ranges[i - 1]!.length);
        }
      }),
    );
  });

  it('with a limit hold no less than what was added, and closes the smallest gaps', () => {
    fc.assert(
      fc.property(ADDITIONS, fc.integer({ min: 1, max: 8 }), (additions, limit) => {
        const set = new WrittenRanges(limit);
        const model = Array<boolean>(256).fill(false);
        for (const [start, length] of additions) {
          set.add(start, length);
          model.fill(true, start, start + length);
        }
        expect(set.size).toBeLessThanOrEqual(limit);
        const found = covered(set, 256);
        expect(model.every((isIn, at) => !isIn || found[at] === true)).toBe(true);
      }),
    );
    const set = new WrittenRanges(4);
    for (const start of [0, 100, 110, 300, 400]) set.add(start, 1);
    expect(set.ranges()).toEqual([
      { offset: 0n, length: 111n },
      { offset: 300n, length: 1n },
      { offset: 400n, length: 1n },
    ]);
  });

  it('of a million scattered blocks are bounded, and quick', () => {
    const set = new WrittenRanges();
    let place = 1;
    for (let i = 0; i < 1_000_000; i++) {
      place = (place * 48271) % 0x7fff_ffff;
      set.add(place * 8192, 4096);
    }
    expect(set.size).toBeLessThanOrEqual(65_536);
    expect(set.size).toBeGreaterThan(40_000);
  });

  it('hold the same when some of them are above 2^53, whenever the first of those is added', () => {
    const base = BigInt(Number.MAX_SAFE_INTEGER) - 100n;
    fc.assert(
      fc.property(ADDITIONS, fc.array(fc.nat(60), { maxLength: 3 }), (additions, looks) => {
        const set = new WrittenRanges();
        const low = new WrittenRanges();
        additions.forEach(([start, length], i) => {
          set.add(fromBigInt(base + BigInt(start)), length);
          low.add(start, length);
          if (looks.includes(i)) expect(set.size).toBe(low.size);
        });
        const all = new WrittenRanges();
        all.add(3, 4);
        all.addAll(set);
        const expected = low.ranges().map(({ offset, length }) => ({ offset: offset + base, length }));
        expect(set.ranges()).toEqual(expected);
        expect(all.ranges()).toEqual([{ offset: 3n, length: 4n }, ...expected]);
      }),
    );
  });

  it('take offsets above 2^53', () => {
    const set = new WrittenRanges();
    set.add(2n ** 62n, 10);
    set.add(2n ** 62n + 10n, 5);
    set.add(7, 1);
    expect(set.ranges()).toEqual([
      { offset: 7n, length: 1n },
      { offset: 2n ** 62n, length: 15n },
    ]);
  });
});

describe('unflushed writes', () => {
  const lostOf = (writes: UnflushedWrites): unknown[] => {
    writes.lost('gone');
    const set = new WrittenRanges();
    writes.risk.addTo(set);
    return set.ranges().map(({ offset, length }) => [Number(offset), Number(length)]);
  };

  it.each<[string, (writes: UnflushedWrites) => void, unknown[]]>([
    ['nothing', () => undefined, []],
    ['a write', (w) => w.acknowledged(0, 10), [[0, 10]]],
    ['a write, and a flush of it', (w) => (w.acknowledged(0, 10), w.flushed(w.beginFlush())), []],
    ['a write, and a flush that failed', (w) => (w.acknowledged(0, 10), void w.beginFlush()), [[0, 10]]],
    [
      'a write that was acknowledged during a flush',
      (w) => {
        w.acknowledged(0, 10);
        const covered = w.beginFlush();
        w.acknowledged(20, 10);
        w.flushed(covered);
      },
      [[20, 10]],
    ],
    [
      'two flushes, of which the later one ends first',
      (w) => {
        w.acknowledged(0, 10);
        const first = w.beginFlush();
        w.acknowledged(20, 10);
        w.flushed(w.beginFlush());
        w.acknowledged(40, 10);
        w.flushed(first);
      },
      [[40, 10]],
    ],
    [
      'a flush that was begun before a loss and ends after it',
      (w) => {
        w.acknowledged(0, 10);
        const covered = w.beginFlush();
        w.lost('before');
        w.acknowledged(20, 10);
        w.flushed(covered);
      },
      [
        [0, 10],
        [20, 10],
      ],
    ],
    [
      'two losses',
      (w) => {
        w.acknowledged(0, 10);
        w.lost('before');
        w.acknowledged(10, 10);
      },
      [[0, 20]],
    ],
    [
      'a loss that was reported',
      (w) => {
        w.acknowledged(0, 10);
        w.lost('before');
        w.forgetRisk(w.risk);
      },
      [],
    ],
    [
      'hundreds of flushes that failed',
      (w) => {
        for (let i = 0; i < 300; i++) {
          w.acknowledged(20 * i, 10);
          w.beginFlush();
        }
        w.flushed(0);
      },
      Array.from({ length: 300 }, (_, i) => [20 * i, 10]),
    ],
  ])('after %s are at risk', (_title, act, expected) => {
    const writes = new UnflushedWrites();
    act(writes);
    expect(lostOf(writes)).toEqual(expected);
  });
});
