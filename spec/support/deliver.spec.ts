import { describe, expect, it } from '@jest/globals';

import { cutAtRandom, deliver, randomNumbers, type Sink } from './deliver.js';

const bytes = Uint8Array.from({ length: 300 }, (_, i) => i & 255);

describe('deliver', () => {
  it('gives every delivery all bytes, in order', () => {
    const seen: string[] = [];
    deliver(bytes, () => {
      const parts: Buffer[] = [];
      return {
        push: (segment) => parts.push(Buffer.from(segment)),
        finish: () => {
          expect(Buffer.concat(parts)).toEqual(Buffer.from(bytes));
          seen.push(parts.length <= 2 ? String(parts[0]?.length) : parts.length === 300 ? 'bytes' : 'random');
        },
      };
    });
    expect(seen.slice(0, 2)).toEqual(['300', 'bytes']);
    expect(seen.slice(2, 301)).toEqual(Array.from({ length: 299 }, (_, i) => String(i + 1)));
    expect(seen).toHaveLength(1 + 1 + 299 + 20);
  });

  it('spreads the cuts of a long input', () => {
    let deliveries = 0;
    const open = (): Sink => ({ push: () => undefined, finish: () => (deliveries += 1) });
    deliver(new Uint8Array(1000), open, { maxSplits: 10, random: 0 });
    expect(deliveries).toBe(2 + 10);
  });

  it('names the delivery that failed, with the seed', () => {
    const failing = (limit: number) => (): Sink => {
      let segments = 0;
      return {
        push: () => (segments += 1),
        finish: () => {
          if (segments > 2 && segments < limit) throw new Error('lost');
        },
      };
    };
    expect(() => {
      deliver(bytes, failing(301));
    }).toThrow(/^delivered byte by byte: lost$/);
    expect(() => {
      deliver(bytes, failing(300), { seed: 7 });
    }).toThrow(/^delivered at random, turn \d+ of seed 7: lost$/);
  });

  it('shows a decoder that keeps a view of a segment', () => {
    let kept = new Uint8Array(0);
    deliver(bytes.subarray(0, 1), () => ({
      push: (segment) => (kept = segment as Uint8Array<ArrayBuffer>),
      finish: () => undefined,
    }));
    expect(kept[0]).toBe(0xa5);
  });

  it('cuts the same way for the same seed', () => {
    const lengths = (seed: number): number[] => cutAtRandom(bytes, randomNumbers(seed)).map((part) => part.length);
    expect(lengths(1)).toEqual(lengths(1));
    expect(lengths(1)).not.toEqual(lengths(2));
  });
});
