// What a connection has sent and received, as libnbd counts it: plaintext bytes; a chunk is a message that begins with a
// magic. Option replies are not counted.

import type { Opening } from './connect/opening.js';
import type { Transmission } from './transmission/transmission.js';

export interface Statistics {
  readonly bytesSent: number;
  readonly chunksSent: number;
  readonly bytesReceived: number;
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
