// One command of the pool from its call to its settlement, on however many connections it is issued. It keeps what is
// needed to issue it again. Invariant: results of one try are never mixed with those of another.

import type { ByteCount } from '../../client/export.js';
import type { NbdConnection } from '../../client/node.js';
import { type NbdError, NbdStrictError } from '../../errors.js';
import type { BlockStatusEntries } from '../../protocol/block-status.js';
import type { ChunkCallback, ChunkStatus, ExtentCallback } from '../../protocol/reply-target.js';
import * as spec from '../../protocol/commands.js';
import { MAX_PAYLOAD } from '../../protocol/constants.js';
import { fromBigInt, type U64 } from '../../util/u64.js';
import { isForReads } from '../../util/memory.js';
import { byteLengthOf, isUint8Array } from '../../util/views.js';
import type { Member } from '../connections/member.js';
import type { Risk } from '../unflushed/unflushed.js';

/** What a waiting promise is settled with. */
export type Resolve = (value: unknown) => void;
export type Reject = (reason: unknown) => void;

/** Bytes of a view now; 0 for anything else, which the checks refuse. A subclass may have its own `byteLength`. */
export const lengthOf = (buffer: unknown): number => (isUint8Array(buffer) ? byteLengthOf(buffer) : 0);

export const weightOf = (count: unknown): number => {
  const bytes = typeof count === 'bigint' ? Number(count) : count;
  return typeof bytes === 'number' && bytes > 0 && bytes <= MAX_PAYLOAD ? bytes : 0;
};

/** A call's count or offset, once it has passed the checks. */
const checkedU64 = (value: ByteCount): U64 => (typeof value === 'bigint' ? fromBigInt(value) : value);

export abstract class Task {
  readonly spec: spec.CommandSpec;
  readonly count: ByteCount;
  readonly offset: ByteCount;
  readonly flags: number;
  /** The caller's; the field `signal` is the abort registry's. */
  readonly abortSignal: AbortSignal | undefined;
  /** Bytes of payload. */
  readonly weight: number;
  /** Place in the order of calls. */
  order = 0;
  /** How often it has been issued. */
  tries = 0;
  /** How often it was issued again because the server answered with an error. */
  retries = 0;
  /** When a connection was first lost under it. */
  lostAt: number | null = null;
  /** The last failure that did not settle it. */
  failure: NbdError | null = null;
  // While it waits.
  signal: AbortSignal | null = null;
  resolve: Resolve | null = null;
  reject: Reject | null = null;
  timer: NodeJS.Timeout | null = null;

  constructor(
    command: spec.CommandSpec,
    count: ByteCount,
    offset: ByteCount,
    flags: number,
    signal: AbortSignal | undefined,
    weight: number,
  ) {
    this.spec = command;
    this.count = count;
    this.offset = offset;
    this.flags = flags;
    this.abortSignal = signal;
    this.weight = weight;
  }

  /** Puts the command on a connection; never throws. */
  abstract issue(connection: NbdConnection): Promise<unknown>;

  /** What the call resolves with; reports to callbacks what the try that counts has collected. */
  finish(value: unknown): unknown {
    return value;
  }

  /** A server's error is about to reject the call. */
  fail(): void {
    // Most commands report nothing before they end.
  }

  /** The range, once the checks have passed. */
  get start(): U64 {
    return checkedU64(this.offset);
  }

  get length(): U64 {
    return checkedU64(this.count);
  }

  /** For the beginning of a message. */
  get what(): string {
    return spec.describeCall(this.spec, this.length, this.start);
  }

  get details(): { syscall: string; count?: bigint; offset?: bigint } {
    return spec.callDetails(this.spec, this.length, this.start);
  }
}

/** cache, trim and zero. */
export class PlainTask extends Task {
  constructor(
    command: spec.CommandSpec,
    count: ByteCount,
    offset: ByteCount,
    flags: number,
    signal: AbortSignal | undefined,
  ) {
    super(command, count, offset, flags, signal, 0);
  }

  issue(connection: NbdConnection): Promise<void> {
    const { count, offset, flags, abortSignal } = this;
    if (this.spec === spec.CACHE) return connection.cache(count, offset, flags, abortSignal);
    if (this.spec === spec.TRIM) return connection.trim(count, offset, flags, abortSignal);
    return connection.zero(count, offset, flags, abortSignal);
  }
}

export class FlushTask extends Task {
  /** The last segment of writes that it covers. */
  covered = 0;
  /** What was at risk when it was called, or has come to be since. */
  readonly risks = new Set<Risk>();
  /** Of several connections that are flushed, the one on which it failed. */
  failedOn: Member | null = null;

  constructor(flags: number, signal: AbortSignal | undefined) {
    super(spec.FLUSH, 0, 0, flags, signal, 0);
  }

  issue(connection: NbdConnection): Promise<void> {
    return connection.flush(this.flags, this.abortSignal);
  }
}

export class ReadTask extends Task {
  constructor(count: number, offset: ByteCount, flags: number, signal: AbortSignal | undefined) {
    super(spec.PREAD, count, offset, flags, signal, weightOf(count));
  }

  issue(connection: NbdConnection): Promise<Buffer> {
    return connection.pread(this.count as number, this.offset, this.flags, this.abortSignal);
  }
}

/** Commands with a buffer of the caller's, which is used until they settle. */
abstract class BufferTask extends Task {
  readonly buffer: Uint8Array;

  constructor(
    command: spec.CommandSpec,
    buffer: Uint8Array,
    offset: ByteCount,
    flags: number,
    signal: AbortSignal | undefined,
    length: number,
  ) {
    super(command, length, offset, flags, signal, weightOf(length));
    this.buffer = buffer;
  }

  issue(connection: NbdConnection): Promise<void> {
    if (lengthOf(this.buffer) === this.count) return this.transfer(connection);
    const error = new NbdStrictError(`${this.what}: the buffer was detached or resized before the command was issued`, {
      code: 'EFAULT',
      sent: this.tries > 1,
      ...this.details,
    });
    return Promise.reject(error);
  }

  protected abstract transfer(connection: NbdConnection): Promise<void>;
}

export class ReadIntoTask extends BufferTask {
  /** `length` is that of the buffer at the call. */
  constructor(
    buffer: Uint8Array,
    offset: ByteCount,
    flags: number,
    signal: AbortSignal | undefined,
    length = lengthOf(buffer),
  ) {
    super(spec.PREAD, buffer, offset, flags, signal, length);
  }

  /** As a connection does at the call. */
  clear(): void {
    if (this.count !== 0 && !isForReads(this.buffer)) this.buffer.fill(0);
  }

  protected transfer(connection: NbdConnection): Promise<void> {
    return connection.preadInto(this.buffer, this.offset, this.flags, this.abortSignal);
  }
}

export class WriteTask extends BufferTask {
  /** `length` is that of the buffer at the call. */
  constructor(
    buffer: Uint8Array,
    offset: ByteCount,
    flags: number,
    signal: AbortSignal | undefined,
    length = lengthOf(buffer),
  ) {
    super(spec.PWRITE, buffer, offset, flags, signal, length);
  }

  protected transfer(connection: NbdConnection): Promise<void> {
    return connection.pwrite(this.buffer, this.offset, this.flags, this.abortSignal);
  }
}

type ChunkReport = readonly [subbuf: Buffer, offset: bigint, status: ChunkStatus, error: NbdError | null];

export class StructuredTask extends Task {
  readonly onChunk: ChunkCallback;
  #chunks: ChunkReport[] = [];

  constructor(
    count: number,
    offset: ByteCount,
    onChunk: ChunkCallback,
    flags: number,
    signal: AbortSignal | undefined,
  ) {
    super(spec.PREAD_STRUCTURED, count, offset, flags, signal, weightOf(count));
    this.onChunk = onChunk;
  }

  issue(connection: NbdConnection): Promise<Buffer> {
    const chunks: ChunkReport[] = [];
    this.#chunks = chunks;
    const collect: ChunkCallback | null =
      typeof this.onChunk === 'function' ? (...report) => void chunks.push(report) : this.onChunk;
    return connection.preadStructured(this.count as number, this.offset, collect, this.flags, this.abortSignal);
  }

  override finish(value: unknown): unknown {
    this.fail();
    return value;
  }

  override fail(): void {
    for (const report of this.#chunks.splice(0)) this.onChunk(...report);
  }
}

type ExtentReport = readonly [context: string, offset: bigint, entries: BlockStatusEntries];

/** The three block status commands; without a callback they resolve with a map. */
export class StatusTask extends Task {
  readonly contexts: readonly string[] | undefined;
  readonly onExtent: ExtentCallback | null;
  #reports: ExtentReport[] = [];

  constructor(
    command: spec.CommandSpec,
    count: ByteCount,
    offset: ByteCount,
    rest: readonly unknown[],
    contexts?: readonly string[],
  ) {
    const hasCallback = typeof rest[0] === 'function';
    const [flags = 0, signal] = (hasCallback ? rest.slice(1) : rest) as [number | undefined, AbortSignal | undefined];
    super(command, count, offset, flags, signal, 0);
    this.onExtent = hasCallback ? (rest[0] as ExtentCallback) : null;
    this.contexts = contexts;
  }

  issue(connection: NbdConnection): Promise<unknown> {
    const { count, offset, flags, abortSignal, contexts } = this;
    const reports: ExtentReport[] = [];
    this.#reports = reports;
    const collect: ExtentCallback = (...report) => void reports.push(report);
    // The overloads differ in the callback's place alone.
    const rest = (this.onExtent === null ? [flags, abortSignal] : [collect, flags, abortSignal]) as [
      number,
      AbortSignal | undefined,
    ];
    if (this.spec === spec.BLOCK_STATUS) return connection.blockStatus(count, offset, ...rest);
    if (this.spec === spec.BLOCK_STATUS_64) return connection.blockStatus64(count, offset, ...rest);
    return connection.blockStatusFilter(count, offset, contexts as readonly string[], ...rest);
  }

  override finish(value: unknown): unknown {
    this.fail();
    return value;
  }

  override fail(): void {
    const { onExtent } = this;
    if (onExtent !== null) for (const report of this.#reports.splice(0)) onExtent(...report);
  }
}
