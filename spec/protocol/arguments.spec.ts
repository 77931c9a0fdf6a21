import { describe, expect, it } from '@jest/globals';

import { NbdStrictError } from '../../lib/errors.js';
import { toBytes, toCallback, toFlags, toU64 } from '../../lib/protocol/strict.js';
import { caught } from '../support/caught.js';

describe('arguments', () => {
  it.each<[unknown, number | bigint]>([
    [0, 0],
    [-0, 0],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    [5n, 5],
    [2n ** 53n, 9007199254740992n],
    [2n ** 64n - 1n, 18446744073709551615n],
  ])('toU64(%p)', (value, canonical) => {
    // toBe would distinguish -0 from 0.
    expect(toU64(value, 'cache', 'count') === canonical).toBe(true);
  });

  it.each<[unknown, RegExp]>([
    [NaN, /count NaN is not an integer/],
    [Infinity, /count Infinity is not an integer/],
    [-1, /count -1 is negative/],
    [1.5, /count 1.5 is not an integer/],
    [2 ** 53, /MAX_SAFE_INTEGER: pass a bigint/],
    [-1n, /count -1n is negative/],
    [2n ** 64n, /needs more than 64 bits/],
    ['1', /must be a number or a bigint, not string/],
    [null, /not null/],
    [undefined, /not undefined/],
    [{ valueOf: () => 1 }, /not object/],
    [[1], /not object/],
    [true, /not boolean/],
    [Symbol('x'), /not symbol/],
  ])('toU64 refuses %p', (value, message) => {
    const error = caught(() => toU64(value, 'cache', 'count'));
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL', syscall: 'cache' });
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toMatch(/^cache: count /);
  });

  it.each([[-1], [1.5], [2 ** 32], [NaN], [0n], ['1'], [null], [{}], [Symbol('flags')]])(
    'toFlags refuses %p',
    (value) => {
      expect(caught(() => toFlags(value, 'trim'))).toMatchObject({ code: 'EINVAL', syscall: 'trim' });
    },
  );

  it('toFlags takes unsigned 32-bit numbers', () => {
    expect([0, 1, 0xffff_ffff].map((value) => toFlags(value, 'trim'))).toEqual([0, 1, 0xffff_ffff]);
  });

  it('toBytes takes Uint8Arrays of any realm and nothing else', () => {
    const bytes = new Uint8Array(3);
    expect(toBytes(bytes, 'pwrite')).toBe(bytes);
    expect(toBytes(Buffer.alloc(2), 'pwrite')).toHaveLength(2);
    for (const value of [
      new Uint16Array(2),
      new DataView(new ArrayBuffer(2)),
      new ArrayBuffer(2),
      'ab',
      [1],
      null,
      7,
    ]) {
      const error = caught(() => toBytes(value, 'pwrite'));
      expect(error).toMatchObject({ code: 'EINVAL', syscall: 'pwrite' });
      expect((error as Error).message).toMatch(/^pwrite: buffer must be a Uint8Array, not /);
    }
  });

  it('toCallback takes functions, null and undefined', () => {
    const callback = (): void => undefined;
    expect(toCallback(callback, 'cache', 'completion')).toBe(callback);
    expect(toCallback(null, 'cache', 'completion')).toBeNull();
    expect(toCallback(undefined, 'cache', 'completion')).toBeNull();
    expect(caught(() => toCallback(0 as never, 'cache', 'completion'))).toMatchObject({
      code: 'EINVAL',
      message: 'cache: completion must be a function, not number',
    });
  });
});
