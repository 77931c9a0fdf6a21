// The interface that a user implements to serve an export. Only size and read() are required; what a backend lacks is
// not advertised, or is emulated where that makes sense.

import type { Buffer } from '../../util/buffer.js';
import type { U64 } from '../../util/u64.js';

/** Options of a write. */
export interface WriteOptions {
  /** The data must be on permanent storage before the promise resolves. Set only for backends with `fua: true`. */
  readonly fua: boolean;
  /** Aborted when the request's connection has ended: the rest of the work is no longer needed. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of zeroing a range. */
export interface ZeroOptions extends WriteOptions {
  /** The range must stay allocated. */
  readonly noHole: boolean;
  /** Fail with `ENOTSUP`, at once and without any change, unless this is faster than writing zeroes. */
  readonly fast: boolean;
}

/** A run of bytes with one status, which starts where the previous run ends. */
export interface BackendExtent {
  /** Number of bytes, at least 1. */
  readonly length: number | bigint;
  /** Flags as the context defines them: for `base:allocation` 1 (hole) and 2 (reads as zeroes). */
  readonly flags: number | bigint;
}

/** Runs from the requested offset on; the server limits them to the range and joins equal neighbours. */
export type BackendExtents = Iterable<BackendExtent> | Promise<Iterable<BackendExtent>>;

/** The server's limits on one export, in bytes. */
export interface BlockSize {
  /** A power of 2 up to 65536. Offsets and counts that are not multiples of it are refused with `EINVAL`. */
  readonly minimum: number;
  /** A power of 2, at least 512 and at least the minimum. */
  readonly preferred: number;
  /** Maximum payload: at least the preferred size, and a multiple of the minimum or 0xffffffff (no limit). */
  readonly maximum: number;
}

/**
 * The content of an export. Every method may be synchronous or return a promise. Calls are made in the order in which
 * requests arrive; calls from all connections may run at the same time, and the server does not order their effects.
 *
 * Ranges lie within `size` and are never empty. Offsets and counts are numbers up to 2^53 - 1 and bigints above, so a
 * backend of at most 2^53 - 1 bytes may declare them as `number`.
 *
 * If a method fails, the client receives the error's `code` if it is `EPERM`, `EIO`, `ENOMEM`, `EINVAL`, `ENOSPC`,
 * `EOVERFLOW`, `ENOTSUP` or `ESHUTDOWN`; `EDQUOT` and `EFBIG` become `ENOSPC`, `EACCES` and `EROFS` become `EPERM`,
 * `EOPNOTSUPP` and `ENOSYS` become `ENOTSUP`, all others `EIO`. Clients with structured replies also receive its
 * message.
 *
 * @example
 * const zeroes: NbdBackend = { size: 1 << 20, read(buffer) { buffer.fill(0); } };
 */
export interface NbdBackend {
  /** Size in bytes; must not change while the export is served. */
  readonly size: number | bigint;
  /** Refuses all writes. A backend without write() is always read-only. Default false. */
  readonly readOnly?: boolean | undefined;
  /**
   * Block sizes to advertise, unless the export's options set others. Default 1, 4096 and the server's `maxPayload`.
   */
  readonly blockSize?: BlockSize | undefined;
  /** Whether write, trim and zero honour `fua`; otherwise the server calls flush() after them. Default false. */
  readonly fua?: boolean | undefined;
  /** Whether write() keeps no reference to its data after it has settled; the server then reuses it. Default false. */
  readonly copiesData?: boolean | undefined;
  /** Whether zero() honours `fast`. Default false. */
  readonly fastZero?: boolean | undefined;
  /** Whether flush() also covers writes of other connections. Default true. */
  readonly multiConn?: boolean | undefined;
  /** Whether seeking is slow. Default false. */
  readonly rotational?: boolean | undefined;
  /** Whether extents() is fast enough to be called before each read; if not, zeroes are sent as data. Default true. */
  readonly sparseReads?: boolean | undefined;

  /** Fills the whole buffer with the bytes from `offset` on. */
  read(buffer: Buffer, offset: U64): Promise<void> | void;
  /** Stores the data. The backend may keep the buffer unless `copiesData` is true. */
  write?(data: Buffer, offset: U64, options: WriteOptions): Promise<void> | void;
  /** Resolves when all completed writes are on permanent storage. */
  flush?(): Promise<void> | void;
  /** Discards a range that is no longer needed; what it reads as afterwards is up to the backend. */
  trim?(offset: U64, count: U64, options: WriteOptions): Promise<void> | void;
  /** Makes the range read as zeroes. Without this method the server writes zeroes. */
  zero?(offset: U64, count: U64, options: ZeroOptions): Promise<void> | void;
  /** Prefetches a range that will be read soon. */
  cache?(offset: U64, count: U64): Promise<void> | void;
  /** Returns the `base:allocation` extents of the range. Without this method everything is reported as data. */
  extents?(offset: U64, count: U64): BackendExtents;
  /** Called once, when the server has closed. */
  close?(): Promise<void> | void;
}
