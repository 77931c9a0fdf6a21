// Prefetching an export: cache commands for a range or for its data only, split and bounded.

import type { Buffer } from '../util/buffer.js';
import type { ByteCount } from '../client/export.js';
import { CONTEXT_BASE_ALLOCATION } from '../protocol/client-constants.js';
import { aBoolean, aFunction, checkOptions, refuse, wholeNumber } from '../util/option-checks.js';
import { allocateForReads } from '../util/memory.js';
import { DEPTH_CHECKS, pick, RANGE_CHECKS, SIGNAL_CHECKS, STATUS_CHECKS, type StatusOptions } from './options.js';
import { sourceOfConnections } from './ends/endpoint.js';
import { Source } from './ends/ends.js';
import { type ExportLike, factsOf, hasContext, multipleOf, rangeOf } from './facts.js';
import { at, checkAllDone } from './failures.js';
import { type CountOrAuto, InFlight } from './in-flight.js';
import { inLanes } from './lanes.js';
import { type Progress, ProgressMeter } from './progress.js';
import { withJson } from './ranges.js';
import { cutRun, knownRuns, type Run } from './ends/runs.js';

/** What {@link prefetch} takes. */
export interface PrefetchOptions extends StatusOptions {
  /** First byte. Default 0. */
  offset?: ByteCount | undefined;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount | undefined;
  /** Leave out what reads as zeroes, where `base:allocation` was negotiated. Default true. */
  dataOnly?: boolean | undefined;
  /** Read instead of asking the server to cache: for servers without the command. Default false. */
  read?: boolean | undefined;
  /** Bytes of one command; cut to the server's maximum. Default 4 MiB. */
  requestSize?: number | undefined;
  /**
   * Commands in flight. Default `'auto'`: begins with 16, or 8 reads, and raises them while that raises the throughput, up to
   * `queueSize`.
   */
  requests?: CountOrAuto | undefined;
  /** The most bytes that commands in flight ask for. Default `'auto'`: 256 MiB. */
  queueSize?: CountOrAuto | undefined;
  /** Called after each command with what has been covered so far, in bytes of the range. */
  onProgress?: ((progress: PrefetchProgress) => void) | undefined;
  /** Aborts the work, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** How far {@link prefetch} has come: what is done, and what it has done. */
export interface PrefetchProgress extends Progress {
  /** Bytes that were prefetched. */
  readonly cached: bigint;
  /** Bytes that were left out because they read as zeroes. */
  readonly skipped: bigint;
  /** Commands that were sent. */
  readonly commands: number;
}

/** What {@link prefetch} has done. */
export interface PrefetchResult {
  /** Bytes that were prefetched. */
  readonly cached: bigint;
  /** Bytes that were left out because they read as zeroes. */
  readonly skipped: bigint;
  /** Commands that were sent. */
  readonly commands: number;
  /** Bytes in flight that it has come to. */
  readonly inFlight: number;
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const PREFETCH_OPTIONS = {
  ...RANGE_CHECKS,
  ...DEPTH_CHECKS,
  ...SIGNAL_CHECKS,
  ...STATUS_CHECKS,
  dataOnly: aBoolean,
  read: aBoolean,
  onProgress: aFunction,
};

const DEFAULT_REQUEST = 4 * 1024 * 1024;
const DEFAULT_DEPTH = 16;
/** Reads take memory. */
const DEFAULT_READS = 8;

/**
 * Asks the server to prefetch a range, or what of it holds data, with a bounded number of commands in flight. Of a range
 * that is not aligned to the server's minimum block size the whole blocks around it are prefetched; the result counts
 * the range.
 *
 * @throws NbdStrictError `EINVAL` for bad options and when the range leaves the export. What
 *   {@link NbdConnection.cache} (with `read`, `pread`) rejects with: `EINVAL` from a server without the command. The
 *   first error ends it; commands in flight are waited for. The signal's reason.
 */
export async function prefetch(connection: ExportLike, options: PrefetchOptions = {}): Promise<PrefetchResult> {
  const checked = checkOptions<PrefetchOptions>('prefetch', options, PREFETCH_OPTIONS);
  const { signal, onProgress, read = false } = checked;
  const facts = factsOf(connection, 'prefetch');
  const [first, last] = rangeOf(facts.size, checked, 'prefetch');
  const source = new Source(sourceOfConnections(connection, 'prefetch'), 'prefetch: connection');
  const requestSize = multipleOf(facts.minimum, Math.min(checked.requestSize ?? DEFAULT_REQUEST, facts.maximum));
  const inFlight = new InFlight({
    requestSize,
    ...pick(checked, 'requests', 'queueSize'),
    start: read ? DEFAULT_READS : DEFAULT_DEPTH,
    isWeightless: !read,
  });
  const buffers: (Buffer | undefined)[] = [];
  let cached = 0n;
  let skipped = 0n;
  let commands = 0;
  const progress = new ProgressMeter(
    onProgress === undefined ? undefined : (now) => onProgress({ ...now, cached, skipped, commands }),
    { total: last - first, at: first },
  );
  const pieces = async function* (): AsyncGenerator<Run> {
    const runs = knownRuns(source, first, last, {
      ...pick(checked, 'step', 'questions', 'onStatusError', 'signal'),
      extents: checked.dataOnly !== false,
      align: facts.minimum,
      syscall: 'prefetch',
    });
    for await (const run of runs) {
      if (run.isZero) yield run;
      else yield* cutRun(run, BigInt(requestSize), BigInt(facts.minimum));
    }
  };
  const work = async ({ start, end, isZero }: Run, lane: number): Promise<void> => {
    if (isZero) {
      skipped += end - start;
    } else {
      const [from, until] = source.blocks.around(start, end, facts.size);
      const count = Number(until - from);
      const begun = inFlight.begin();
      if (read) {
        const buffer = (buffers[lane] ??= allocateForReads(requestSize)).subarray(0, count);
        await at(connection.preadInto(buffer, from, 0, signal), 'prefetch', 'read', from, signal);
      } else {
        await at(connection.cache(count, from, 0, signal), 'prefetch', 'cache', from, signal);
      }
      cached += end - start;
      commands++;
      inFlight.moved(count, begun);
    }
    await progress.piece(end, cached + skipped, isZero ? 0 : Number(end - start));
  };
  await inLanes(pieces(), inFlight, work, signal, (lane) => {
    buffers[lane] = undefined;
  });
  checkAllDone(cached + skipped, last - first, 'prefetch');
  return withJson({ cached, skipped, commands, inFlight: inFlight.bytes });
}

/** Whether `base:allocation` can be asked for. */
export function hasAllocation(connection: ExportLike): boolean {
  return hasContext(connection, CONTEXT_BASE_ALLOCATION);
}

/** What {@link inRange} takes. */
export interface RangeOptions {
  offset?: ByteCount;
  length?: ByteCount;
  /** Bytes of one piece; cut to a multiple of the server's minimum block. */
  requestSize: number;
  /** Pieces at a time. */
  requests: number;
  signal?: AbortSignal;
}

const IN_RANGE_OPTIONS = {
  ...RANGE_CHECKS,
  ...SIGNAL_CHECKS,
  requestSize: wholeNumber(1),
  requests: wholeNumber(1),
};

/**
 * Calls `command` for every piece of a range, some at a time: for commands without a payload (`zero`, `trim`, `cache`),
 * whose length a server limits less than a read's.
 */
export async function inRange(
  connection: ExportLike,
  options: RangeOptions,
  command: (count: bigint, offset: bigint) => Promise<void>,
): Promise<void> {
  const checked = checkOptions<RangeOptions>('inRange', options, IN_RANGE_OPTIONS);
  aFunction('inRange: command', command);
  const { requestSize, requests, signal } = checked;
  if (requestSize === undefined || requests === undefined)
    throw refuse('inRange', 'requestSize and requests are needed');
  const { size, minimum } = factsOf(connection, 'inRange');
  const [start, end] = rangeOf(size, checked, 'inRange');
  const pieces = cutRun({ start, end, isZero: false }, BigInt(multipleOf(minimum, requestSize)), BigInt(minimum));
  await inLanes(pieces, requests, (piece) => command(piece.end - piece.start, piece.start), signal);
}
