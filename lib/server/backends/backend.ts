// What a user implements to serve an export. Only size and read() are asked for; what a backend does not have is not
// advertised, or is put together from what it has where that is sensible.

import type { U64 } from '../../util/u64.js';

/** How a write is to be done. */
export interface WriteOptions {
  /** Permanent storage must hold it before the promise resolves. Set only for a backend with `fua: true`. */
  readonly fua: boolean;
  /** Aborted when the connection of the request has ended: nobody waits for the rest of the work. */
  readonly signal?: AbortSignal;
}

/** How a range is to be zeroed. */
export interface ZeroOptions extends WriteOptions {
  /** The range must stay allocated. */
  readonly noHole: boolean;
  /** Fail with `ENOTSUP`, quickly and without a change, unless this is faster than writing zeroes. */
  readonly fast: boolean;
}

/** A run of bytes with one status, directly after the run before it. */
export interface BackendExtent {
  /** Bytes, at least 1. */
  readonly length: number | bigint;
  /** The context's bits: for `base:allocation` 1 (hole) and 2 (reads as zeroes). */
  readonly flags: number | bigint;
}

/** Runs that begin at the offset asked for; the server cuts them to the range and joins equal neighbours. */
export type BackendExtents = Iterable<BackendExtent> | Promise<Iterable<BackendExtent>>;

/** The server's limits on one export, in bytes. */
export interface BlockSize {
  /** Power of 2 up to 65536; offsets and counts that are not multiples of it are refused with `EINVAL`. */
  readonly minimum: number;
  /** Power of 2, at least 512 and the minimum. */
  readonly preferred: number;
  /** Longest payload; at least the preferred size, and a multiple of the minimum or 0xffffffff. */
  readonly maximum: number;
}

/**
 * An export's contents. Every method may answer at once or with a promise; several calls run at the same time, from
 * all connections, in the order that requests arrived, and the server orders nothing among them.
 *
 * Ranges lie within `size` and are never empty. Offsets and counts are numbers up to 2^53 - 1 and bigints above, so a
 * backend of at most 2^53 - 1 bytes may declare them as `number`.
 *
 * An error whose `code` is `EPERM`, `EIO`, `ENOMEM`, `EINVAL`, `ENOSPC`, `EOVERFLOW`, `ENOTSUP` or `ESHUTDOWN` reaches
 * the client as that; `EDQUOT` and `EFBIG` become `ENOSPC`, `EACCES` and `EROFS` become `EPERM`, all others `EIO`. Its
 * message goes along where the client negotiated structured replies.
 *
 * @example
 * const zeroes: NbdBackend = { size: 1 << 20, read(buffer) { buffer.fill(0); } };
 */
export interface NbdBackend {
  /** Bytes; it must not change while the export is served. */
  readonly size: number | bigint;
  /** Refuses all writes. A backend without write() is read-only anyway. */
  readonly readOnly?: boolean;
  readonly blockSize?: BlockSize;
  /** write, trim and zero honour `fua`; without this the server calls flush() after them. */
  readonly fua?: boolean;
  /** write() keeps no reference to its data once it has settled, so that the server may use that memory again. */
  readonly copiesData?: boolean;
  /** zero() honours `fast`. */
  readonly fastZero?: boolean;
  /** False when flush() does not cover what other connections wrote. */
  readonly multiConn?: boolean;
  /** The medium is slow to seek. */
  readonly rotational?: boolean;
  /** False when extents() is too slow to be asked before each read, so that zeroes are sent as data. Default true. */
  readonly sparseReads?: boolean;

  /** Fills the whole buffer with the bytes from `offset` on. */
  read(buffer: Buffer, offset: U64): Promise<void> | void;
  /** Stores the data, which is the backend's to keep unless it says `copiesData`. */
  write?(data: Buffer, offset: U64, options: WriteOptions): Promise<void> | void;
  /** Resolves when all writes that have been answered are on permanent storage. */
  flush?(): Promise<void> | void;
  /** The range is no longer needed; what it reads as afterwards is up to the backend. */
  trim?(offset: U64, count: U64, options: WriteOptions): Promise<void> | void;
  /** Makes the range read as zeroes. Without this the server writes zeroes. */
  zero?(offset: U64, count: U64, options: ZeroOptions): Promise<void> | void;
  /** The range will be read soon. */
  cache?(offset: U64, count: U64): Promise<void> | void;
  /** `base:allocation` of the range. Without this everything counts as data. */
  extents?(offset: U64, count: U64): BackendExtents;
  /** Called once, when the server has closed. */
  close?(): Promise<void> | void;
}
