// The extents of a range, however many block status commands that takes: loops over short replies, cuts to the
// range, joins equal neighbours. Invariant: what is yielded covers the range in order, without gaps or overlaps.

import type { ByteCount, NbdConnection } from '../client/connection.js';
import { NbdProtocolError, NbdStrictError } from '../errors.js';
import { CONTEXT_BASE_ALLOCATION, SIZE_MINIMUM } from '../protocol/client-constants.js';
import type { Extent } from '../util/extents.js';
import { quoted } from '../util/visible.js';

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
  signal?: AbortSignal;
}

/** A block status command without extended headers has 32 bits for its length. */
const NARROW_LIMIT = 2n ** 32n;
const DEFAULT_ALIGNMENT = 512n;

/**
 * The extents of an export, or of a range of it, of one metadata context. Any number of them in bounded memory: the
 * server is asked again when those that it told have been taken.
 *
 * @throws NbdStrictError `EINVAL` when the range leaves the export, `ENOTSUP` when the context was not negotiated;
 *   what {@link NbdConnection.blockStatus64} rejects with; the signal's reason.
 *
 * @example
 * for await (const { offset, length, flags } of extents(connection)) {
 *   if ((flags & BigInt(STATE_ZERO)) === 0n) data += length;
 * }
 */
export async function* extents(
  connection: NbdConnection,
  options: ExtentsOptions = {},
): AsyncGenerator<Extent<bigint>, void, undefined> {
  let last: Extent<bigint> | null = null;
  for await (const batch of extentBatches(connection, options)) {
    for (const extent of batch) {
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
  connection: NbdConnection,
  options: ExtentsOptions = {},
): AsyncGenerator<Iterable<Extent<bigint>>, void, undefined> {
  const context = options.context ?? CONTEXT_BASE_ALLOCATION;
  const [start, end] = checkRange(connection, options);
  if (!connection.canMetaContext(context)) {
    throw new NbdStrictError(
      `extents: the server has not agreed to the metadata context ${quoted(context)} (see metaContexts)`,
      { code: 'ENOTSUP', syscall: 'extents' },
    );
  }
  const most = longestQuestion(connection);
  let offset = start;
  while (offset < end) {
    const count = end - offset < most ? end - offset : most;
    const found = await connection.blockStatus64(count, offset, 0, options.signal);
    const entries = found.get(context)?.entries;
    if (entries === undefined || entries.length < 2) {
      throw new NbdProtocolError(`extents: the server told nothing about ${quoted(context)} at ${offset}`, {
        code: 'EPROTO',
        syscall: 'extents',
        offset,
      });
    }
    const from = offset;
    for (let at = 0; at < entries.length && offset < end; at += 2) offset += entries[at] as bigint;
    if (offset > end) offset = end;
    yield cut(entries, from, end);
  }
}

function* cut(entries: BigUint64Array, start: bigint, end: bigint): Generator<Extent<bigint>, void, undefined> {
  let offset = start;
  for (let at = 0; at + 1 < entries.length && offset < end; at += 2) {
    const told = entries[at] as bigint;
    const length = offset + told > end ? end - offset : told;
    yield { offset, length, flags: entries[at + 1] as bigint };
    offset += length;
  }
}

function longestQuestion(connection: NbdConnection): bigint {
  if (connection.getExtendedHeadersNegotiated()) return 2n ** 63n;
  const minimum = BigInt(connection.getBlockSize(SIZE_MINIMUM));
  return NARROW_LIMIT - (minimum === 0n ? DEFAULT_ALIGNMENT : minimum);
}

/** The range that options name, as [start, end). */
export function checkRange(
  connection: NbdConnection,
  { offset = 0, length }: { offset?: ByteCount | undefined; length?: ByteCount | undefined },
  syscall = 'extents',
): [start: bigint, end: bigint] {
  const size = connection.getSize();
  const start = toBytes(offset, 'offset', syscall);
  const end = length === undefined ? size : start + toBytes(length, 'length', syscall);
  if (start > size || end > size) {
    throw new NbdStrictError(`${syscall}: ${start} to ${end} leaves the export of ${size} bytes`, {
      code: 'EINVAL',
      syscall,
      offset: start,
    });
  }
  return [start, end];
}

function toBytes(value: ByteCount, name: string, syscall: string): bigint {
  if (typeof value === 'bigint' ? value >= 0n : Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  throw new NbdStrictError(`${syscall}: ${name} must be a whole number of bytes, not ${String(value)}`, {
    code: 'EINVAL',
    syscall,
  });
}
