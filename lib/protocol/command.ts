// The one object per request, from submission to settlement. Invariants: the cookie is set once and never reused;
// `settled` turns true once and nothing of the caller's is touched afterwards.

import type { NbdError } from '../errors.js';
import type { U64 } from '../util/u64.js';
import type { CommandSpec } from './commands.js';
import type { Coverage } from './coverage.js';
import type { BlockStatusEntries } from './block-status.js';

// The stages of a command's life. Plain numbers: they are compared for every command.
/** Accepted, not on the wire: an abort removes it and nothing is sent. */
export const STAGE_WAITING = 0;
/** It has its credit and goes out with the next write; an abort still removes it. */
export const STAGE_GRANTED = 1;
/** Its bytes are with the transport; only the server's reply or the connection's end gives its credit back. */
export const STAGE_ISSUED = 2;
/** The reply is complete, or will never come. */
export const STAGE_FINISHED = 3;

/** What a read's chunk held: libnbd's LIBNBD_READ_DATA, READ_HOLE and READ_ERROR. */
export type ChunkStatus = 1 | 2 | 3;

/** Called for every chunk of a structured read; see `NbdConnection.preadStructured`. */
export type ChunkCallback = (subbuf: Buffer, offset: bigint, status: ChunkStatus, error: NbdError | null) => void;

/** Called for every context of a block status; see `NbdConnection.blockStatus`. */
export type ExtentCallback<Entries = BlockStatusEntries> = (context: string, offset: bigint, entries: Entries) => void;

/** Told once when a raw command has finished; `true` retires it. */
export type CompletionCallback = (error: NbdError | null, cookie: bigint) => boolean | void;

export class Command {
  readonly spec: CommandSpec;
  readonly count: U64;
  readonly offset: U64;
  flags: number;
  cookie = 0;
  stage = STAGE_WAITING;
  settled = false;
  /** What the reply said; the first error wins. */
  error: NbdError | null = null;
  /** What a callback of the user's threw; reported in place of `error`. */
  thrown: { readonly value: unknown } | null = null;

  /** Bytes of payload that it moves in either direction: what the window counts. */
  weight = 0;
  /** To the server: a write's bytes, or a block-status filter. */
  payload: Uint8Array | null = null;
  /** False while the payload is with the transport: until then the caller's bytes may not change. */
  flushed = true;
  /** From the server: where a read lands. Null once the read was aborted: late bytes are dropped. */
  buffer: Uint8Array | null = null;
  /** True while nobody else can have that buffer: a transport may read into it, whatever becomes of the command. */
  ownsBuffer = false;
  /** Makes that buffer when the first byte is there, so that waiting commands hold none. */
  allocate: ((length: number) => Uint8Array) | null = null;
  coverage: Coverage | null = null;
  errorChunks = 0;
  /** Chunks of the reply that moved nothing forward; bounded, so that an endless reply is noticed. */
  idleChunks = 0;
  onChunk: ChunkCallback | null = null;
  onExtent: ExtentCallback | null = null;
  /** Block status: contexts that have reported; asked for by a filter: the contexts expected. */
  reported: number[] | null = null;
  expected: readonly number[] | null = null;

  // How it is settled: a promise's two ends, or a completion callback (raw).
  resolve: ((value: unknown) => void) | null = null;
  reject: ((reason: unknown) => void) | null = null;
  completion: CompletionCallback | null = null;
  /** What the promise resolves with. */
  result: unknown = undefined;
  signal: AbortSignal | null = null;
  /** The call that makes it has not returned: its completion callback must not run yet. */
  entering = false;
  /** An abort that must wait for the payload to leave. */
  aborted: { readonly reason: unknown } | null = null;
  /** The sweep of requestTimeout in which it was issued or last moved. */
  sweep = 0;

  constructor(spec: CommandSpec, count: U64, offset: U64, flags: number) {
    this.spec = spec;
    this.count = count;
    this.offset = offset;
    this.flags = flags;
  }

  /** The first error of the reply stays; later ones say nothing new. */
  fail(error: NbdError): void {
    this.error ??= error;
  }
}

/** The call and its range, for the beginning of a message. */
export function describeCall(spec: CommandSpec, count: U64, offset: U64): string {
  return spec.hasRange ? `${spec.method} of ${count} bytes at offset ${offset}` : spec.method;
}

/** Where and what, for an error's fields. */
export function callDetails(
  spec: CommandSpec,
  count: U64,
  offset: U64,
): { syscall: string; count?: bigint; offset?: bigint } {
  return spec.hasRange
    ? { syscall: spec.method, count: BigInt(count), offset: BigInt(offset) }
    : { syscall: spec.method };
}
