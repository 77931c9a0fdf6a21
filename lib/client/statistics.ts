// What a connection has sent and received, counted as in libnbd: plaintext bytes; a chunk is a message that begins with
// a magic number. Option replies are not counted as chunks.

import type { Opening } from './connect/opening.js';
import type { Transmission } from './transmission/transmission.js';

/** The traffic of one connection so far. */
export interface Statistics {
  /** Bytes sent, before encryption (libnbd: `nbd_stats_bytes_sent`). */
  readonly bytesSent: number;
  /** Options and commands sent (libnbd: `nbd_stats_chunks_sent`). */
  readonly chunksSent: number;
  /** Bytes received, after decryption (libnbd: `nbd_stats_bytes_received`). */
  readonly bytesReceived: number;
  /** The greeting, and replies or reply chunks received (libnbd: `nbd_stats_chunks_received`). */
  readonly chunksReceived: number;
}

export function statisticsOf(opening: Opening | null, transmission: Transmission | null): Statistics {
  const greetings = opening?.session.protocol == null ? 0 : 1;
  return {
    bytesSent: (opening?.handshake?.bytesSent ?? 0) + (transmission?.bytesSent ?? 0),
    chunksSent: (opening?.session.optionsSent ?? 0) + (transmission?.chunksSent ?? 0),
    bytesReceived: opening?.link?.bytesReceived ?? 0,
    chunksReceived: greetings + (transmission?.chunksReceived ?? 0),
  };
}
