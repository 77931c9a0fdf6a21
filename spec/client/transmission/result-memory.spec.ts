import { describe, expect, it } from '@jest/globals';

import { ResultMemory } from '../../../lib/client/transmission/result-memory.js';
import { TRANSFERS } from '../../support/transfers.js';

describe('results of reads', () => {
  it('have bytes of their own, at multiples of 8, whatever their lengths', () => {
    const memory = new ResultMemory();
    const lengths = [1, 7, 8, 9, 512, 4096, 4097, 16_384, 16_385, 65_536, 65_537, 3, 16_384, 16_384, 16_384, 16_383];
    const results = Array.from({ length: 20 }, () => lengths.map(memory.allocate)).flat();
    results.forEach((result, index) => result.fill(index % 251));
    results.forEach((result, index) => {
      expect(result.byteOffset % 8).toBe(0);
      expect(result.length).toBe(lengths[index % lengths.length]);
      expect(result.every((byte) => byte === index % 251)).toBe(true);
    });
  });

  it('hold no more than 64 KiB of others, or nothing but themselves', () => {
    const memory = new ResultMemory();
    for (const length of [1, 4096, 16_384]) expect(memory.allocate(length).buffer.byteLength).toBe(65_536);
    for (const length of [16_385, 262_144]) expect(memory.allocate(length).buffer.byteLength).toBe(length);
  });
});

describe('the memory of small results', () => {
  it.each(TRANSFERS)('is not taken from its neighbours by %s', (_title, take) => {
    const memory = new ResultMemory();
    const results = Array.from({ length: 40 }, (_, i) => memory.allocate(512).fill(i));
    for (const each of results) {
      try {
        take(each.buffer);
      } catch (error) {
        expect((error as Error).name).toMatch(/DataCloneError|TypeError/);
      }
    }
    results.forEach((result, index) => expect(result.equals(Buffer.alloc(512, index))).toBe(true));
  });

  it('is its own where it is large: it can be transferred', () => {
    const result = new ResultMemory().allocate(64 * 1024).fill(7);
    const moved = structuredClone(result.buffer, { transfer: [result.buffer] });
    expect(result.length).toBe(0);
    expect(Buffer.from(moved).equals(Buffer.alloc(64 * 1024, 7))).toBe(true);
  });
});
