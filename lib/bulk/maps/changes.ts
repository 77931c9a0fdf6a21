// What has changed in an export since a dirty bitmap was begun. Invariant: only what the bitmap is known to mark clean is
// left out. A bitmap that is not there, or a part of it that is not known, is an error, never "nothing has changed".

import {
  CONTEXT_BASE_ALLOCATION,
  CONTEXT_QEMU_ALLOCATION_DEPTH,
  CONTEXT_QEMU_DIRTY_BITMAP,
  STATE_ZERO,
} from '../../protocol/client-constants.js';
import { aString, checkOptions, type OptionCheck, refuse, shown } from '../../util/option-checks.js';
import { type ExportLike, factsOf, hasContext } from '../facts.js';
import { MAP_CHECKS, type MapOptions, notNegotiated } from './contexts.js';
import { mergedOf } from './merged.js';

/** What {@link changes} takes. */
export interface ChangesOptions extends MapOptions {
  /**
   * The dirty bitmap. A name without a colon is QEMU's (`b0` is the context `qemu:dirty-bitmap:b0`), anything else the
   * full name of a metadata context. It must have been negotiated (`metaContexts`).
   */
  bitmap: string;
  /**
   * The context whose flag `STATE_ZERO` marks what reads as zeroes; false: no range is reported as zero. Default
   * `base:allocation` where it was negotiated, else false.
   */
  allocation?: string | false | undefined;
}

/** A range that has changed. */
export interface Change {
  /** First byte, from the beginning of the export. */
  readonly offset: bigint;
  /** Number of bytes, at least 1. */
  readonly length: bigint;
  /** All of it is known to read as zeroes. */
  readonly zero: boolean;
}

const aStringOrFalse: OptionCheck<string | false> = (where, value) => {
  if (value === false || typeof value === 'string') return value;
  throw refuse(where, `must be the name of a metadata context, or false, not ${shown(value)}`);
};

const CHANGES_OPTIONS = { ...MAP_CHECKS, bitmap: aString, allocation: aStringOrFalse };

const ZERO = BigInt(STATE_ZERO);

/**
 * What a dirty bitmap marks as changed, in order, and which of it reads as zeroes: what an incremental backup has to
 * copy, and what it has to zero. Clean ranges are left out. One pass of block status commands asks for the bitmap and
 * the allocation together. Memory is bounded.
 *
 * Nothing is yielded for an export that has not changed. Any doubt is an error: an iteration that ends without one has
 * seen the bitmap's state of every byte of the range.
 *
 * @throws NbdStrictError `EINVAL` for bad options and when the range leaves the export, `ENOTSUP` when the bitmap, or an
 *   `allocation` that was given, was not negotiated. What {@link NbdConnection.blockStatus64} rejects with, `EPROTO`
 *   among it when the server leaves the bitmap out of a reply. The signal's reason. All of them when the first change is
 *   asked for, at the earliest.
 *
 * @example
 * for await (const { offset, length, zero } of changes(connection, { bitmap: 'b0' })) {
 *   console.log(offset, length, zero ? 'zero' : 'data');
 * }
 */
export async function* changes(from: ExportLike, options: ChangesOptions): AsyncGenerator<Change, void, undefined> {
  const syscall = 'changes';
  const { bitmap, allocation, ...range } = checkOptions<ChangesOptions>(syscall, options, CHANGES_OPTIONS);
  if (bitmap === undefined) throw refuse(syscall, 'bitmap is missing: the dirty bitmap to read');
  factsOf(from, syscall);
  const dirty = bitmapContext(from, bitmap, syscall);
  const zeroes = zeroContext(from, allocation);
  if (dirty === zeroes) throw refuse(`${syscall}: allocation`, 'must be another context than the bitmap');
  const contexts = zeroes === null ? [dirty] : [dirty, zeroes];
  let last: Change | null = null;
  for await (const { offset, length, flags } of mergedOf(from, { ...range, contexts }, syscall)) {
    // QEMU sets bit 0. Any other bit counts as well: too much is copied then, never too little.
    const isDirty = flags[0] !== 0n;
    const zero = isDirty && ((flags[1] ?? 0n) & ZERO) !== 0n;
    if (last !== null && isDirty && last.zero === zero && last.offset + last.length === offset) {
      last = { offset: last.offset, length: last.length + length, zero };
      continue;
    }
    if (last !== null) yield last;
    last = isDirty ? { offset, length, zero } : null;
  }
  if (last !== null) yield last;
}

/**
 * The metadata context of a dirty bitmap, by the names that {@link ChangesOptions.bitmap} takes.
 *
 * @throws NbdStrictError `ENOTSUP` when it was not negotiated, `EINVAL` for a context that is not a bitmap.
 */
export function bitmapContext(from: ExportLike, bitmap: string, syscall: string): string {
  if (bitmap === '') throw refuse(`${syscall}: bitmap`, 'must not be empty');
  const context = bitmap.includes(':') ? bitmap : CONTEXT_QEMU_DIRTY_BITMAP + bitmap;
  if (context.startsWith('base:') || context === CONTEXT_QEMU_ALLOCATION_DEPTH) {
    throw refuse(`${syscall}: bitmap`, `${shown(context)} is not a dirty bitmap`);
  }
  if (hasContext(from, context)) return context;
  // A bitmap's own name may have a colon.
  const own = CONTEXT_QEMU_DIRTY_BITMAP + bitmap;
  if (hasContext(from, own)) return own;
  throw notNegotiated(context, syscall);
}

function zeroContext(from: ExportLike, allocation: string | false | undefined): string | null {
  if (allocation === false) return null;
  if (allocation !== undefined) return allocation;
  return hasContext(from, CONTEXT_BASE_ALLOCATION) ? CONTEXT_BASE_ALLOCATION : null;
}
