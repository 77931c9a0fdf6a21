// Ranges of bytes as callers write them, and what results contain.

import type { ByteRange } from '../errors.js';
import type { ByteCount } from '../client/export.js';
import { anObject, byteCount, checkOptions, type OptionCheck, refuse, shown } from '../util/option-checks.js';
import { type Span, IntervalSet } from './intervals.js';

/** A range as a caller writes it. */
export interface GivenRange {
  /** First byte. */
  readonly offset: ByteCount;
  /** Number of bytes. */
  readonly length: ByteCount;
}

export const anIterable: OptionCheck<object> = (where, value) => {
  if (typeof value === 'object' && value !== null && Symbol.iterator in value) return value;
  throw refuse(where, `must be an array or another iterable of { offset, length }, not ${shown(value)}`);
};

const GIVEN = { offset: byteCount(), length: byteCount() };

/**
 * The ranges in order, joined where they overlap or touch, and cut to those bytes between `start` and `end`.
 *
 * @throws NbdStrictError `EINVAL` for what is not a range, and for one that leaves the source of `size` bytes.
 */
export function normalised(
  ranges: Iterable<GivenRange>,
  { start, end, size }: { readonly start: bigint; readonly end: bigint; readonly size: bigint },
  where: string,
): Span[] {
  const given: Span[] = [];
  let index = 0;
  for (const range of ranges) {
    const place = `${where}[${index++}]`;
    anObject(place, range);
    const { offset, length } = checkOptions<GivenRange>(place, { offset: range.offset, length: range.length }, GIVEN);
    if (offset === undefined || length === undefined) throw refuse(place, 'must have an offset and a length');
    const first = BigInt(offset);
    const last = first + BigInt(length);
    if (last > size) throw refuse(place, `${first} to ${last} leaves the source of ${size} bytes`);
    const from = first > start ? first : start;
    const until = last < end ? last : end;
    if (from < until) given.push({ start: from, end: until });
  }
  // In order, adding to a set is at its end.
  given.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  return new IntervalSet(given).spans;
}

/** As results contain them. */
export const asRange = ({ start, end }: Span): ByteRange => ({ offset: start, length: end - start });

/** Numbers where they are safe integers, else strings: JSON has no bigint. */
export function jsonOf(value: unknown): unknown {
  if (typeof value === 'bigint') return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, jsonOf(each)]));
  }
  return value;
}

/** A result with a toJSON() that is not one of its own enumerable properties. */
export function withJson<Result extends object>(result: Result): Result & { toJSON(): Record<string, unknown> } {
  return Object.defineProperty(result, 'toJSON', {
    value: () => jsonOf(result),
    enumerable: false,
  }) as Result & { toJSON(): Record<string, unknown> };
}
