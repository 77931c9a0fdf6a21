// Comparing two exports: what both know to be zero is not read, what one knows to be zero is only looked for in the
// other.

import { aBoolean, checkOptions } from '../util/option-checks.js';
import { DEPTH_CHECKS, pick, type StatusOptions, WORK_CHECKS } from './options.js';
import { type SourceLike, toSource } from './ends/ends.js';
import { checkAllDone, located } from './failures.js';
import { multipleOf } from './facts.js';
import { inLanes, type Progress, report } from './lanes.js';
import { knownRuns, type Run } from './ends/runs.js';
import { isAllZero } from './zeroes.js';

/** What {@link compare} takes. */
export interface CompareOptions extends StatusOptions {
  /** Bytes of one read; cut to what both ends take. Default 256 KiB. */
  requestSize?: number;
  /** Pairs of reads in flight. Default 32. */
  requests?: number;
  /** Use the exports' extents. Default true. */
  extents?: boolean;
  /** Stop at the first difference. Default false: count them all. */
  stopAtFirst?: boolean;
  /** Called as bytes are compared, zeroes that are not read included. */
  onProgress?: (progress: Progress) => void;
  /** Ends the work; the promise rejects with its reason. */
  signal?: AbortSignal;
}

/** What {@link compare} found. */
export interface CompareResult {
  /** Whether the sizes are equal and no byte differs. */
  readonly equal: boolean;
  /** Bytes of the first and of the second. */
  readonly sizes: readonly [bigint, bigint];
  /** Offset of the first byte that differs, within the shorter of the two; null when none does. */
  readonly firstDifference: bigint | null;
  /** Bytes that differ; with `stopAtFirst` those seen until then. */
  readonly differing: bigint;
  /** Bytes compared, zeroes that were not read included. */
  readonly compared: bigint;
  /** Bytes known to be zero on both sides, and not read. */
  readonly skipped: bigint;
}

const COMPARE_OPTIONS = { ...WORK_CHECKS, ...DEPTH_CHECKS, stopAtFirst: aBoolean };

interface Piece {
  readonly start: bigint;
  readonly end: bigint;
  readonly zero: readonly [boolean, boolean];
}

/** Beyond every export. */
const NOWHERE = 2n ** 64n;
const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_DEPTH = 32;

/**
 * Compares the bytes of two exports up to the end of the shorter one. Either is a connection, an array of connections
 * to one export, or a source of your own.
 *
 * @throws NbdStrictError `EINVAL` for bad options and ends, before anything is read. What reads and block status reject
 *   with, of its own class and with its own fields; `ENOTCONN` for a connection that was lost. The signal's reason.
 */
export async function compare(
  first: SourceLike,
  second: SourceLike,
  options: CompareOptions = {},
): Promise<CompareResult> {
  const checked = checkOptions<CompareOptions>('compare', options, COMPARE_OPTIONS);
  const { signal, onProgress } = checked;
  const sides = [toSource(first, 'compare', 'first'), toSource(second, 'compare', 'second')] as const;
  const total = sides[0].size < sides[1].size ? sides[0].size : sides[1].size;
  const align = Math.max(sides[0].blocks.minimum, sides[1].blocks.minimum);
  const limit = Math.min(sides[0].blocks.maximum, sides[1].blocks.maximum);
  const requestSize = multipleOf(align, Math.min(checked.requestSize ?? DEFAULT_REQUEST, limit));
  let firstDifference = NOWHERE;
  let differing = 0n;
  let compared = 0n;
  let skipped = 0n;
  const buffers: [Buffer, Buffer][] = [];

  const work = async ({ start, end, zero }: Piece, lane: number): Promise<void> => {
    if (checked.stopAtFirst === true && firstDifference < start) return;
    if (zero[0] && zero[1]) {
      skipped += end - start;
    } else {
      const length = Number(end - start);
      const pair = (buffers[lane] ??= [Buffer.allocUnsafeSlow(requestSize), Buffer.allocUnsafeSlow(requestSize)]);
      const read = (side: 0 | 1): Promise<void> | undefined =>
        zero[side] ? undefined : sides[side].read(pair[side].subarray(0, length), start, lane, signal);
      // Both have settled before the buffers are used again.
      for (const settled of await Promise.allSettled([read(0), read(1)])) {
        if (settled.status === 'rejected')
          throw located(settled.reason, { syscall: 'compare', what: 'read', offset: start }, signal);
      }
      const found = differences(pair, zero, length);
      if (found !== null) {
        differing += BigInt(found.count);
        const place = start + BigInt(found.first);
        if (place < firstDifference) firstDifference = place;
      }
    }
    compared += end - start;
    await report(onProgress, { done: compared, total });
  };
  const runs = pick(checked, 'extents', 'step', 'onStatusError', 'signal');
  await inLanes(
    pieces(
      sides.map((side) => knownRuns(side, 0n, total, { ...runs, align, syscall: 'compare' })) as [Runs, Runs],
      total,
      BigInt(requestSize),
    ),
    checked.requests ?? DEFAULT_DEPTH,
    work,
    signal,
  );
  if (differing === 0n || checked.stopAtFirst !== true) checkAllDone(compared, total, 'compare');
  return {
    equal: differing === 0n && sides[0].size === sides[1].size,
    sizes: [sides[0].size, sides[1].size],
    firstDifference: firstDifference === NOWHERE ? null : firstDifference,
    differing,
    compared,
    skipped,
  };
}

type Runs = AsyncGenerator<Run, void, undefined>;

function differences(
  [a, b]: readonly [Buffer, Buffer],
  zero: readonly [boolean, boolean],
  length: number,
): { first: number; count: number } | null {
  if (
    zero[0] ? isAllZero(b, 0, length) : zero[1] ? isAllZero(a, 0, length) : a.compare(b, 0, length, 0, length) === 0
  ) {
    return null;
  }
  let first = -1;
  let count = 0;
  for (let at = 0; at < length; at++) {
    if ((zero[0] ? 0 : a[at]) !== (zero[1] ? 0 : b[at])) {
      if (first === -1) first = at;
      count++;
    }
  }
  return { first, count };
}

/** Pieces of at most `requestSize`, none of which is zero in one part and not in another; zeroes of both are whole. */
async function* pieces(runs: readonly [Runs, Runs], total: bigint, requestSize: bigint): AsyncGenerator<Piece> {
  const current: [Run, Run] = [NO_RUN, NO_RUN];
  try {
    for (let start = 0n; start < total;) {
      for (const side of [0, 1] as const) {
        while (current[side].end <= start) {
          const next = await runs[side].next();
          current[side] = next.done === true ? { start, end: total, isZero: false } : next.value;
        }
      }
      const zero = [current[0].isZero, current[1].isZero] as const;
      let end = current[0].end < current[1].end ? current[0].end : current[1].end;
      if (!(zero[0] && zero[1]) && end - start > requestSize) end = start + requestSize;
      yield { start, end, zero };
      start = end;
    }
  } finally {
    await Promise.all(runs.map((each) => each.return()));
  }
}

const NO_RUN: Run = { start: 0n, end: 0n, isZero: false };
