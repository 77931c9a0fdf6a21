// What the reply to a request is decoded into. The client's command is one; whatever else a client keeps for a request,
// such as its promise or its place in a queue, is not known here.

import type { Buffer } from '../util/buffer.js';
import type { NbdError } from '../errors.js';
import type { U64 } from '../util/u64.js';
import type { BlockStatusEntries } from './block-status.js';
import type { CommandSpec } from './commands.js';
import type { Coverage } from './coverage.js';

/** What a read's chunk held: libnbd's LIBNBD_READ_DATA, READ_HOLE and READ_ERROR. */
export type ChunkStatus = 1 | 2 | 3;

/** Called for every chunk of a structured read; see `NbdConnection.preadStructured`. */
export type ChunkCallback = (subbuf: Buffer, offset: bigint, status: ChunkStatus, error: NbdError | null) => void;

/** Called for every context of a block status; see `NbdConnection.blockStatus`. */
export type ExtentCallback<Entries = BlockStatusEntries> = (context: string, offset: bigint, entries: Entries) => void;

/** A request in flight, as far as its reply concerns it. */
export interface ReplyTarget {
  readonly spec: CommandSpec;
  readonly count: U64;
  readonly offset: U64;
  /** NBD_CMD_FLAG_* bits that were sent. */
  readonly flags: number;
  readonly cookie: number;
  /** True once the caller has its answer: no callback runs from then on. */
  readonly settled: boolean;
  /** The first error of the reply; null while there is none. */
  readonly error: NbdError | null;
  /** What a callback of the user's threw; reported in place of `error`. */
  thrown: { readonly value: unknown } | null;

  /** Where a read lands. Null drops the bytes: after an abort, or when the memory is gone. */
  buffer: Uint8Array | null;
  /** True while nothing else can have that buffer: a transport may read into it, whatever becomes of the request. */
  ownsBuffer: boolean;
  /** Makes that buffer when the first byte has arrived. */
  allocate: ((length: number) => Uint8Array) | null;
  /** The buffer that `allocate` made. */
  result: unknown;
  coverage: Coverage | null;
  errorChunks: number;
  /** Chunks that brought no new data; capped, so that an endless reply is detected. */
  idleChunks: number;
  readonly onChunk: ChunkCallback | null;
  readonly onExtent: ExtentCallback | null;
  /** Block status: the contexts that the server has reported on. */
  reported: number[] | null;
  /** Block status with a filter: the contexts that were asked for. */
  readonly expected: readonly number[] | null;

  /** Keeps an error of the reply; the first one stays, later ones are ignored. */
  fail(error: NbdError): void;
}
