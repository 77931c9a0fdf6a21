import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { get16, get32, put16, put32, put64 } from '../../lib/util/bytes.js';
import { fromBigInt } from '../../lib/util/u64.js';

// Written into the middle of marked bytes, so that a write beside its place shows.
function written(length: number, put: (bytes: Uint8Array) => void): string {
  const bytes = Buffer.alloc(length + 4, 0xee);
  put(bytes);
  expect(bytes.subarray(0, 2).toString('hex')).toBe('eeee');
  expect(bytes.subarray(length + 2).toString('hex')).toBe('eeee');
  return bytes.subarray(2, length + 2).toString('hex');
}

describe('big-endian numbers', () => {
  it('reads and writes 16 bits', () => {
    expect(written(2, (bytes) => put16(bytes, 2, 0x8001))).toBe('8001');
    expect(get16(Uint8Array.of(0xff, 0x80, 0x01), 1)).toBe(0x8001);
    expect(get16(Uint8Array.of(0xff, 0xff), 0)).toBe(0xffff);
  });

  it('reads and writes 32 bits without a sign', () => {
    expect(written(4, (bytes) => put32(bytes, 2, 0xc0000001))).toBe('c0000001');
    expect(get32(Uint8Array.of(0, 0xc0, 0, 0, 1), 1)).toBe(0xc0000001);
    expect(get32(Uint8Array.of(0xff, 0xff, 0xff, 0xff), 0)).toBe(0xffffffff);
  });

  it.each([
    [0, '0000000000000000'],
    [0xffff_ffff, '00000000ffffffff'],
    [0x1_0000_0000, '0000000100000000'],
    [Number.MAX_SAFE_INTEGER, '001fffffffffffff'],
    [9007199254740993n, '0020000000000001'],
    [2n ** 63n, '8000000000000000'],
    [2n ** 64n - 1n, 'ffffffffffffffff'],
  ])('writes %s in 64 bits', (value, hex) => {
    expect(written(8, (bytes) => put64(bytes, 2, value))).toBe(hex);
  });

  it('agrees with DataView for every 64-bit value', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
        const bytes = new Uint8Array(8);
        put64(bytes, 0, fromBigInt(value));
        const view = new DataView(bytes.buffer);
        expect(view.getBigUint64(0)).toBe(value);
        expect(get32(bytes, 0)).toBe(view.getUint32(0));
        expect(get16(bytes, 6)).toBe(view.getUint16(6));
      }),
    );
  });
});
