import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { Coverage } from '../../lib/protocol/coverage.js';

type Piece = readonly [start: number, length: number];

/** Adds the pieces and returns those that were refused as overlapping. */
function cover(length: number, pieces: readonly Piece[]): { refused: number[]; covered: number; complete: boolean } {
  const coverage = new Coverage(length);
  const refused = pieces.flatMap(([start, size], index) => (coverage.add(start, size) ? [] : [index]));
  return { refused, covered: coverage.covered, complete: coverage.isComplete };
}

describe('Coverage', () => {
  it.each<[string, number, Piece[], { refused: number[]; covered: number; complete: boolean }]>([
    ['nothing of nothing', 0, [], { refused: [], covered: 0, complete: true }],
    ['nothing', 512, [], { refused: [], covered: 0, complete: false }],
    ['one piece', 512, [[0, 512]], { refused: [], covered: 512, complete: true }],
    [
      'in order',
      512,
      [
        [0, 1],
        [1, 510],
        [511, 1],
      ],
      { refused: [], covered: 512, complete: true },
    ],
    [
      'in reverse',
      100,
      [
        [64, 36],
        [32, 32],
        [0, 32],
      ],
      { refused: [], covered: 100, complete: true },
    ],
    [
      'a gap',
      512,
      [
        [0, 100],
        [101, 411],
      ],
      { refused: [], covered: 511, complete: false },
    ],
    [
      'the same half twice',
      512,
      [
        [0, 256],
        [0, 256],
      ],
      { refused: [1], covered: 256, complete: false },
    ],
    [
      'one byte too often',
      512,
      [
        [0, 257],
        [256, 256],
      ],
      { refused: [1], covered: 257, complete: false },
    ],
    // The sum is right, but a byte came twice and another never did.
    [
      'a gap hidden by an overlap',
      512,
      [
        [0, 257],
        [256, 255],
      ],
      { refused: [1], covered: 257, complete: false },
    ],
    [
      'an overlap out of order',
      96,
      [
        [64, 32],
        [0, 32],
        [31, 2],
      ],
      { refused: [2], covered: 64, complete: false },
    ],
    [
      'an overlap in the middle of a word',
      64,
      [
        [10, 10],
        [0, 11],
      ],
      { refused: [1], covered: 10, complete: false },
    ],
    [
      'whole words',
      128,
      [
        [96, 32],
        [0, 96],
      ],
      { refused: [], covered: 128, complete: true },
    ],
    [
      'a whole word twice',
      128,
      [
        [32, 32],
        [32, 32],
      ],
      { refused: [1], covered: 32, complete: false },
    ],
  ])('%s', (_title, length, pieces, expected) => {
    expect(cover(length, pieces)).toEqual(expected);
  });

  it('agrees with a set of bytes, whatever comes in whatever order', () => {
    const piece = fc
      .tuple(fc.nat(199), fc.integer({ min: 1, max: 80 }))
      .map<Piece>(([start, length]) => [start, Math.min(length, 200 - start)]);
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const coverage = new Coverage(200);
        const seen = new Set<number>();
        for (const [start, length] of pieces) {
          const bytes = Array.from({ length }, (_, i) => start + i);
          const clean = bytes.every((byte) => !seen.has(byte));
          expect(coverage.add(start, length)).toBe(clean);
          // What was refused ends the read, so that only what came before counts.
          if (!clean) return;
          for (const byte of bytes) seen.add(byte);
          expect(coverage.covered).toBe(seen.size);
          expect(coverage.isComplete).toBe(seen.size === 200);
        }
      }),
    );
  });

  it('takes every order of a partition', () => {
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: 499 }), { maxLength: 30 });
    fc.assert(
      fc.property(cuts, fc.infiniteStream(fc.nat()), (at, random) => {
        const borders = [0, ...at.sort((a, b) => a - b), 500];
        const pieces = borders.slice(1).map<Piece>((end, i) => [borders[i]!, end - borders[i]!]);
        const shuffled = pieces.map((piece) => [random.next().value!, piece] as const).sort(([a], [b]) => a - b);
        expect(
          cover(
            500,
            shuffled.map(([, piece]) => piece),
          ),
        ).toEqual({ refused: [], covered: 500, complete: true });
      }),
    );
  });

  it('takes a megabyte of single bytes in reverse without being quadratic', () => {
    const coverage = new Coverage(1 << 20);
    for (let at = (1 << 20) - 1; at >= 0; at--) coverage.add(at, 1);
    expect(coverage.isComplete).toBe(true);
  });
});
