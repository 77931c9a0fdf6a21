import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { add, distance, fromBigInt, fromHalves, highHalf, isWithin, lowHalf, type U64 } from '../../lib/util/u64.js';

const MAX_SAFE = Number.MAX_SAFE_INTEGER;
const u64 = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: 2n ** 53n - 3n, max: 2n ** 53n + 3n }),
  fc.bigInt({ min: 0n, max: 2n ** 33n }),
);

describe('canonical form', () => {
  it.each<[bigint, U64]>([
    [0n, 0],
    [0xffff_ffffn, 0xffff_ffff],
    [0x1_0000_0000n, 0x1_0000_0000],
    [9007199254740991n, MAX_SAFE],
    [9007199254740992n, 9007199254740992n],
    [9007199254740993n, 9007199254740993n],
    [2n ** 63n, 9223372036854775808n],
    [2n ** 64n - 1n, 18446744073709551615n],
  ])('%s is %p, whole and from its halves', (value, canonical) => {
    expect(fromBigInt(value)).toBe(canonical);
    expect(fromHalves(Number(value >> 32n), Number(value & 0xffff_ffffn))).toBe(canonical);
  });

  it('splits into the halves that it was made of', () => {
    fc.assert(
      fc.property(u64, (value) => {
        const canonical = fromBigInt(value);
        expect(typeof canonical).toBe(value <= 9007199254740991n ? 'number' : 'bigint');
        expect(BigInt(canonical)).toBe(value);
        expect(highHalf(canonical)).toBe(Number(value >> 32n));
        expect(lowHalf(canonical)).toBe(Number(value & 0xffff_ffffn));
        expect(fromHalves(highHalf(canonical), lowHalf(canonical))).toBe(canonical);
      }),
    );
  });
});

describe('arithmetic', () => {
  it('adds exactly, beyond 64 bits too', () => {
    expect(add(MAX_SAFE, 1)).toBe(9007199254740992n);
    expect(add(2n ** 64n - 1n, 2n ** 64n - 1n)).toBe(2n ** 65n - 2n);
    fc.assert(
      fc.property(u64, u64, (a, b) => {
        expect(add(fromBigInt(a), fromBigInt(b))).toBe(fromBigInt(a + b));
      }),
    );
  });

  it.each<[offset: U64, count: U64, size: U64, within: boolean]>([
    [0, 0, 0, true],
    [0, 1, 0, false],
    [0, 1024, 1024, true],
    [1, 1024, 1024, false],
    [1024, 0, 1024, true],
    [1025, 0, 1024, false],
    // 2^64 - 1 + 1 would be 0 in 64 bits, and within everything.
    [18446744073709551615n, 1, 18446744073709551615n, false],
    [18446744073709551614n, 1, 18446744073709551615n, true],
    // Differences that a double cannot represent.
    [9007199254740993n, 0, 9007199254740992n, false],
    [9007199254740992n, 1, 9007199254740993n, true],
  ])('[%s, +%s) within %s: %s', (offset, count, size, within) => {
    expect(isWithin(offset, count, size)).toBe(within);
  });

  it('returns how far a wire value is from a base, or -1', () => {
    expect(distance(0, 512, 512)).toBe(0);
    expect(distance(0, 511, 512)).toBe(-1);
    expect(distance(1, 0, 0xffff_ffff)).toBe(1);
    expect(distance(0xffff_ffff, 0xffff_ffff, 18446744073709551615n)).toBe(0);
    expect(distance(0xffff_ffff, 0xffff_ffff, 0)).toBe(-1);
    expect(distance(0x20_0000, 1, 9007199254740992n)).toBe(1);
    fc.assert(
      fc.property(u64, u64, (value, base) => {
        const far = value - base;
        const expected = far >= 0n && far <= 9007199254740991n ? Number(far) : -1;
        expect(distance(Number(value >> 32n), Number(value & 0xffff_ffffn), fromBigInt(base))).toBe(expected);
      }),
    );
  });
});
