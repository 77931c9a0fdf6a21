// The two ends of a copy, as a caller may write them, and of connections. Positions are numbers up to 2^53 - 1 and
// bigints above, so that most ends never see a bigint, and need not know that there are any.

import type { Buffer } from '../../util/buffer.js';
import type { ByteCount } from '../../client/export.js';
import { NbdStrictError } from '../../errors.js';
import { CMD_FLAG_NO_HOLE, CONTEXT_BASE_ALLOCATION, STATE_ZERO } from '../../protocol/client-constants.js';
import { fromBigInt } from '../../util/u64.js';
import type { StatusOptions } from '../options.js';
import { changes } from '../maps/changes.js';
import { askAhead } from '../maps/look-ahead.js';
import { quoted } from '../../util/visible.js';
import { checkConnections, type Connections, type ExportLike, type Facts } from '../facts.js';
import { isCommandFailure } from '../failures.js';

export type { Connections } from '../facts.js';

/** A stretch of a source, and whether it is known to read as zeroes. */
export interface ZeroRun<Position extends ByteCount = number> {
  /** First byte. */
  readonly offset: Position;
  /** Bytes, at least 1. */
  readonly length: Position;
  /** True if the range is known to read as zeroes; false if it must be read. */
  readonly isZero: boolean;
}

/**
 * What can be copied from. A `lane` is a number from 0: of a set of equal connections it chooses one.
 *
 * Offsets up to 2^53 - 1 are numbers, and bigints above: a source of at most that size gets numbers only, and is a plain
 * `CopySource`. A larger one is a `CopySource<ByteCount>`.
 */
export interface CopySource<Position extends ByteCount = number> {
  /** Bytes, up to 2^63 - 1. */
  readonly size: Position;
  /** What offsets and lengths of reads are multiples of, but for the end of the source: a power of 2. Default 1. */
  readonly minimumBlock?: number | undefined;
  /** The size that requests had better be multiples of. */
  readonly preferredBlock?: number | undefined;
  /** The longest read that it takes. */
  readonly maximumRequest?: number | undefined;
  /** Fills the buffer, which the copy uses again for other reads: it cannot be transferred to another thread. */
  read(buffer: Buffer, offset: Position, lane: number, signal?: AbortSignal): Promise<void>;
  /** What is known to be zero, in order; gaps are read. Missing: nothing is known. */
  zeroRuns?(
    offset: Position,
    length: Position,
    signal?: AbortSignal,
    options?: StatusOptions,
  ): AsyncIterable<ZeroRun<Position>>;
  /**
   * What a dirty bitmap marks as changed, in order, and what of it is known to be zero: for `copy` with `bitmap`. It
   * throws where there is no such bitmap.
   */
  changedRuns?(
    bitmap: string,
    offset: Position,
    length: Position,
    signal?: AbortSignal,
    options?: StatusOptions,
  ): AsyncIterable<ZeroRun<Position>>;
  /** What it is, such as a URI: a checkpoint belongs to the source with this identity. */
  readonly identity?: string | undefined;
}

/** What can be copied to. Offsets are as in {@link CopySource}. */
export interface CopyDestination<Position extends ByteCount = number> {
  /** Bytes, up to 2^63 - 1; Infinity when it takes as much as comes. */
  readonly size: Position;
  /** What offsets and lengths of writes are multiples of, but for the end of the destination: a power of 2. Default 1. */
  readonly minimumBlock?: number | undefined;
  /** The size that requests should be multiples of. Default: the minimum block. */
  readonly preferredBlock?: number | undefined;
  /** Longest write in bytes. Default: no limit. */
  readonly maximumRequest?: number | undefined;
  /**
   * Writes the whole buffer. The copy uses its memory again when the promise has settled: it cannot be transferred to
   * another thread.
   */
  write(buffer: Buffer, offset: Position, lane: number, signal?: AbortSignal): Promise<void>;
  /** Reads blocks back, of which only a part is written. Needed where there is a `minimumBlock`. */
  read?(buffer: Buffer, offset: Position, lane: number, signal?: AbortSignal): Promise<void>;
  /** Makes a range zero without its bytes being sent; resolves with false where it cannot. */
  zero?(offset: Position, count: Position, allocate: boolean, lane: number, signal?: AbortSignal): Promise<boolean>;
  /** Puts what was written on permanent storage. Missing: it cannot, and `flush` is refused. */
  flush?(signal?: AbortSignal): Promise<void>;
  /** What it is, such as a URI: a checkpoint belongs to the destination with this identity. */
  readonly identity?: string | undefined;
  /**
   * Called when a copy goes on from a checkpoint, before anything is written: what is there already has to stay. It
   * throws where nothing is there any more.
   */
  keep?(): Promise<void> | void;
}

const NO_ENTRIES = new BigUint64Array(0);

/**
 * An export as a source. Its extents are known when `base:allocation` was negotiated.
 *
 * @throws NbdStrictError `EINVAL` when several connections differ in size, flags or block sizes, or the export is
 *   writable and the server does not advertise multi-conn. NbdStateError when one is not open.
 */
export function exportSource(connections: Connections): CopySource<ByteCount> {
  return sourceOfConnections(connections, 'exportSource');
}

/** The same, for the function that the caller has called. */
export function sourceOfConnections(connections: Connections, syscall: string): CopySource<ByteCount> {
  const { list, first, facts } = checkConnections(connections, syscall, false);
  const { size, minimum, preferred, maximum } = facts;
  const runs = async function* (
    offset: ByteCount,
    length: ByteCount,
    signal?: AbortSignal,
    { step, questions, onStatusError = 'data' }: StatusOptions = {},
  ): AsyncGenerator<ZeroRun<ByteCount>> {
    const end = BigInt(offset) + BigInt(length);
    const contexts = [CONTEXT_BASE_ALLOCATION];
    const question = { start: BigInt(offset), end, contexts, step, questions, signal, syscall };
    for await (const { start, end: until, contexts: found, failure } of askAhead(first, facts, question)) {
      const [entries = NO_ENTRIES] = found;
      if (failure !== null) {
        if (onStatusError === 'throw' || !isCommandFailure(failure.error)) throw failure.error;
        yield { offset: fromBigInt(start), length: fromBigInt(until - start), isZero: false };
        continue;
      }
      let from = start;
      for (let index = 0; index < entries.length && from < until; index += 2) {
        const next = from + (entries[index] as bigint);
        // Flags of base:allocation are 32 bits.
        const isZero = (Number(entries[index + 1]) & STATE_ZERO) !== 0;
        yield { offset: fromBigInt(from), length: fromBigInt((next < until ? next : until) - from), isZero };
        from = next;
      }
    }
  };
  return {
    size: fromBigInt(size),
    minimumBlock: minimum,
    preferredBlock: preferred,
    maximumRequest: maximum,
    read: (buffer, offset, lane, signal) => (list[lane % list.length] ?? first).preadInto(buffer, offset, 0, signal),
    ...(facts.hasAllocation ? { zeroRuns: runs } : {}),
    async *changedRuns(bitmap, offset, length, signal, { step, questions } = {}) {
      const asked = { ...(step === undefined ? {} : { step }), ...(questions === undefined ? {} : { questions }) };
      const range = { offset, length, ...(signal === undefined ? {} : { signal }) };
      for await (const change of changes(first, { bitmap, ...range, ...asked })) {
        yield { offset: fromBigInt(change.offset), length: fromBigInt(change.length), isZero: change.zero };
      }
    },
    identity: identityOf(first, facts),
  };
}

/**
 * An export as a destination.
 *
 * @throws NbdStrictError `EPERM` when it is read-only, `EINVAL` when several connections differ, or the server has not
 *   advertised multi-conn. NbdStateError when one is not open.
 */
export function exportDestination(connections: Connections): CopyDestination<ByteCount> {
  return destinationOfConnections(connections, 'exportDestination');
}

/** The same, for the function that the caller has called. */
export function destinationOfConnections(connections: Connections, syscall: string): CopyDestination<ByteCount> {
  const { list, first, facts } = checkConnections(connections, syscall, true);
  if (facts.isReadOnly) throw new NbdStrictError(`${syscall}: the export is read-only`, { code: 'EPERM', syscall });
  const of = (lane: number): (typeof list)[number] => list[lane % list.length] ?? first;
  return {
    size: fromBigInt(facts.size),
    minimumBlock: facts.minimum,
    preferredBlock: facts.preferred,
    maximumRequest: facts.maximum,
    identity: identityOf(first, facts),
    write: (buffer, offset, lane, signal) => of(lane).pwrite(buffer, offset, 0, signal),
    read: (buffer, offset, lane, signal) => of(lane).preadInto(buffer, offset, 0, signal),
    ...(facts.canZero
      ? {
          zero: async (offset, count, allocate, lane, signal) => {
            await of(lane).zero(count, offset, allocate ? CMD_FLAG_NO_HOLE : 0, signal);
            return true;
          },
        }
      : {}),
    ...(facts.canFlush
      ? {
          flush: async (signal) => {
            // Each of them: a server's promise that one flush counts for all is not relied on.
            const flushes = await Promise.allSettled([...new Set(list)].map((each) => each.flush(0, signal)));
            for (const flush of flushes) if (flush.status === 'rejected') throw flush.reason;
          },
        }
      : {}),
  };
}

/** What a connection or a pool may have besides; a double of a spec may have none of it. */
interface Addressed {
  readonly targets: readonly string[];
  getUri(): string;
  getExportName(): string;
  getSubprocessPid(): number;
}

/**
 * What an export is, as far as a client knows: its URI without the settings of TLS, or its name where a server was
 * started for it, whose socket is another one each time; and its canonical name. Of a pool with several targets it is
 * all of them, whichever answers.
 */
function identityOf(connection: ExportLike & Partial<Addressed>, { canonicalName }: Facts): string {
  const ask = <Value>(act: () => Value): Value | undefined => {
    try {
      return act();
    } catch {
      return undefined;
    }
  };
  const isOurs = ask(() => connection.getSubprocessPid?.()) !== undefined;
  const uri = isOurs ? undefined : ask(() => connection.getUri?.());
  const name = `the export ${quoted(ask(() => connection.getExportName?.()) ?? '')}`;
  const targets = connection.targets ?? [];
  if (targets.length > 1) return `${name} at ${targets.join(' or ')}`;
  const where = uri?.replace(/([?&])tls-[^&]*/g, '$1').replace(/[?&]+$/, '') ?? name;
  return canonicalName === null ? where : `${where}, canonical name ${quoted(canonicalName)}`;
}

const NULL_DESTINATIONS = new WeakSet<object>();

/** Takes everything and keeps nothing. */
export function nullDestination(): CopyDestination {
  const destination: CopyDestination = {
    size: Infinity,
    write: () => Promise.resolve(),
    zero: () => Promise.resolve(true),
    flush: () => Promise.resolve(),
  };
  NULL_DESTINATIONS.add(destination);
  return destination;
}

/** Whether a destination never looks at what it gets. */
export const isNullDestination = (end: object): boolean => NULL_DESTINATIONS.has(end);
