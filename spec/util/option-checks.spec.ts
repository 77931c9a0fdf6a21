import { runInNewContext } from 'node:vm';

import { describe, expect, it } from '@jest/globals';

import { NbdStrictError } from '../../lib/errors.js';
import {
  aBoolean,
  aFunction,
  anAbortSignal,
  anArrayOf,
  anObject,
  aString,
  byteCount,
  checkOptions,
  milliseconds,
  oneOf,
  type OptionCheck,
  powerOfTwo,
  refuse,
  wholeNumber,
  wholeNumberOrInfinity,
  zeroOr,
} from '../../lib/util/option-checks.js';
import { caught } from '../support/caught.js';

const foreignSignal = runInNewContext('signal', { signal: new AbortController().signal }) as AbortSignal;
const never = (): void => undefined;

/** What each check takes, and what it refuses. */
const CHECKS: readonly (readonly [string, OptionCheck, readonly unknown[], readonly unknown[]])[] = [
  ['aBoolean', aBoolean, [true, false], [0, 1, 'true', null, {}]],
  ['aString', aString, ['', 'x', 'é'], [1, null, ['x'], 'a\0b', new String('x')]],
  ['wholeNumber(1)', wholeNumber(1), [1, 2 ** 53 - 1], [0, -1, 1.5, NaN, Infinity, 2 ** 53, 1n, '1', null, [1]]],
  ['wholeNumber(0, 9)', wholeNumber(0, 9), [0, 9], [10, -0.5]],
  ['wholeNumberOrInfinity(1)', wholeNumberOrInfinity(1), [1, Infinity], [0, -Infinity, NaN, 1.5, 'x']],
  ['powerOfTwo(512)', powerOfTwo(512), [512, 4096, 2 ** 31], [0, 256, 1000, 2 ** 32, NaN, Infinity, 512n, '512']],
  ['zeroOr(powerOfTwo(512))', zeroOr(powerOfTwo(512)), [0, 512], [1, -512, NaN]],
  ['byteCount()', byteCount(), [0, 0n, 2 ** 53 - 1, 2n ** 63n - 1n], [-1, -1n, 2 ** 53, 2n ** 63n, 1.5, NaN, '1']],
  ['byteCount(1)', byteCount(1), [1, 1n], [0, 0n]],
  ['milliseconds', milliseconds, [0, 0.5, 1000, Infinity, 2 ** 31 - 1], [-1, NaN, 2 ** 31, '1', 1n]],
  ['oneOf', oneOf('data', 'throw'), ['data', 'throw'], ['Data', '', null, 1]],
  ['anArrayOf(aString)', anArrayOf(aString), [[], ['a', 'b']], ['a', [1], ['a', null], { length: 0 }]],
  ['aFunction', aFunction, [never, NbdStrictError], [null, {}, 'x']],
  ['anObject', anObject, [{}, new Map()], [null, [], 'x', never]],
  [
    'anAbortSignal',
    anAbortSignal,
    [new AbortController().signal, AbortSignal.abort(), foreignSignal],
    [new AbortController(), {}, null, true, new EventTarget(), { aborted: false, addEventListener: never }],
  ],
];

describe.each(CHECKS)('%s', (_name, check, taken, refused) => {
  it('takes what is right', () => {
    for (const value of taken) expect(() => check('f: key', value)).not.toThrow();
  });

  it.each(refused.map((value) => [value]))('refuses %p', (value) => {
    const error = caught(() => check('f: key', value));
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL', syscall: 'f', message: expect.stringMatching(/^f: key: must /) });
  });
});

describe('checkOptions', () => {
  interface Options {
    requests?: number;
    flush?: boolean;
    onProgress?: () => void;
  }
  const TABLE = { requests: wholeNumber(1), flush: aBoolean, onProgress: aFunction };
  const check = (options: unknown): Partial<Options> => checkOptions<Options>('copy', options, TABLE);

  it('returns a copy without what is undefined', () => {
    const options = { requests: 3, flush: undefined };
    expect(check(options)).toEqual({ requests: 3 });
    expect(Object.keys(check(options))).toEqual(['requests']);
    expect(check(options)).not.toBe(options);
    expect(check(undefined)).toEqual({});
    expect(check(Object.assign(Object.create(null), { flush: true }))).toEqual({ flush: true });
  });

  it.each([null, [], 'x', 1, true, never])('refuses %p as options', (options) => {
    expect(() => check(options)).toThrow(/^copy: options must be an object, not /);
  });

  it.each<object>([{ request: 1 }, { Requests: 1 }, { constructor: 1 }, { unknown: undefined }, { toString: never }])(
    'refuses the unknown key of %p, and lists the known ones',
    (options) => {
      expect(caught(() => check(options))).toMatchObject({
        code: 'EINVAL',
        syscall: 'copy',
        message: `copy: unknown option "${Object.keys(options)[0]}"; the options are requests, flush, onProgress`,
      });
    },
  );

  it('names the function and the key of a wrong value', () => {
    expect(() => check({ requests: NaN })).toThrow('copy: requests: must be a whole number from 1, not NaN');
  });

  it('checks what options inherit, but for what a program has added to Object.prototype', () => {
    expect(check(Object.create({ requests: 2 }))).toEqual({ requests: 2 });
    expect(() => check(Object.create({ request: 2 }))).toThrow(/unknown option "request"/);
    const prototype = Object.prototype as Record<string, unknown>;
    prototype['flush'] = 'polluted';
    prototype['foreign'] = 1;
    try {
      expect(Object.keys(check({ requests: 1 }))).toEqual(['requests']);
    } finally {
      delete prototype['flush'];
      delete prototype['foreign'];
    }
  });

  it('reads each option once, so that what was checked is what is used', () => {
    let reads = 0;
    const options = {
      get requests(): number {
        return ++reads;
      },
    };
    expect(check(options).requests).toBe(1);
    expect(reads).toBe(1);
  });
});

it('refuse names the function alone as the syscall', () => {
  expect(refuse('copy: requests', 'must not be', 'ERANGE')).toMatchObject({
    message: 'copy: requests: must not be',
    syscall: 'copy',
    code: 'ERANGE',
  });
});
