// Several metadata contexts of a range in one pass: one block status command reports on all of them. Invariant: what is
// yielded covers the range in order, without gaps or overlaps, and in each piece the flags of every context are known.

import type { ExportLike } from '../facts.js';
import { located } from '../failures.js';
import { makeBreather } from '../lanes.js';
import { checkContextsOptions, type ContextsOptions, questionOf } from './contexts.js';
import { type Answer, askAhead, type Question } from './look-ahead.js';

/** What {@link mergedExtents} takes. */
export type MergedExtentsOptions = ContextsOptions;

/** A run of bytes with the same status in every context. */
export interface MergedExtent {
  /** First byte, from the beginning of the export. */
  readonly offset: bigint;
  /** Number of bytes, at least 1. */
  readonly length: bigint;
  /** The flags of each context, in the order in which the contexts were given. */
  readonly flags: readonly bigint[];
}

/**
 * The extents of an export, or of a range of it, in several metadata contexts at once: an extent ends where the status
 * of any context changes. One pass of block status commands serves all contexts, several of them in flight, and memory
 * is bounded however many extents there are. Where a reply covers less of one context than of another, only what all of
 * them cover is used, and the rest is asked for again. Neighbours with the same flags are joined.
 *
 * @throws NbdStrictError `EINVAL` for bad options and when the range leaves the export, `ENOTSUP` when a context was not
 *   negotiated. What {@link NbdConnection.blockStatus64} rejects with, `EPROTO` among it when the server leaves a context
 *   out of a reply. The signal's reason. All of them when the first extent is asked for, at the earliest.
 *
 * @example
 * const contexts = ['base:allocation', 'qemu:dirty-bitmap:b0'];
 * for await (const { offset, length, flags: [allocation, dirty] } of mergedExtents(connection, { contexts })) {
 *   console.log(offset, length, allocation, dirty);
 * }
 */
export async function* mergedExtents(
  from: ExportLike,
  options: MergedExtentsOptions,
): AsyncGenerator<MergedExtent, void, undefined> {
  let last: MergedExtent | null = null;
  for await (const extent of mergedOf(from, checkContextsOptions('mergedExtents', options), 'mergedExtents')) {
    if (last !== null && isSame(last.flags, extent.flags)) {
      last = { offset: last.offset, length: last.length + extent.length, flags: last.flags };
    } else {
      if (last !== null) yield last;
      last = extent;
    }
  }
  if (last !== null) yield last;
}

/** The same, neighbours not joined, for the function that the caller has called; the options have been checked. */
export async function* mergedOf(
  from: ExportLike,
  options: ContextsOptions,
  syscall: string,
): AsyncGenerator<MergedExtent, void, undefined> {
  const { facts, question } = questionOf(from, options, options.contexts, syscall);
  const breathe = makeBreather();
  for await (const answer of answersOf(from, facts, question)) {
    for (const extent of mergedIn(answer)) {
      const pause = breathe();
      if (pause !== null) await pause;
      yield extent;
      options.signal?.throwIfAborted();
    }
  }
}

/** The answers to a question; the first failure is thrown. */
async function* answersOf(
  from: ExportLike,
  facts: Parameters<typeof askAhead>[1],
  question: Question,
): AsyncGenerator<Answer, void, undefined> {
  const { syscall, signal } = question;
  for await (const answer of askAhead(from, facts, question)) {
    if (answer.failure !== null) {
      throw located(answer.failure.error, { syscall, what: 'block status', offset: answer.start }, signal);
    }
    yield answer;
  }
}

/** The extents of all contexts of an answer, laid over each other. */
function* mergedIn({ start, end, contexts }: Answer): Generator<MergedExtent, void, undefined> {
  // Of each context, the place of the extent that is current, and what is left of it. Plain loops: there may be millions.
  const at = contexts.map(() => -2);
  const left = contexts.map(() => 0n);
  for (let offset = start; offset < end;) {
    let length = end - offset;
    const flags = new Array<bigint>(contexts.length);
    for (let index = 0; index < contexts.length; index++) {
      const entries = contexts[index] as BigUint64Array;
      let place = at[index] as number;
      let rest = left[index] as bigint;
      while (rest === 0n) rest = entries[(place += 2)] as bigint;
      if (rest < length) length = rest;
      flags[index] = entries[place + 1] as bigint;
      at[index] = place;
      left[index] = rest;
    }
    for (let index = 0; index < left.length; index++) left[index] = (left[index] as bigint) - length;
    yield { offset, length, flags };
    offset += length;
  }
}

const isSame = (first: readonly bigint[], second: readonly bigint[]): boolean => {
  for (let index = 0; index < first.length; index++) if (first[index] !== second[index]) return false;
  return true;
};
