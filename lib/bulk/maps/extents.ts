// The extents of a range in one metadata context. Invariant: what is yielded covers the range in order, without gaps or
// overlaps.

import { CONTEXT_BASE_ALLOCATION } from '../../protocol/client-constants.js';
import type { Extent } from '../../util/extents.js';
import { aBoolean, aString, checkOptions } from '../../util/option-checks.js';
import type { ExportLike } from '../facts.js';
import { makeBreather } from '../lanes.js';
import { MAP_CHECKS, type MapOptions, questionOf } from './contexts.js';
import { type Answer, askAhead } from './look-ahead.js';

/** What {@link extents} takes. */
export interface ExtentsOptions extends MapOptions {
  /** A metadata context that was negotiated (`metaContexts`). Default `base:allocation`. */
  context?: string | undefined;
  /** Join neighbours with the same flags. Default true. */
  merge?: boolean | undefined;
}

const EXTENTS_OPTIONS = { ...MAP_CHECKS, context: aString, merge: aBoolean };

/**
 * The extents of an export, or of a range of it, in one metadata context. Any number of them in bounded memory: several
 * block status commands are in flight, and no more are sent until their extents have been taken. A range need not be
 * aligned to the server's minimum block size: whole blocks are asked about, and what is beyond the range is cut off.
 *
 * @throws NbdStrictError `EINVAL` for bad options and when the range leaves the export, `ENOTSUP` when the context was
 *   not negotiated; what {@link NbdConnection.blockStatus64} rejects with; the signal's reason. All of them when the
 *   first extent is asked for, at the earliest.
 *
 * @example
 * for await (const { offset, length, flags } of extents(connection)) {
 *   if ((flags & BigInt(STATE_ZERO)) === 0n) data += length;
 * }
 */
export async function* extents(
  connection: ExportLike,
  options: ExtentsOptions = {},
): AsyncGenerator<Extent<bigint>, void, undefined> {
  let last: Extent<bigint> | null = null;
  const breathe = makeBreather();
  for await (const batch of extentBatches(connection, options)) {
    for (const extent of batch) {
      // A reply may have a million of them.
      const pause = breathe();
      if (pause !== null) await pause;
      options.signal?.throwIfAborted();
      if (options.merge === false) {
        yield extent;
      } else if (last?.flags === extent.flags) {
        last = { offset: last.offset, length: last.length + extent.length, flags: last.flags };
      } else {
        if (last !== null) yield last;
        last = extent;
      }
    }
  }
  if (last !== null) yield last;
}

/** The same an answer at a time, neighbours not joined: cheaper where there are very many. */
export async function* extentBatches(
  connection: ExportLike,
  options: ExtentsOptions = {},
): AsyncGenerator<Iterable<Extent<bigint>>, void, undefined> {
  const checked = checkOptions<ExtentsOptions>('extents', options, EXTENTS_OPTIONS);
  const contexts = [checked.context ?? CONTEXT_BASE_ALLOCATION];
  const { facts, question } = questionOf(connection, checked, contexts, 'extents');
  for await (const answer of askAhead(connection, facts, question)) {
    if (answer.failure !== null) throw answer.failure.error;
    yield extentsOf(answer);
  }
}

/** The extents of an answer's first context, cut to the answer's range. */
function* extentsOf({ start, end, contexts: [entries] }: Answer): Generator<Extent<bigint>, void, undefined> {
  if (entries === undefined) return;
  let offset = start;
  for (let at = 0; at + 1 < entries.length && offset < end; at += 2) {
    const reported = entries[at] as bigint;
    const length = offset + reported > end ? end - offset : reported;
    yield { offset, length, flags: entries[at + 1] as bigint };
    offset += length;
  }
}
