import { describe, expect, it } from '@jest/globals';

import { Extents } from '../../lib/util/extents.js';

describe('Extents', () => {
  it('iterates with running offsets', () => {
    const extents = new Extents(1024n, Uint32Array.of(512, 3, 4096, 0, 1, 2));
    expect(extents.length).toBe(3);
    expect([...extents]).toEqual([
      { offset: 1024n, length: 512, flags: 3 },
      { offset: 1536n, length: 4096, flags: 0 },
      { offset: 5632n, length: 1, flags: 2 },
    ]);
    // Again from the beginning: it is a view, not a cursor.
    expect([...extents]).toHaveLength(3);
  });

  it('iterates 64-bit entries, past 2^53', () => {
    const extents = new Extents<bigint>(2n ** 62n, BigUint64Array.of(2n ** 40n, 1n, 1n, 2n ** 63n));
    expect([...extents]).toEqual([
      { offset: 2n ** 62n, length: 2n ** 40n, flags: 1n },
      { offset: 2n ** 62n + 2n ** 40n, length: 1n, flags: 2n ** 63n },
    ]);
  });

  it('is empty without entries', () => {
    const extents = new Extents(0n, new Uint32Array(0));
    expect(extents.length).toBe(0);
    expect([...extents]).toEqual([]);
  });

  it('gives one of a million without making the others', () => {
    const entries = new Uint32Array(2_000_000);
    for (let i = 0; i < entries.length; i += 2) entries[i] = 512;
    const extents = new Extents(0n, entries);
    expect(extents.length).toBe(1_000_000);
    let last = -1n;
    let seen = 0;
    for (const extent of extents) {
      last = extent.offset;
      if (++seen === 1000) break;
    }
    expect(last).toBe(999n * 512n);
    expect(extents.entries).toBe(entries);
  });
});
