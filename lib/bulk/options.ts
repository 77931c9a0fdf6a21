// What the options of whole-export work may be. One table for each function is beside it; the values that several take
// are here.

import type { BlockHasher } from './hash/block-hasher.js';
import { aCountOrAuto } from './in-flight.js';
import {
  aBoolean,
  aFunction,
  anAbortSignal,
  anObject,
  byteCount,
  oneOf,
  type OptionCheck,
  refuse,
  shown,
  wholeNumber,
} from '../util/option-checks.js';

/** How block status is asked, which every function that uses extents takes. */
export interface StatusOptions {
  /** The most bytes that one block status command asks about. Default: as many as it can. */
  step?: number | bigint | undefined;
  /** The most block status commands in flight. Default 8. */
  questions?: number | undefined;
  /**
   * What happens where block status fails while the connection lives on. `data`, the default: the range that the command
   * asked about is read. `throw`: its error ends the work.
   */
  onStatusError?: 'data' | 'throw' | undefined;
}

export const STATUS_CHECKS = {
  step: byteCount(1),
  questions: wholeNumber(1, 1024),
  onStatusError: oneOf('data', 'throw'),
};
export const RANGE_CHECKS = { offset: byteCount(), length: byteCount() };
export const DEPTH_CHECKS = { requestSize: wholeNumber(1), requests: aCountOrAuto, queueSize: aCountOrAuto };
export const SIGNAL_CHECKS = { signal: anAbortSignal };
export const WORK_CHECKS = { extents: aBoolean, onProgress: aFunction, ...SIGNAL_CHECKS, ...STATUS_CHECKS };

export const aBlockHasher: OptionCheck<object> = (where, value) => {
  const { update, zero } = anObject(where, value) as Partial<BlockHasher>;
  if (typeof update === 'function' && typeof zero === 'function') return value as object;
  throw refuse(where, `must be a BlockHasher, not ${shown(value)}`);
};

/** Copies the keys of `options` that are there, for the options of another function. */
export function pick<Options extends object, Key extends keyof Options>(
  options: Options,
  ...keys: readonly Key[]
): { [K in Key]?: Exclude<Options[K], undefined> } {
  const picked: Partial<Record<Key, unknown>> = {};
  for (const key of keys) if (options[key] !== undefined) picked[key] = options[key];
  return picked as { [K in Key]?: Exclude<Options[K], undefined> };
}
