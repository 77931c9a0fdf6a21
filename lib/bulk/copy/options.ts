// What copy() takes and returns.

import type { ByteCount } from '../../client/export.js';
import {
  aBoolean,
  aFunction,
  anObject,
  oneOf,
  type OptionCheck,
  powerOfTwo,
  wholeNumber,
  zeroOr,
  aString,
  byteCount,
} from '../../util/option-checks.js';
import type { BlockHasher } from '../hash/block-hasher.js';
import { aCountOrAuto, type CountOrAuto } from '../in-flight.js';
import { aBlockHasher, RANGE_CHECKS, type StatusOptions, WORK_CHECKS } from '../options.js';
import type { Progress } from '../progress.js';
import { RateLimiter } from '../../transport/rate-limiter.js';
import type { ByteRange } from '../../errors.js';
import { anIterable, type GivenRange } from '../ranges.js';
import type { CheckpointStore } from './checkpoint.js';

/** What {@link copy} takes. Sizes are in bytes; the defaults are nbdcopy's unless stated otherwise. */
export interface CopyOptions extends StatusOptions {
  /** First byte of the source. Default 0. */
  offset?: ByteCount | undefined;
  /** Number of bytes. Default: up to the end of the source. */
  length?: ByteCount | undefined;
  /** Where in the destination the byte at `offset` goes. Default: `offset`, so that all bytes keep their places. */
  destinationOffset?: ByteCount | undefined;
  /**
   * Only these ranges of the source, as far as they lie between `offset` and `offset + length`. In any order; what
   * overlaps is copied once. Zeroes among them are zeroed in the destination.
   */
  ranges?: Iterable<GivenRange> | undefined;
  /**
   * Only what this dirty bitmap of the source marks as changed: `qemu:dirty-bitmap:b0`, or `b0` for short, which must
   * have been negotiated (`metaContexts`); see {@link changes}. What of it reads as zeroes, according to
   * `base:allocation`, is zeroed in the destination. Not together with `ranges`. All of the bitmap is read before anything is copied.
   */
  bitmap?: string | undefined;
  /** Bytes of one request: a power of 2 from 512. Default 256 KiB, raised to the ends' preferred block sizes. */
  requestSize?: number | undefined;
  /**
   * Requests in flight, all connections together. Default `'auto'`: begins with 64, and no more than 8 MiB of them,
   * and raises the bytes in flight while that raises the throughput, up to `queueSize`; requests become longer then,
   * unless `requestSize` is set. With a number, this many from beginning to end.
   */
  requests?: CountOrAuto | undefined;
  /** The most bytes in flight. Default `'auto'`: 256 MiB. */
  queueSize?: CountOrAuto | undefined;
  /** Blocks of zeroes of this size are found in what is read: a power of 2, 0 for not at all. Default 4096. */
  sparse?: number | undefined;
  /** Zeroes are written so that the destination has space for them; none are looked for. Default false. */
  allocated?: boolean | undefined;
  /** The destination reads as zeroes already: zeroes are left out. Default false. */
  destinationIsZero?: boolean | undefined;
  /** Ask the source for its extents. Default true. */
  extents?: boolean | undefined;
  /**
   * Flush the destination at the end. True: one that cannot flush is refused before anything is copied. False: leave
   * what was written in the caches of the server. Default: flush where the destination can.
   */
  flush?: boolean | undefined;
  /** Bytes per second that are read: a number, or a limiter that several copies share. Default: no limit. */
  rate?: number | RateLimiter | undefined;
  /**
   * What happens where a read fails while the connection lives on. `throw`, the default: its error ends the copy.
   * `zero`: the request is halved down to the source's minimum block (512 bytes at least), what cannot be read is zero
   * in the destination, and is listed in the result as `missing`.
   */
  onReadError?: 'throw' | 'zero' | undefined;
  /**
   * Where the copy keeps how far it has come, so that another call with the same ends and options goes on from there:
   * {@link fileCheckpoint}, or a store of your own. Needs a destination that can flush; not together with `hash`.
   */
  checkpoint?: CheckpointStore | undefined;
  /** Gets every byte that is copied, zeroes too: the block hash is made while copying. Not with `ranges` or `bitmap`. */
  hash?: BlockHasher | undefined;
  /** Called as pieces arrive at the destination, zeroes included; `done` counts their bytes. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Aborts the work, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What a copy has done, in bytes. */
export interface CopyResult {
  /** Bytes to copy: of the whole source, or of the ranges chosen. */
  readonly total: bigint;
  /** Bytes read from the source. */
  readonly read: bigint;
  /** Bytes sent to the destination. */
  readonly written: bigint;
  /** Bytes made zero without being sent. */
  readonly zeroed: bigint;
  /** Bytes that earlier runs had copied, according to the checkpoint. */
  readonly resumed: bigint;
  /** Ranges of the source that could not be read and are zero in the destination; with `onReadError: 'zero'`. */
  readonly missing: readonly ByteRange[];
  /** Bytes in flight that the copy has come to. */
  readonly inFlight: number;
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

const aLimit: OptionCheck<number | object> = (where, value) =>
  value instanceof RateLimiter ? value : wholeNumber(1)(where, value);

const aStore: OptionCheck<object> = (where, value) => {
  const store = anObject(where, value) as Partial<CheckpointStore>;
  aFunction(`${where}.load`, store.load);
  aFunction(`${where}.save`, store.save);
  if (store.clear !== undefined) aFunction(`${where}.clear`, store.clear);
  if (store.every !== undefined) byteCount(1)(`${where}.every`, store.every);
  return store;
};

export const COPY_OPTIONS = {
  ...WORK_CHECKS,
  ...RANGE_CHECKS,
  destinationOffset: byteCount(),
  ranges: anIterable,
  bitmap: aString,
  requestSize: powerOfTwo(512),
  requests: aCountOrAuto,
  queueSize: aCountOrAuto,
  sparse: zeroOr(powerOfTwo(512)),
  allocated: aBoolean,
  destinationIsZero: aBoolean,
  flush: aBoolean,
  rate: aLimit,
  onReadError: oneOf('throw', 'zero'),
  checkpoint: aStore,
  hash: aBlockHasher,
  onProgress: aFunction,
};
