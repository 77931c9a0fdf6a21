// Handshakes are generator coroutines over three effects, so that they read like the protocol's text, hold no
// socket, and can be fed bytes in a spec. Whoever runs one performs the effect and resumes with its result.

/** The TLS handshake is to happen now, on the stream; nothing read before it may survive it. */
export const START_TLS = Symbol('start TLS');

/** A number: read so many bytes and resume with them. Bytes: write them. START_TLS: as it says. */
export type HandshakeEffect = number | Uint8Array | typeof START_TLS;

/** A handshake, or a part of one, that returns `Result`. The bytes resumed with are the handshake's own to keep. */
export type Handshake<Result> = Generator<HandshakeEffect, Result, Buffer>;

/** A read longer than this goes piecewise, so that nothing is allocated by a length that a peer only claims. */
export const SKIP_PIECE = 16384;

/** Reads and drops `length` bytes without holding them. */
export function* skip(length: number): Handshake<void> {
  for (let rest = length; rest > 0; rest -= SKIP_PIECE) yield Math.min(rest, SKIP_PIECE);
}
