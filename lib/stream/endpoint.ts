// The two ends of a copy. Positions are numbers: an export beyond 2^53 - 1 bytes cannot be copied whole anyway.

import type { NbdConnection } from '../client/connection.js';
import { NbdStrictError } from '../errors.js';
import { CMD_FLAG_NO_HOLE, SIZE_PREFERRED, STATE_ZERO } from '../protocol/client-constants.js';
import { extents } from './extents.js';
import { hasAllocation, limitedRequest } from './prefetch.js';

/** A stretch of a source, and whether it is known to read as zeroes. */
export interface ZeroRun {
  readonly offset: number;
  readonly length: number;
  readonly isZero: boolean;
}

/** What can be copied from. A `lane` is a number from 0: of a set of equal connections it chooses one. */
export interface CopySource {
  /** Bytes. */
  readonly size: number;
  /** The size that requests had better be multiples of. */
  readonly preferredBlock?: number;
  /** The longest read that it takes. */
  readonly maximumRequest?: number;
  /** Fills the buffer. */
  read(buffer: Buffer, offset: number, lane: number, signal?: AbortSignal): Promise<void>;
  /** What is known to be zero, in order and without gaps. Missing: nothing is known. */
  zeroRuns?(offset: number, length: number, signal?: AbortSignal): AsyncIterable<ZeroRun>;
}

/** What can be copied to. */
export interface CopyDestination {
  /** Bytes; Infinity when it takes as much as comes. */
  readonly size: number;
  readonly preferredBlock?: number;
  readonly maximumRequest?: number;
  write(buffer: Buffer, offset: number, lane: number, signal?: AbortSignal): Promise<void>;
  /** Makes a range zero without its bytes being sent; resolves with false where it cannot. */
  zero?(offset: number, count: number, allocate: boolean, lane: number, signal?: AbortSignal): Promise<boolean>;
  /** Puts what was written on permanent storage. */
  flush?(): Promise<void>;
}

/** One or more connections to the same export; more than one only where the server allows it (`canMultiConn`). */
export type Connections = NbdConnection | readonly NbdConnection[];

const LONGEST_REQUEST = 32 * 1024 * 1024;

const listOf = (connections: Connections): readonly NbdConnection[] =>
  Array.isArray(connections) ? (connections as readonly NbdConnection[]) : [connections as NbdConnection];

function firstOf(connections: readonly NbdConnection[], syscall: string): NbdConnection {
  const [first] = connections;
  if (first !== undefined) return first;
  throw new NbdStrictError(`${syscall}: there is no connection`, { code: 'EINVAL', syscall });
}

function sizeOf(connection: NbdConnection, syscall: string): number {
  const size = connection.getSize();
  if (size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size);
  throw new NbdStrictError(`${syscall}: the export has ${size} bytes, more than 2^53 - 1`, {
    code: 'EOVERFLOW',
    syscall,
  });
}

const preferredOf = (connection: NbdConnection): number => connection.getBlockSize(SIZE_PREFERRED) || 4096;

/** An export as a source. Its extents are known when `base:allocation` was negotiated on the first connection. */
export function exportSource(connections: Connections): CopySource {
  const list = listOf(connections);
  const first = firstOf(list, 'copy');
  const runs = async function* (offset: number, length: number, signal?: AbortSignal): AsyncGenerator<ZeroRun> {
    const range = { offset, length, ...(signal === undefined ? {} : { signal }) };
    for await (const extent of extents(first, range)) {
      yield {
        offset: Number(extent.offset),
        length: Number(extent.length),
        isZero: (extent.flags & BigInt(STATE_ZERO)) !== 0n,
      };
    }
  };
  return {
    size: sizeOf(first, 'copy'),
    preferredBlock: preferredOf(first),
    maximumRequest: limitedRequest(first, LONGEST_REQUEST),
    read: (buffer, offset, lane, signal) => (list[lane % list.length] ?? first).preadInto(buffer, offset, 0, signal),
    ...(hasAllocation(first) ? { zeroRuns: runs } : {}),
  };
}

/** An export as a destination. */
export function exportDestination(connections: Connections): CopyDestination {
  const list = listOf(connections);
  const first = firstOf(list, 'copy');
  const of = (lane: number): NbdConnection => list[lane % list.length] ?? first;
  return {
    size: sizeOf(first, 'copy'),
    preferredBlock: preferredOf(first),
    maximumRequest: limitedRequest(first, LONGEST_REQUEST),
    write: (buffer, offset, lane, signal) => of(lane).pwrite(buffer, offset, 0, signal),
    zero: async (offset, count, allocate, lane, signal) => {
      if (!first.canZero()) return false;
      await of(lane).zero(count, offset, allocate ? CMD_FLAG_NO_HOLE : 0, signal);
      return true;
    },
    flush: () => first.flush(),
  };
}

/** Takes everything and keeps nothing. */
export function nullDestination(): CopyDestination {
  return {
    size: Infinity,
    write: () => Promise.resolve(),
    zero: () => Promise.resolve(true),
    flush: () => Promise.resolve(),
  };
}
