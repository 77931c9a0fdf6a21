// What can be done with an export, however many connections there are to it: types only.

import type { Buffer } from '../util/buffer.js';
import type { NbdFacts } from './api/facts.js';
import type { ChunkCallback, ExtentCallback } from '../protocol/reply-target.js';
import type { Extents } from '../util/extents.js';

/**
 * What a promise command accepts in place of its flag mask: `pread(count, offset, { signal })` is
 * `pread(count, offset, 0, signal)`. Other keys, and a signal as a further argument, are refused with `EINVAL`.
 */
export interface NbdCommandOptions {
  /** CMD_FLAG_* bits. Default 0. */
  readonly flags?: number | undefined;
  /** Rejects the promise with its reason when it is aborted. Default none. */
  readonly signal?: AbortSignal | undefined;
}

/** A mask of CMD_FLAG_* bits, or options that contain one. */
export type NbdCommandFlags = number | NbdCommandOptions;

/** A 64-bit count or offset in bytes. Numbers must be non-negative safe integers; use a bigint above 2^53 - 1. */
export type ByteCount = number | bigint;

/** The facts about an export, as `NbdConnection` documents them. */
export type ExportFacts = Pick<
  NbdFacts,
  | 'getSize'
  | 'getBlockSize'
  | 'getProtocol'
  | 'getStructuredRepliesNegotiated'
  | 'getExtendedHeadersNegotiated'
  | 'getTlsNegotiated'
  | 'getCanonicalExportName'
  | 'getExportDescription'
  | 'isReadOnly'
  | 'isRotational'
  | 'canFlush'
  | 'canFua'
  | 'canTrim'
  | 'canZero'
  | 'canFastZero'
  | 'canDf'
  | 'canMultiConn'
  | 'canCache'
  | 'canBlockStatusPayload'
  | 'canMetaContext'
>;

/**
 * An export to work with: the facts about it and the commands that return promises. `NbdConnection` and `NbdPool`
 * implement it.
 */
export interface NbdExport<Bytes extends Uint8Array = Buffer> extends ExportFacts {
  /** Asks the server to prefetch a range. */
  cache(count: ByteCount, offset: ByteCount, flags?: NbdCommandFlags, signal?: AbortSignal): Promise<void>;
  /** Reads `count` bytes; resolves with all of them or rejects. */
  pread(count: number, offset: ByteCount, flags?: NbdCommandFlags, signal?: AbortSignal): Promise<Bytes>;
  /** Fills the caller's buffer, which is in use until the promise has settled. */
  preadInto(buffer: Uint8Array, offset: ByteCount, flags?: NbdCommandFlags, signal?: AbortSignal): Promise<void>;
  /** Reads, and reports the chunks of the reply. */
  preadStructured(
    count: number,
    offset: ByteCount,
    chunk: ChunkCallback,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Bytes>;
  /** Writes the buffer, which must not change until the promise has settled. */
  pwrite(buffer: Uint8Array, offset: ByteCount, flags?: NbdCommandFlags, signal?: AbortSignal): Promise<void>;
  /** Puts every acknowledged write on permanent storage. */
  flush(flags?: NbdCommandFlags, signal?: AbortSignal): Promise<void>;
  /** Informs the server that the range is no longer needed. */
  trim(count: ByteCount, offset: ByteCount, flags?: NbdCommandFlags, signal?: AbortSignal): Promise<void>;
  /** Writes zeroes without sending them. */
  zero(count: ByteCount, offset: ByteCount, flags?: NbdCommandFlags, signal?: AbortSignal): Promise<void>;
  /** Returns, or reports, the extents of a range with 32-bit lengths and flags. */
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents>>;
  /** Returns, or reports, the extents of a range with 32-bit lengths and flags. */
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Returns, or reports, the extents of a range with 64-bit lengths and flags. */
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  /** Returns, or reports, the extents of a range with 64-bit lengths and flags. */
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Returns, or reports, the extents of some of the negotiated contexts. */
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  /** Returns, or reports, the extents of some of the negotiated contexts. */
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    extent: ExtentCallback<BigUint64Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
}
