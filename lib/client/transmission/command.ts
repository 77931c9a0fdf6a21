// The one object per request, from submission to settlement: the target of its reply, and what the client keeps for it.
// One class with every field set by its constructor, so that the code that handles each command stays monomorphic.
// Invariants: the cookie is set once and never reused; `settled` becomes true once, and nothing of the caller's is
// touched afterwards.

import type { NbdError } from '../../errors.js';
import type { CommandSpec } from '../../protocol/commands.js';
import type { Coverage } from '../../protocol/coverage.js';
import type { ChunkCallback, ExtentCallback, ReplyTarget } from '../../protocol/reply-target.js';
import type { EncodableRequest } from '../../protocol/request-encoder.js';
import type { U64 } from '../../util/u64.js';

// The stages of a command's life. Plain numbers: they are compared for every command.
/** Accepted, not on the wire: an abort removes it and nothing is sent. */
export const STAGE_WAITING = 0;
/** It has its credit and is sent with the next write; an abort still removes it. */
export const STAGE_GRANTED = 1;
/** The transport has its bytes; only the server's reply or the end of the connection returns its credit. */
export const STAGE_ISSUED = 2;
/** The reply is complete, or will not arrive any more. */
export const STAGE_FINISHED = 3;

/** Called once when a raw command has finished; returning `true` retires it. */
export type CompletionCallback = (error: NbdError | null, cookie: bigint) => boolean | void;

/**
 * Follows a command to its end on one connection: the pool, which issues commands again. Called within the calls that
 * accept and settle it; must not throw.
 */
export interface CommandObserver {
  /** The command was accepted. */
  accepted(command: Command): void;
  /** Its promise has been resolved. */
  succeeded(command: Command): void;
  /** It has failed. Its promise is left to the observer; `signal` is the one that it was submitted with. */
  failed(command: Command, reason: unknown, signal: AbortSignal | null): void;
}

export class Command implements ReplyTarget, EncodableRequest {
  readonly spec: CommandSpec;
  readonly count: U64;
  readonly offset: U64;
  flags: number;
  cookie = 0;
  stage = STAGE_WAITING;
  settled = false;
  /** The first error of the reply. */
  error: NbdError | null = null;
  /** What a callback of the user's threw; reported in place of `error`. */
  thrown: { readonly value: unknown } | null = null;

  /** Bytes of payload that it moves in either direction: what the window counts. */
  weight = 0;
  /** To the server: a write's bytes, or a block-status filter. */
  payload: Uint8Array | null = null;
  /** False while the transport has the payload: the caller's bytes must not change until then. */
  flushed = true;
  /** From the server: where a read lands. Null once the read was aborted: late bytes are dropped. */
  buffer: Uint8Array | null = null;
  /** True while nothing else can have that buffer: a transport may read into it, whatever becomes of the command. */
  ownsBuffer = false;
  /** Makes that buffer when the first byte has arrived, so that waiting commands hold no memory. */
  allocate: ((length: number) => Uint8Array) | null = null;
  coverage: Coverage | null = null;
  errorChunks = 0;
  /** Chunks that brought no new data; capped, so that an endless reply is detected. */
  idleChunks = 0;
  onChunk: ChunkCallback | null = null;
  onExtent: ExtentCallback | null = null;
  /** Block status: the contexts that the server has reported on, and with a filter those that were asked for. */
  reported: number[] | null = null;
  expected: readonly number[] | null = null;

  // How it is settled: by the functions of a promise, or by a completion callback (raw).
  resolve: ((value: unknown) => void) | null = null;
  reject: ((reason: unknown) => void) | null = null;
  completion: CompletionCallback | null = null;
  observer: CommandObserver | null = null;
  /** The observer's: its place in the order of calls on all connections. */
  order = 0;
  /** What the promise resolves with. */
  result: unknown = undefined;
  signal: AbortSignal | null = null;
  /** The call that made it has not returned: its completion callback must not run yet. */
  entering = false;
  /** An abort that must wait until the payload has been sent. */
  aborted: { readonly reason: unknown } | null = null;
  /** The sweep of requestTimeout in which it was issued or last moved. */
  sweep = 0;

  constructor(spec: CommandSpec, count: U64, offset: U64, flags: number) {
    this.spec = spec;
    this.count = count;
    this.offset = offset;
    this.flags = flags;
  }

  /** Keeps an error of the reply; the first one stays, later ones are ignored. */
  fail(error: NbdError): void {
    this.error ??= error;
  }
}
