// Checks options against a table with one check per key; keys that are not in the table are refused. Invariant: nothing
// has been done yet when a check throws, and the options are copied, so that the values in use are the checked ones.

import { NbdStrictError } from '../errors.js';

/**
 * Returns the value with its type, or throws an NbdStrictError. `where` starts the message: a function, such as
 * `setTls`, or a function and an option, such as `copy: requests`.
 */
export type OptionCheck<Value = unknown> = (where: string, value: unknown) => Value;

/** Every option with a value: `Required` keeps the `undefined` that an option accepts in place of being left out. */
export type Complete<Options> = { [Key in keyof Options]-?: Exclude<Options[Key], undefined> };

/** A check of a function or an object verifies only that it is one. */
type Checked<Value> = Value extends object ? Value | object : Value;

/** A check for every key of the options `Options`. */
export type OptionTable<Options> = {
  readonly [Key in keyof Complete<Options>]: OptionCheck<Checked<Complete<Options>[Key]>>;
};

/** Longest delay that Node's timers support; with a longer one they fire at once. */
const MAX_DELAY = 2 ** 31 - 1;
/** Offsets are signed in the kernels of most servers. */
const MAX_BYTES = 2n ** 63n - 1n;
const SHOWN_LENGTH = 40;
/** A longer list of options would hide the message. */
const LISTED_KEYS = 16;

/** The error for a bad argument: `where: why`. */
export function refuse(where: string, why: string, code = 'EINVAL'): NbdStrictError {
  const [syscall = where] = where.split(':', 1);
  return new NbdStrictError(`${where}: ${why}`, { code, syscall });
}

/** A value as it appears in a message: at most 40 characters of a string. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, SHOWN_LENGTH));
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}

/**
 * The checked options, without those that are undefined. Inherited enumerable properties count, as they would in
 * `options.key`; those of `Object.prototype` do not.
 *
 * @throws NbdStrictError `EINVAL`: `options` is not an object, a key is unknown, or a value fails its check.
 */
export function checkOptions<Options extends object>(
  method: string,
  options: unknown,
  table: OptionTable<Options>,
): Partial<Complete<Options>> {
  const checked: Record<string, unknown> = {};
  if (options === undefined) return checked as Partial<Complete<Options>>;
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw refuse(method, `options must be an object, not ${shown(options)}`);
  }
  const checks = table as Record<string, OptionCheck | undefined>;
  for (const key of keysOf(options)) {
    const check = Object.hasOwn(checks, key) ? checks[key] : undefined;
    if (check === undefined) {
      const known = Object.keys(table);
      const list = known.length > LISTED_KEYS ? '' : `; the options are ${known.join(', ')}`;
      throw refuse(method, `unknown option ${shown(key)}${list}`);
    }
    const value = (options as Record<string, unknown>)[key];
    if (value !== undefined) checked[key] = check(`${method}: ${key}`, value);
  }
  return checked as Partial<Complete<Options>>;
}

function keysOf(options: object): Set<string> {
  const keys = new Set(Object.keys(options));
  let level = Object.getPrototypeOf(options) as object | null;
  while (level !== null) {
    const above = Object.getPrototypeOf(level) as object | null;
    // The end of the chain is Object.prototype, of whichever realm: what a program has added there is not an option.
    if (above !== null) for (const key of Object.keys(level)) keys.add(key);
    level = above;
  }
  return keys;
}

export const aBoolean: OptionCheck<boolean> = (where, value) => {
  if (typeof value === 'boolean') return value;
  throw refuse(where, `must be true or false, not ${shown(value)}`);
};

export const aString: OptionCheck<string> = (where, value) => {
  if (typeof value !== 'string') throw refuse(where, `must be a string, not ${shown(value)}`);
  if (value.includes('\0')) throw refuse(where, 'must not contain a NUL');
  return value;
};

export const anArrayOf =
  <Value>(check: OptionCheck<Value>): OptionCheck<Value[]> =>
  (where, value) => {
    if (!Array.isArray(value)) throw refuse(where, `must be an array, not ${shown(value)}`);
    return value.map((each) => check(where, each));
  };

export const oneOf =
  <const Value extends string | number | boolean>(...values: readonly Value[]): OptionCheck<Value> =>
  (where, value) => {
    if (values.includes(value as Value)) return value as Value;
    throw refuse(where, `must be one of ${values.map((each) => shown(each)).join(', ')}, not ${shown(value)}`);
  };

/** A whole number from `minimum` to `maximum`. */
export const wholeNumber =
  (minimum: number, maximum = Number.MAX_SAFE_INTEGER): OptionCheck<number> =>
  (where, value) => {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum && value <= maximum) return value;
    const limits = maximum === Number.MAX_SAFE_INTEGER ? `from ${minimum}` : `from ${minimum} to ${maximum}`;
    throw refuse(where, `must be a whole number ${limits}, not ${shown(value)}`);
  };

/** A whole number from `minimum`, or Infinity for no limit. */
export const wholeNumberOrInfinity =
  (minimum: number): OptionCheck<number> =>
  (where, value) => {
    if (value === Infinity) return Infinity;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum) return value;
    throw refuse(where, `must be a whole number from ${minimum}, or Infinity, not ${shown(value)}`);
  };

/** A power of 2 from `minimum` to `maximum`. */
export const powerOfTwo =
  (minimum: number, maximum = 2 ** 31): OptionCheck<number> =>
  (where, value) => {
    const isRight = typeof value === 'number' && value >= minimum && value <= maximum;
    if (isRight && Number.isInteger(Math.log2(value))) return value;
    throw refuse(where, `must be a power of 2 from ${minimum} to ${maximum}, not ${shown(value)}`);
  };

/** 0, which means "not at all", or a value that passes the check. */
export const zeroOr =
  (check: OptionCheck<number>): OptionCheck<number> =>
  (where, value) =>
    value === 0 ? 0 : check(where, value);

/** A number of bytes, or an offset: a safe integer or a bigint, from `minimum` to 2^63 - 1. */
export const byteCount =
  (minimum: 0 | 1 = 0): OptionCheck<number | bigint> =>
  (where, value) => {
    if (typeof value === 'bigint' && value >= BigInt(minimum) && value <= MAX_BYTES) return value;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum) return value;
    const hint = typeof value === 'number' && value > Number.MAX_SAFE_INTEGER ? ': above 2^53 - 1 pass a bigint' : '';
    throw refuse(where, `must be a whole number of bytes from ${minimum} to 2^63 - 1, not ${shown(value)}${hint}`);
  };

/** Milliseconds; 0 and Infinity mean no limit, and both return 0. */
export const milliseconds: OptionCheck<number> = (where, value) => {
  if (value === Infinity || value === 0) return 0;
  if (typeof value === 'number' && value > 0 && value <= MAX_DELAY) return value;
  throw refuse(where, `must be from 0 to ${MAX_DELAY} milliseconds, or Infinity, not ${shown(value)}`);
};

/** A function. */
export const aFunction: OptionCheck<(...args: never[]) => unknown> = (where, value) => {
  if (typeof value === 'function') return value as (...args: never[]) => unknown;
  throw refuse(where, `must be a function, not ${shown(value)}`);
};

/** An AbortSignal of any realm; it may already be aborted. */
export const anAbortSignal: OptionCheck<AbortSignal> = (where, value) => {
  const signal = value as Partial<AbortSignal> | null;
  const isSignal =
    typeof signal === 'object' &&
    signal !== null &&
    typeof signal.aborted === 'boolean' &&
    typeof signal.throwIfAborted === 'function' &&
    typeof signal.addEventListener === 'function' &&
    typeof signal.removeEventListener === 'function';
  if (isSignal) return value as AbortSignal;
  throw refuse(where, `must be an AbortSignal, not ${shown(value)}`);
};

/** An object that is not an array; its content is not checked. */
export const anObject: OptionCheck<object> = (where, value) => {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw refuse(where, `must be an object, not ${shown(value)}`);
};
