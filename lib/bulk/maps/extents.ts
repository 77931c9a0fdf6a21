// The extents of a range, however many block status commands that takes: loops over short replies, cuts to the
// range, joins equal neighbours. Invariant: what is yielded covers the range in order, without gaps or overlaps.

import type { ByteCount } from '../../client/connection.js';
import { NbdCommandError, NbdProtocolError, NbdStateError, NbdStrictError } from '../../errors.js';
import { CONTEXT_BASE_ALLOCATION } from '../../protocol/client-constants.js';
import type { Extent } from '../../util/extents.js';
import { aBoolean, aString, checkOptions } from '../../util/option-checks.js';
import { RANGE_CHECKS, SIGNAL_CHECKS, STATUS_CHECKS } from '../options.js';
import { type ExportLike, type Facts, factsOf, hasContext, rangeOf } from '../facts.js';
import { located } from '../failures.js';
import { makeBreather } from '../lanes.js';
import { quoted } from '../../util/visible.js';

/** What {@link extents} takes. */
export interface ExtentsOptions {
  /** A metadata context that was negotiated (`metaContexts`). Default `base:allocation`. */
  context?: string;
  /** First byte. Default 0. */
  offset?: ByteCount;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount;
  /** Join neighbours with the same flags. Default true. */
  merge?: boolean;
  /** The most bytes that one block status command asks about. Default: as many as it can. */
  step?: ByteCount;
  /** Ends the iteration, which throws its reason. */
  signal?: AbortSignal;
}

const EXTENTS_OPTIONS = {
  context: aString,
  merge: aBoolean,
  step: STATUS_CHECKS.step,
  ...RANGE_CHECKS,
  ...SIGNAL_CHECKS,
};

/**
 * The extents of an export, or of a range of it, of one metadata context. Any number of them in bounded memory: the
 * server is asked again when those that it told have been taken. A range need not be aligned to the server's minimum
 * block size: whole blocks are asked about, and what is beyond the range is cut off.
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
      if (last !== null && options.merge !== false && last.flags === extent.flags) {
        last = { offset: last.offset, length: last.length + extent.length, flags: last.flags };
      } else {
        if (last !== null) yield last;
        last = extent;
      }
    }
  }
  if (last !== null) yield last;
}

/** The same a reply at a time, neighbours not joined: cheaper where there are very many. */
export async function* extentBatches(
  connection: ExportLike,
  options: ExtentsOptions = {},
): AsyncGenerator<Iterable<Extent<bigint>>, void, undefined> {
  const syscall = 'extents';
  const checked = checkOptions<ExtentsOptions>(syscall, options, EXTENTS_OPTIONS);
  const { context = CONTEXT_BASE_ALLOCATION, step, signal } = checked;
  const facts = factsOf(connection, syscall);
  const [start, end] = rangeOf(facts.size, checked, syscall);
  if (!hasContext(connection, context)) {
    throw new NbdStrictError(
      `extents: the server has not agreed to the metadata context ${quoted(context)} (see metaContexts)`,
      { code: 'ENOTSUP', syscall },
    );
  }
  signal?.throwIfAborted();
  for await (const answer of questions(connection, facts, { start, end, step, signal, context, syscall })) {
    if (answer.failure !== null) throw answer.failure.error;
    yield cut(answer);
  }
}

/** What one block status command has answered, or failed with, of the range from `start` to `end`. */
export interface Answer {
  readonly start: bigint;
  readonly end: bigint;
  /** Pairs of length and flags from `start` on; they may reach beyond `end`. Empty after an error. */
  readonly entries: BigUint64Array;
  readonly failure: { readonly error: unknown } | null;
}

export interface Question {
  readonly start: bigint;
  readonly end: bigint;
  readonly step?: ByteCount | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly context?: string;
  readonly syscall: string;
}

const NOTHING = new BigUint64Array(0);

/**
 * Asks for the status of a range, question by question. Of a question that fails, what it asked about is the answer's
 * range, and the next answer goes on behind it; the caller decides whether there is to be one.
 */
export async function* questions(
  connection: ExportLike,
  facts: Facts,
  { start, end, step, signal, context = CONTEXT_BASE_ALLOCATION, syscall }: Question,
): AsyncGenerator<Answer, void, undefined> {
  const minimum = BigInt(facts.minimum);
  const wanted = step === undefined || BigInt(step) > facts.longestQuestion ? facts.longestQuestion : BigInt(step);
  const most = wanted < minimum ? minimum : wanted - (wanted % minimum);
  // A server may refuse questions about less than a block, be it the short last one of the export.
  const wholeEnd = facts.size - (facts.size % minimum);
  for (let offset = start; offset < end;) {
    const asked = offset - (offset % minimum);
    const rounded = end + ((minimum - (end % minimum)) % minimum);
    const limit = asked < wholeEnd ? (rounded < wholeEnd ? rounded : wholeEnd) : facts.size;
    const count = limit - asked < most ? limit - asked : most;
    const until = asked + count < end ? asked + count : end;
    let entries: BigUint64Array;
    try {
      entries = (await connection.blockStatus64(count, asked, 0, signal)).get(context)?.entries ?? NOTHING;
      if (entries.length < 2) throw toldNothing(context, asked, syscall);
    } catch (cause) {
      // What the server refuses for being less than a block reads as data; of other contexts nothing can be assumed.
      const isTail = asked >= wholeEnd && cause instanceof NbdCommandError && context === CONTEXT_BASE_ALLOCATION;
      if (!isTail) {
        const error =
          cause instanceof NbdStateError ? located(cause, { syscall, what: 'block status', offset }) : cause;
        yield { start: offset, end: until, entries: NOTHING, failure: { error } };
        offset = until;
        continue;
      }
      entries = BigUint64Array.of(count, 0n);
    }
    let reached = asked;
    for (let at = 0; at < entries.length && reached < end; at += 2) reached += entries[at] as bigint;
    if (reached > end) reached = end;
    // The first extent may lie before the range, where that begins within a block.
    if (reached <= offset) throw stuck(asked, syscall);
    const kept = offset === asked ? entries : behead(entries, offset - asked);
    yield { start: offset, end: reached, entries: kept, failure: null };
    offset = reached;
  }
}

const toldNothing = (context: string, offset: bigint, syscall: string): NbdProtocolError =>
  new NbdProtocolError(`${syscall}: the server returned no extent of ${quoted(context)} at offset ${offset}`, {
    code: 'EPROTO',
    syscall,
    offset,
  });

const stuck = (offset: bigint, syscall: string): NbdProtocolError =>
  new NbdProtocolError(`${syscall}: the server returned an extent of less than a block at offset ${offset}`, {
    code: 'EPROTO',
    syscall,
    offset,
  });

/** The entries without their first `length` bytes. */
function behead(entries: BigUint64Array, length: bigint): BigUint64Array {
  let rest = length;
  let index = 0;
  while (rest >= (entries[index] as bigint)) {
    rest -= entries[index] as bigint;
    index += 2;
  }
  const left = entries.slice(index);
  left[0] = (left[0] as bigint) - rest;
  return left;
}

function* cut({ start, end, entries }: Answer): Generator<Extent<bigint>, void, undefined> {
  let offset = start;
  for (let at = 0; at + 1 < entries.length && offset < end; at += 2) {
    const told = entries[at] as bigint;
    const length = offset + told > end ? end - offset : told;
    yield { offset, length, flags: entries[at + 1] as bigint };
    offset += length;
  }
}
