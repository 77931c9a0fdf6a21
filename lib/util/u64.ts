// 64-bit quantities without BigInt on the fast path: a value is a number while it is a safe integer, else a bigint.
// Writing two u32 halves takes 3 ns where setBigUint64(BigInt(n)) takes 45.

/** A count, offset or size: a number while it is a safe integer, a bigint above. */
export type U64 = number | bigint;

export const TWO_32 = 0x1_0000_0000;
export const MAX_U32 = 0xffff_ffff;
export const MAX_U64 = 0xffff_ffff_ffff_ffffn;

const MAX_SAFE_HIGH = 0x1f_ffff;

/** The canonical form: numbers up to 2^53 - 1, bigints above. */
export function fromBigInt(value: bigint): U64 {
  return value <= 9007199254740991n ? Number(value) : value;
}

export function fromHalves(high: number, low: number): U64 {
  return high <= MAX_SAFE_HIGH ? high * TWO_32 + low : (BigInt(high) << 32n) | BigInt(low);
}

export function highHalf(value: U64): number {
  return typeof value === 'number' ? Math.floor(value / TWO_32) : Number(value >> 32n);
}

export function lowHalf(value: U64): number {
  return typeof value === 'number' ? value >>> 0 : Number(value & 0xffff_ffffn);
}

/** The sum in canonical form. It may exceed 64 bits, so that bounds checks cannot wrap around. */
export function add(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b;
    if (sum <= Number.MAX_SAFE_INTEGER) return sum;
  }
  return fromBigInt(BigInt(a) + BigInt(b));
}

/** Whether [offset, offset + count) lies within an export of `size` bytes. */
export function isWithin(offset: U64, count: U64, size: U64): boolean {
  return add(offset, count) <= size;
}

/**
 * The position of a 64-bit wire value relative to `base`: `value - base` if that is 0 to 2^53 - 1, else -1.
 * Exact on the whole 64-bit range, and without BigInt while `base` is a number.
 */
export function distance(high: number, low: number, base: U64): number {
  const value = fromHalves(high, low);
  if (typeof value === 'number' && typeof base === 'number') {
    return value >= base ? value - base : -1;
  }
  const difference = BigInt(value) - BigInt(base);
  return difference >= 0n && difference <= 9007199254740991n ? Number(difference) : -1;
}
