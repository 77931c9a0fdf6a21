// Prefetching an export: cache commands for a range or for its data only, split and bounded.

import type { ByteCount, NbdConnection } from '../client/connection.js';
import { CONTEXT_BASE_ALLOCATION, SIZE_MAXIMUM, SIZE_MINIMUM, STATE_ZERO } from '../protocol/client-constants.js';
import { checkRange, extents } from './extents.js';
import { inLanes } from './lanes.js';

/** What {@link prefetch} takes. */
export interface PrefetchOptions {
  /** First byte. Default 0. */
  offset?: ByteCount;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount;
  /** Leave out what reads as zeroes, where `base:allocation` was negotiated. Default true. */
  dataOnly?: boolean;
  /** Read instead of asking the server to cache: for servers without the command. Default false. */
  read?: boolean;
  /** Bytes of one command; cut to the server's maximum. Default 4 MiB. */
  requestSize?: number;
  /** Commands in flight. Default 8. */
  requests?: number;
  /** Called after each command with what has been covered so far, in bytes of the range. */
  onProgress?: (progress: PrefetchResult) => void;
  signal?: AbortSignal;
}

/** What {@link prefetch} has done. */
export interface PrefetchResult {
  /** Bytes that were prefetched. */
  readonly cached: bigint;
  /** Bytes that were left out because they read as zeroes. */
  readonly skipped: bigint;
  /** Commands that were sent. */
  readonly commands: number;
}

const DEFAULT_REQUEST = 4 * 1024 * 1024;
const DEFAULT_DEPTH = 8;
/** qemu-nbd refuses longer ones, also for cache. */
const LONGEST = 32 * 1024 * 1024;

interface Piece {
  readonly offset: bigint;
  readonly length: bigint;
  readonly skip: boolean;
}

/**
 * Asks the server to prefetch a range, or what of it holds data, with a bounded number of commands in flight.
 *
 * @throws What {@link NbdConnection.cache} (with `read`, `pread`) rejects with: `EINVAL` from a server without
 *   the command. The first error ends it; commands in flight are waited for. The signal's reason.
 */
export async function prefetch(connection: NbdConnection, options: PrefetchOptions = {}): Promise<PrefetchResult> {
  const { signal, onProgress, read = false } = options;
  const requestSize = limitedRequest(connection, options.requestSize ?? DEFAULT_REQUEST);
  const buffers: Buffer[] = [];
  let cached = 0n;
  let skipped = 0n;
  let commands = 0;
  const depth = options.requests ?? DEFAULT_DEPTH;
  await inLanes(pieces(connection, options, BigInt(requestSize)), depth, async (piece, lane) => {
    signal?.throwIfAborted();
    if (piece.skip) {
      skipped += piece.length;
    } else {
      const count = Number(piece.length);
      if (read) {
        const buffer = (buffers[lane] ??= Buffer.allocUnsafeSlow(requestSize));
        await connection.preadInto(buffer.subarray(0, count), piece.offset, 0, signal);
      } else {
        await connection.cache(count, piece.offset, 0, signal);
      }
      cached += piece.length;
      commands++;
    }
    onProgress?.({ cached, skipped, commands });
  });
  return { cached, skipped, commands };
}

/** A request size that the server takes: at most its maximum, a multiple of its minimum. */
export function limitedRequest(connection: NbdConnection, wanted: number): number {
  const maximum = connection.getBlockSize(SIZE_MAXIMUM);
  const minimum = Math.max(connection.getBlockSize(SIZE_MINIMUM), 1);
  const limit = Math.min(wanted, maximum === 0 ? LONGEST : maximum, LONGEST);
  return Math.max(limit - (limit % minimum), minimum);
}

/** Whether `base:allocation` can be asked for. */
export function hasAllocation(connection: NbdConnection): boolean {
  try {
    return connection.canMetaContext(CONTEXT_BASE_ALLOCATION);
  } catch {
    return false;
  }
}

async function* pieces(
  connection: NbdConnection,
  options: PrefetchOptions,
  requestSize: bigint,
): AsyncGenerator<Piece, void, undefined> {
  const { signal } = options;
  const [start, end] = checkRange(connection, options, 'prefetch');
  if (options.dataOnly === false || !hasAllocation(connection)) {
    yield* split(start, end, requestSize);
    return;
  }
  // A range that begins within a block would be refused; its map is as good as the server's own alignment.
  const range = { offset: start, length: end - start, ...(signal === undefined ? {} : { signal }) };
  for await (const { offset, length, flags } of extents(connection, range)) {
    if ((flags & BigInt(STATE_ZERO)) !== 0n) yield { offset, length, skip: true };
    else yield* split(offset, offset + length, requestSize);
  }
}

function* split(start: bigint, end: bigint, requestSize: bigint): Generator<Piece, void, undefined> {
  for (let offset = start; offset < end; offset += requestSize) {
    const rest = end - offset;
    yield { offset, length: rest < requestSize ? rest : requestSize, skip: false };
  }
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

/**
 * Calls `command` for every piece of a range, some at a time: for commands without a payload (`zero`, `trim`, `cache`),
 * whose length a server limits less than a read's.
 */
export async function inRange(
  connection: NbdConnection,
  options: RangeOptions,
  command: (count: bigint, offset: bigint) => Promise<void>,
): Promise<void> {
  const [start, end] = checkRange(connection, options, 'inRange');
  const minimum = Math.max(connection.getBlockSize(SIZE_MINIMUM), 1);
  const requestSize = Math.max(options.requestSize - (options.requestSize % minimum), minimum);
  await inLanes(split(start, end, BigInt(requestSize)), options.requests, async ({ offset, length }) => {
    options.signal?.throwIfAborted();
    await command(length, offset);
  });
}
