import { expect, it, describe } from '@jest/globals';

import { allocateForInput, allocateForReads, isForReads } from '../../lib/util/memory.js';
import { TRANSFERS } from '../support/transfers.js';

const MIB = 1 << 20;

describe('memory for reads', () => {
  it('is recognised in all its parts, and no other is', () => {
    const bytes = allocateForReads(MIB);
    expect(bytes).toHaveLength(MIB);
    expect([bytes, bytes.subarray(5, 7), new Uint8Array(bytes.buffer)].map(isForReads)).toEqual([true, true, true]);
    expect([Buffer.alloc(MIB), Buffer.from(bytes), new Uint8Array(0)].map(isForReads)).toEqual([false, false, false]);
  });

  it.each(TRANSFERS)('is not taken away by %s: a socket may be writing into it', (_title, take) => {
    const bytes = allocateForReads(4096).fill(7);
    try {
      take(bytes.buffer);
    } catch (error) {
      expect((error as Error).name).toMatch(/DataCloneError|TypeError/);
    }
    expect(bytes.equals(Buffer.alloc(4096, 7))).toBe(true);
  });
});

it('memory for input has the length that was asked for, and does not begin where glibc lets large blocks begin', () => {
  const bytes = allocateForInput(MIB);
  expect([bytes.length, bytes.byteOffset % 16, bytes.buffer.byteLength - bytes.length]).toEqual([MIB, 0, 48]);
});
