// Comparing two exports: what both know to be zero is not read, what one knows to be zero is only looked for in the
// other.

import type { Buffer } from '../util/buffer.js';
import type { ByteCount } from '../client/export.js';
import { aBoolean, checkOptions, oneOf } from '../util/option-checks.js';
import { allocateForReads } from '../util/memory.js';
import { type Source, type SourceLike, toSource } from './ends/ends.js';
import type { Run, RunOptions } from './ends/runs.js';
import { runsOf } from './ends/span-runs.js';
import { multipleOf, rangeOf } from './facts.js';
import { checkAllDone, located } from './failures.js';
import { type CountOrAuto, InFlight } from './in-flight.js';
import type { Span } from './intervals.js';
import { inLanes } from './lanes.js';
import { DEPTH_CHECKS, pick, RANGE_CHECKS, type StatusOptions, WORK_CHECKS } from './options.js';
import { type Progress, ProgressMeter } from './progress.js';
import { anIterable, type GivenRange, normalised, withJson } from './ranges.js';
import { isAllZero } from './zeroes.js';

/** What {@link compare} takes. */
export interface CompareOptions extends StatusOptions {
  /** First byte, of both. Default 0. */
  offset?: ByteCount | undefined;
  /** Number of bytes, which both must have. Default: up to the end of the shorter one. */
  length?: ByteCount | undefined;
  /** Only these ranges, as far as they lie between `offset` and `offset + length`. In any order. */
  ranges?: Iterable<GivenRange> | undefined;
  /**
   * What of the longer one lies behind the end of the shorter one. `differ`, the default: a different size is a
   * difference, and these bytes are not compared. `equal`: they have to be zero, as in `qemu-img compare`, and so do
   * ranges there.
   */
  trailingZeroes?: 'differ' | 'equal' | undefined;
  /** Bytes of one read; cut to what both ends take. Default 256 KiB. */
  requestSize?: number | undefined;
  /**
   * Pairs of reads in flight. Default `'auto'`: begins with 32, and raises the bytes in flight while that raises the
   * throughput, up to `queueSize`.
   */
  requests?: CountOrAuto | undefined;
  /** The most bytes in flight, of both together. Default `'auto'`: 256 MiB. */
  queueSize?: CountOrAuto | undefined;
  /** Use the exports' extents. Default true. */
  extents?: boolean | undefined;
  /** Stop at the first difference. Default false: count them all. */
  stopAtFirst?: boolean | undefined;
  /** Called as bytes are compared, zeroes that are not read included. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Ends the work; the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
}

/** What {@link compare} found. */
export interface CompareResult {
  /**
   * Whether no byte differs, and the sizes are equal. The sizes do not matter where `length` or `ranges` choose what is
   * compared, and with `trailingZeroes: 'equal'`.
   */
  readonly equal: boolean;
  /** Bytes of the first and of the second. */
  readonly sizes: readonly [bigint, bigint];
  /** Offset of the first byte that differs, of those compared; null when none does. */
  readonly firstDifference: bigint | null;
  /** Bytes that differ; with `stopAtFirst` those seen until then. */
  readonly differing: bigint;
  /** Bytes compared, zeroes that were not read included. */
  readonly compared: bigint;
  /** Bytes known to be zero on both sides, and not read. */
  readonly skipped: bigint;
  /** Bytes in flight, of both together, that the comparison has come to. */
  readonly inFlight: number;
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const COMPARE_OPTIONS = {
  ...WORK_CHECKS,
  ...RANGE_CHECKS,
  ...DEPTH_CHECKS,
  ranges: anIterable,
  stopAtFirst: aBoolean,
  trailingZeroes: oneOf('differ', 'equal'),
};

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
 * Compares the bytes of two exports up to the end of the shorter one, or a part of them. Either is a connection, an array of connections
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
  const spans = chosen(sides, checked);
  const total = spans.reduce((sum, span) => sum + span.end - span.start, 0n);
  const align = Math.max(sides[0].blocks.minimum, sides[1].blocks.minimum);
  const limit = Math.min(sides[0].blocks.maximum, sides[1].blocks.maximum);
  const requestSize = multipleOf(align, Math.min(checked.requestSize ?? DEFAULT_REQUEST, limit));
  const inFlight = new InFlight({
    // Of both sides.
    requestSize: 2 * requestSize,
    longestRequest: checked.requestSize === undefined ? 2 * multipleOf(align, limit) : undefined,
    ...pick(checked, 'requests', 'queueSize'),
    start: DEFAULT_DEPTH,
  });
  const progress = new ProgressMeter(onProgress, { total, at: spans[0]?.start ?? 0n });
  let firstDifference = NOWHERE;
  let differing = 0n;
  let compared = 0n;
  let skipped = 0n;
  const buffers: ([Buffer, Buffer] | undefined)[] = [];

  const work = async ({ start, end, zero }: Piece, lane: number): Promise<void> => {
    if (checked.stopAtFirst === true && firstDifference < start) return;
    const begun = inFlight.begin();
    let moved = 0;
    if (zero[0] && zero[1]) {
      skipped += end - start;
    } else {
      const length = Number(end - start);
      moved = (zero[0] ? 0 : length) + (zero[1] ? 0 : length);
      let pair = buffers[lane];
      if (pair === undefined || pair[0].length < length) {
        const most = Math.max(length, inFlight.requestSize / 2);
        pair = [allocateForReads(most), allocateForReads(most)];
        buffers[lane] = pair;
      }
      const both = pair;
      const read = (side: 0 | 1): Promise<void> | undefined =>
        zero[side] ? undefined : sides[side].read(both[side].subarray(0, length), start, lane, signal);
      // Both have settled before the buffers are used again.
      for (const settled of await Promise.allSettled([read(0), read(1)])) {
        if (settled.status === 'rejected')
          throw located(settled.reason, { syscall: 'compare', what: 'read', offset: start }, signal);
      }
      const found = differences(both, zero, length);
      if (found !== null) {
        differing += BigInt(found.count);
        const place = start + BigInt(found.first);
        if (place < firstDifference) firstDifference = place;
      }
    }
    compared += end - start;
    inFlight.moved(moved, begun);
    await progress.piece(end, compared, moved);
  };
  const known = {
    ...pick(checked, 'extents', 'step', 'questions', 'onStatusError', 'signal'),
    align,
    syscall: 'compare',
  };
  await inLanes(
    pieces(sides.map((side) => runsWithTail(side, spans, known)) as [Runs, Runs], spans, () =>
      BigInt(inFlight.requestSize / 2),
    ),
    inFlight,
    work,
    signal,
    (lane) => {
      buffers[lane] = undefined;
    },
  );
  if (differing === 0n || checked.stopAtFirst !== true) checkAllDone(compared, total, 'compare');
  const sizesMatter =
    checked.trailingZeroes !== 'equal' && checked.length === undefined && checked.ranges === undefined;
  return withJson({
    equal: differing === 0n && (!sizesMatter || sides[0].size === sides[1].size),
    sizes: [sides[0].size, sides[1].size] as const,
    firstDifference: firstDifference === NOWHERE ? null : firstDifference,
    differing,
    compared,
    skipped,
    inFlight: inFlight.bytes,
  });
}

/** What is compared, in order. */
function chosen([first, second]: readonly [Source, Source], options: CompareOptions): Span[] {
  const [less, more] = first.size < second.size ? [first.size, second.size] : [second.size, first.size];
  const size = options.trailingZeroes === 'equal' ? more : less;
  const [start, end] = rangeOf(size, options, 'compare');
  if (options.ranges !== undefined) return normalised(options.ranges, { start, end, size }, 'compare: ranges');
  return start < end ? [{ start, end }] : [];
}

/** What is known of a side; behind its end it is zero. */
async function* runsWithTail(side: Source, spans: readonly Span[], options: RunOptions): Runs {
  const { size } = side;
  const within = spans
    .filter(({ start }) => start < size)
    .map(({ start, end }) => ({ start, end: end < size ? end : size }));
  yield* runsOf(side, within, options);
  for (const { start, end } of spans) {
    if (end > size) yield { start: start > size ? start : size, end, isZero: true };
  }
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

/**
 * Pieces in each of which a side is zero as a whole or not known to be: of at most `requestSize` bytes where one has to
 * be read.
 */
async function* pieces(
  runs: readonly [Runs, Runs],
  spans: readonly Span[],
  requestSize: () => bigint,
): AsyncGenerator<Piece> {
  const current: [Run, Run] = [NO_RUN, NO_RUN];
  try {
    for (const span of spans) {
      for (let { start } = span; start < span.end;) {
        for (const side of [0, 1] as const) {
          while (current[side].end <= start) {
            const next = await runs[side].next();
            current[side] = next.done === true ? { start, end: span.end, isZero: false } : next.value;
          }
        }
        const zero = [current[0].isZero, current[1].isZero] as const;
        let end = current[0].end < current[1].end ? current[0].end : current[1].end;
        if (end > span.end) ({ end } = span);
        const most = requestSize();
        if (!(zero[0] && zero[1]) && end - start > most) end = start + most;
        yield { start, end, zero };
        start = end;
      }
    }
  } finally {
    await Promise.all(runs.map((each) => each.return()));
  }
}

const NO_RUN: Run = { start: 0n, end: 0n, isZero: false };
