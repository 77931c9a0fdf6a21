// Numbers that look random and follow from a seed: the same seed gives the same faults and the same contents.

/** Adds a 32-bit number to a hash; the result has 32 bits (the last steps of MurmurHash3). */
export function mix(hash: number, value: number): number {
  let mixed = ((hash ^ value) + 0x9e37_79b9) | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** The hash of several numbers. */
export const hashOf = (...values: readonly number[]): number => values.reduce(mix, 0);

/** A fraction from 0, and below 1. */
export const fraction = (hash: number): number => hash / 2 ** 32;
