// What can be done with an export, however many connections there are to it: types only.

import type { NbdFacts } from './api/facts.js';
import type { ChunkCallback, ExtentCallback } from '../protocol/reply-target.js';
import type { Extents } from '../util/extents.js';

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
export interface NbdExport extends ExportFacts {
  cache(count: ByteCount, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void>;
  pread(count: number, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<Buffer>;
  preadInto(buffer: Uint8Array, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void>;
  preadStructured(
    count: number,
    offset: ByteCount,
    chunk: ChunkCallback,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<Buffer>;
  pwrite(buffer: Uint8Array, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void>;
  flush(flags?: number, signal?: AbortSignal): Promise<void>;
  trim(count: ByteCount, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void>;
  zero(count: ByteCount, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void>;
  blockStatus(count: ByteCount, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<Map<string, Extents>>;
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    flags?: number,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    extent: ExtentCallback<BigUint64Array>,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<void>;
}
