import { describe, expect, it } from '@jest/globals';

import { acceptBlockSizes, maskFlags, type Negotiated, payloadLimit } from '../../lib/protocol/export-info.js';

const MIB = 1 << 20;

describe('acceptBlockSizes', () => {
  it.each([
    [1, 512, 512],
    [1, 4096, 32 * MIB],
    [512, 4096, 0xffffffff],
    [65536, 65536, 65536],
    [65536, 65536, 2 * 65536],
    [4096, 4096, 12288],
  ])('takes %d, %d, %d', (minimum, preferred, maximum) => {
    expect(acceptBlockSizes(minimum, preferred, maximum)).toEqual({ minimum, preferred, maximum });
  });

  it.each([
    ['no minimum', 0, 4096, MIB],
    ['a minimum that is not a power of 2', 3, 4096, MIB],
    ['a minimum above 64 KiB', 131072, 131072, MIB],
    ['no preferred size', 1, 0, MIB],
    ['a preferred size that is not a power of 2', 512, 5000, MIB],
    ['a preferred size below 512', 1, 256, MIB],
    ['a preferred size below the minimum', 4096, 512, MIB],
    ['a maximum below the preferred size', 512, 4096, 2048],
    ['a maximum of 0', 1, 512, 0],
    ['a maximum that is not a multiple of the minimum', 512, 4096, MIB + 1],
    ['all of them too large', 0xffffffff, 0xffffffff, 0xffffffff],
  ])('ignores %s as a whole', (_title, minimum, preferred, maximum) => {
    expect(acceptBlockSizes(minimum, preferred, maximum)).toBeNull();
  });
});

describe('maskFlags', () => {
  const negotiated = (over: Partial<Negotiated>): Negotiated => ({
    structuredReplies: true,
    extendedHeaders: true,
    tls: false,
    contexts: null,
    ...over,
  });

  it.each<[string, number, Partial<Negotiated>, number]>([
    ['nothing', 0x1fff, {}, 0x1fff],
    ['DF without structured replies', 0x0081, { structuredReplies: false }, 0x0001],
    ['the status filter without extended headers', 0x1001, { extendedHeaders: false }, 0x0001],
    ['FAST_ZERO without WRITE_ZEROES', 0x0801, {}, 0x0001],
    ['not FAST_ZERO with WRITE_ZEROES', 0x0841, {}, 0x0841],
    ['not bits that it does not know', 0xe001, {}, 0xe001],
  ])('removes %s', (_title, flags, over, masked) => {
    expect(maskFlags(flags, negotiated(over))).toBe(masked);
  });
});

describe('payloadLimit', () => {
  const limit = (maximum: number): number => payloadLimit({ minimum: 1, preferred: 512, maximum });

  it.each([
    ['32 MiB where the server said nothing', payloadLimit(null), 32 * MIB],
    ['1 MiB at the least', limit(512), MIB],
    ['what the server said', limit(20 * MIB), 20 * MIB],
    ['64 MiB at the most', limit(0xffffffff), 64 * MIB],
  ])('is %s', (_title, found, expected) => {
    expect(found).toBe(expected);
  });
});
