// Handshakes are generator coroutines over four effects, so that they read like the protocol's text, hold no socket,
// and can be fed bytes in a spec. The driver performs each effect and resumes the coroutine with its result.

import type { Buffer } from '../../util/buffer.js';

/** Starts TLS on the stream; nothing that was read before may be used afterwards. */
export const START_TLS = Symbol('start TLS');

/** Waits until the function that it is given is called, once. */
export type Wait = (resume: () => void) => void;

/**
 * A number reads that many bytes and resumes with them; bytes are written; START_TLS upgrades the stream; a function
 * waits.
 */
export type HandshakeEffect = number | Uint8Array | typeof START_TLS | Wait;

/** A handshake, or a part of one, that returns `Result`. It may keep the bytes that it is resumed with. */
export type Handshake<Result> = Generator<HandshakeEffect, Result, Buffer>;

/** A longer read is done in pieces of this length, so that nothing is allocated by a length that a peer only claims. */
export const SKIP_PIECE = 16384;

/** Reads and drops `length` bytes without holding them. */
export function* skip(length: number): Handshake<void> {
  for (let rest = length; rest > 0; rest -= SKIP_PIECE) yield Math.min(rest, SKIP_PIECE);
}
