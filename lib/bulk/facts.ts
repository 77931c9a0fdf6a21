// The facts about an export that a function needs, read once at its start. A connection that is lost later has no facts:
// a getter would throw an error of the state instead of the reason for the loss.

import type { ByteCount, NbdExport } from '../client/export.js';
import { CONTEXT_BASE_ALLOCATION, SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PREFERRED } from '../protocol/client-constants.js';
import { NbdStateError, NbdStrictError } from '../errors.js';
import { byteCount, refuse, shown } from '../util/option-checks.js';
import { quoted } from '../util/visible.js';

/** What whole-export work asks of a connection, or of anything else that is an export. */
export type ExportLike = Pick<
  NbdExport<Uint8Array>,
  | 'getSize'
  | 'getBlockSize'
  | 'getExtendedHeadersNegotiated'
  | 'getCanonicalExportName'
  | 'isReadOnly'
  | 'canFlush'
  | 'canZero'
  | 'canMultiConn'
  | 'canMetaContext'
  | 'cache'
  | 'preadInto'
  | 'pwrite'
  | 'zero'
  | 'flush'
  | 'blockStatus64'
>;

/** One or more connections to the same export. */
export type Connections = ExportLike | readonly ExportLike[];

/** Facts from the handshake. Sizes are in bytes. */
export interface Facts {
  readonly size: bigint;
  readonly isReadOnly: boolean;
  /** Offsets and counts are multiples of it, at least 1. */
  readonly minimum: number;
  /** A multiple of the minimum. */
  readonly preferred: number;
  /** The longest request, a multiple of the minimum. */
  readonly maximum: number;
  /** The most that one block status command can ask about. */
  readonly longestQuestion: bigint;
  readonly canFlush: boolean;
  readonly canZero: boolean;
  readonly canMultiConn: boolean;
  readonly hasAllocation: boolean;
  /** Null where the server was not asked for it. */
  readonly canonicalName: string | null;
}

/** qemu-nbd refuses longer requests, also for cache. */
const LONGEST_REQUEST = 32 * 1024 * 1024;
const DEFAULT_PREFERRED = 4096;
/** A block status command without extended headers has 32 bits for its length. */
const NARROW_LIMIT = 2n ** 32n;
const DEFAULT_ALIGNMENT = 512n;

const isExport = (value: unknown): value is ExportLike =>
  typeof value === 'object' &&
  value !== null &&
  typeof (value as Partial<ExportLike>).getSize === 'function' &&
  typeof (value as Partial<ExportLike>).preadInto === 'function';

/** Whether a value is, or was meant to be, connections, and not an end of the caller's own. */
export const isConnections = (value: unknown): value is Connections => Array.isArray(value) || isExport(value);

/** @throws NbdStateError where the connection is not open. */
export function factsOf(connection: ExportLike, syscall: string): Facts {
  if (!isExport(connection)) throw refuse(syscall, `connection must be an NbdConnection, not ${shown(connection)}`);
  const size = connection.getSize();
  const minimum = Math.max(connection.getBlockSize(SIZE_MINIMUM), 1);
  const maximum = connection.getBlockSize(SIZE_MAXIMUM);
  const preferred = connection.getBlockSize(SIZE_PREFERRED) || DEFAULT_PREFERRED;
  const isExtended = connection.getExtendedHeadersNegotiated();
  return {
    size,
    isReadOnly: connection.isReadOnly(),
    minimum,
    preferred: Math.max(preferred, minimum),
    maximum: multipleOf(minimum, Math.min(maximum === 0 ? LONGEST_REQUEST : maximum, LONGEST_REQUEST)),
    longestQuestion: isExtended ? 2n ** 63n : NARROW_LIMIT - (minimum === 1 ? DEFAULT_ALIGNMENT : BigInt(minimum)),
    canFlush: connection.canFlush(),
    canZero: connection.canZero(),
    canMultiConn: connection.canMultiConn(),
    hasAllocation: hasContext(connection, CONTEXT_BASE_ALLOCATION),
    canonicalName: canonicalNameOf(connection),
  };
}

function canonicalNameOf(connection: ExportLike): string | null {
  try {
    return connection.getCanonicalExportName();
  } catch {
    return null;
  }
}

/** Whether the server has agreed to a metadata context, of an open connection. */
export function hasContext(connection: ExportLike, context: string): boolean {
  try {
    return connection.canMetaContext(context);
  } catch (error) {
    if (error instanceof NbdStateError) return false;
    throw error;
  }
}

/** The largest multiple of `minimum` up to `value`, at least one; of Infinity the largest safe one. */
export function multipleOf(minimum: number, value: number): number {
  const limited = Math.min(value, Number.MAX_SAFE_INTEGER);
  return Math.max(limited - (limited % minimum), minimum);
}

/** The range that options name, as [start, end). */
export function rangeOf(
  size: bigint,
  { offset = 0, length }: { readonly offset?: ByteCount | undefined; readonly length?: ByteCount | undefined },
  syscall: string,
): [start: bigint, end: bigint] {
  const start = BigInt(byteCount()(`${syscall}: offset`, offset));
  const end = length === undefined ? size : start + BigInt(byteCount()(`${syscall}: length`, length));
  if (start > size || end > size) {
    throw new NbdStrictError(`${syscall}: ${start} to ${end} leaves the export of ${size} bytes`, {
      code: 'EINVAL',
      syscall,
      offset: start,
    });
  }
  return [start, end];
}

/** The connections, the first of which answers for all: they agree in everything that matters. */
export interface CheckedConnections {
  readonly list: readonly ExportLike[];
  readonly first: ExportLike;
  readonly facts: Facts;
}

const AGREED = {
  size: 'sizes',
  isReadOnly: 'read-only flags',
  minimum: 'minimum block sizes',
  preferred: 'preferred block sizes',
  maximum: 'maximum block sizes',
  canFlush: 'flush flags',
  canZero: 'zero flags',
  hasAllocation: 'base:allocation contexts',
} as const;

/**
 * Checks that connections are to one export, as far as a client can know. Several of them need multi-conn: without it
 * what one has written is not what another reads, or each has an export of its own. A read-only export never changes.
 *
 * @throws NbdStrictError `EINVAL`.
 */
export function checkConnections(connections: Connections, syscall: string, isWritten: boolean): CheckedConnections {
  const list = Array.isArray(connections) ? (connections as readonly ExportLike[]) : [connections as ExportLike];
  const [first, ...others] = list;
  if (first === undefined) throw refuse(syscall, 'there is no connection in the array');
  const facts = factsOf(first, syscall);
  for (const other of others) {
    const there = factsOf(other, syscall);
    for (const key of Object.keys(AGREED) as (keyof typeof AGREED)[]) {
      if (there[key] !== facts[key]) {
        throw refuse(syscall, `the connections differ in their ${AGREED[key]}: ${facts[key]} and ${there[key]}`);
      }
    }
    if (facts.canonicalName !== null && there.canonicalName !== null && facts.canonicalName !== there.canonicalName) {
      const names = [facts.canonicalName, there.canonicalName].map((name) => quoted(name));
      throw refuse(syscall, `the connections are to different exports: ${names.join(' and ')}`);
    }
    if (!(facts.canMultiConn && there.canMultiConn) && (isWritten || !facts.isReadOnly)) {
      throw refuse(syscall, 'several connections need a server with multi-conn (see canMultiConn): use one');
    }
  }
  return { list, first, facts };
}
