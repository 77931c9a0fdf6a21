// Comparing two exports: what both know to be zero is not read, what one knows to be zero is only looked for in the
// other.

import { NbdConnectionError, NbdError } from '../errors.js';
import { type Connections, type CopySource, exportSource, type ZeroRun } from './endpoint.js';
import { inLanes, type Progress } from './lanes.js';
import { isAllZero } from './zeroes.js';

/** What {@link compare} takes. */
export interface CompareOptions {
  /** Bytes of one read. Default 256 KiB. */
  requestSize?: number;
  /** Pairs of reads in flight. Default 32. */
  requests?: number;
  /** Use the exports' extents. Default true. */
  extents?: boolean;
  /** Stop at the first difference. Default false: count them all. */
  stopAtFirst?: boolean;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** What {@link compare} found. */
export interface CompareResult {
  /** Whether the sizes are equal and no byte differs. */
  readonly equal: boolean;
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

interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly zero: readonly [boolean, boolean];
}

const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_DEPTH = 32;

/**
 * Compares the bytes of two exports up to the end of the shorter one.
 *
 * @throws What reads and block status reject with; the signal's reason.
 */
export async function compare(
  a: Connections | CopySource,
  b: Connections | CopySource,
  options: CompareOptions = {},
): Promise<CompareResult> {
  const sides = [toSource(a), toSource(b)] as const;
  const total = Math.min(sides[0].size, sides[1].size);
  const requestSize = Math.min(
    options.requestSize ?? DEFAULT_REQUEST,
    ...sides.map((s) => s.maximumRequest ?? Infinity),
  );
  let firstDifference = Infinity;
  let differing = 0;
  let compared = 0;
  let skipped = 0;
  const buffers: [Buffer, Buffer][] = [];

  const work = async ({ offset, length, zero }: Piece, lane: number): Promise<void> => {
    options.signal?.throwIfAborted();
    if (options.stopAtFirst === true && firstDifference < offset) return;
    if (zero[0] && zero[1]) {
      skipped += length;
    } else {
      const pair = (buffers[lane] ??= [Buffer.allocUnsafeSlow(requestSize), Buffer.allocUnsafeSlow(requestSize)]);
      const read = (side: 0 | 1): Promise<void> | undefined =>
        zero[side] ? undefined : sides[side].read(pair[side].subarray(0, length), offset, lane, options.signal);
      // Both have settled before the buffers are used again.
      for (const settled of await Promise.allSettled([read(0), read(1)])) {
        if (settled.status === 'rejected') throw located(settled.reason, offset, options.signal);
      }
      const found = differences(pair, zero, length);
      if (found !== null) {
        differing += found.count;
        firstDifference = Math.min(firstDifference, offset + found.first);
      }
    }
    compared += length;
    options.onProgress?.({ done: BigInt(compared), total: BigInt(total) });
  };
  await inLanes(pieces(sides, total, requestSize, options), options.requests ?? DEFAULT_DEPTH, work);
  return {
    equal: differing === 0 && sides[0].size === sides[1].size,
    sizes: [BigInt(sides[0].size), BigInt(sides[1].size)],
    firstDifference: firstDifference === Infinity ? null : BigInt(firstDifference),
    differing: BigInt(differing),
    compared: BigInt(compared),
    skipped: BigInt(skipped),
  };
}

const toSource = (value: Connections | CopySource): CopySource =>
  typeof (value as { size?: unknown }).size === 'number' ? (value as CopySource) : exportSource(value as Connections);

function located(cause: unknown, offset: number, signal: AbortSignal | undefined): unknown {
  if ((signal?.aborted === true && cause === signal.reason) || !(cause instanceof NbdError)) return cause;
  const Kind = cause instanceof NbdConnectionError ? NbdConnectionError : NbdError;
  return new Kind(`compare: read at offset ${offset} failed: ${cause.message}`, {
    code: cause.code,
    syscall: 'compare',
    offset: BigInt(offset),
    cause,
  });
}

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
async function* pieces(
  sides: readonly [CopySource, CopySource],
  total: number,
  requestSize: number,
  options: CompareOptions,
): AsyncGenerator<Piece> {
  const runs = [runsOf(sides[0], total, options), runsOf(sides[1], total, options)] as const;
  const current: [ZeroRun, ZeroRun] = [NO_RUN, NO_RUN];
  for (let offset = 0; offset < total;) {
    for (const side of [0, 1] as const) {
      while (current[side].offset + current[side].length <= offset) {
        const next = await runs[side].next();
        current[side] = next.done === true ? { offset, length: total - offset, isZero: false } : next.value;
      }
    }
    const end = Math.min(...current.map((run) => run.offset + run.length), total);
    const zero = [current[0].isZero, current[1].isZero] as const;
    const length = zero[0] && zero[1] ? end - offset : Math.min(end - offset, requestSize);
    yield { offset, length, zero };
    offset += length;
  }
}

const NO_RUN: ZeroRun = { offset: 0, length: 0, isZero: false };

async function* runsOf(side: CopySource, total: number, options: CompareOptions): AsyncGenerator<ZeroRun> {
  if (options.extents === false || side.zeroRuns === undefined || total === 0) {
    yield { offset: 0, length: total, isZero: false };
    return;
  }
  yield* side.zeroRuns(0, total, options.signal);
}
