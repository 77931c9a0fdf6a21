// Statistics of a server, for tests and logs.

import type { CommandName } from './transmission/command-name.js';

/** Counts since the server was created. */
export interface NbdServerStatistics {
  /** Connections that were accepted, including ended ones. */
  readonly connections: number;
  /** Connections that are open now. */
  readonly openConnections: number;
  /** Connections that were closed at once, because of `maxConnections` or a closed server. */
  readonly refusedConnections: number;
  /** Connections that reached the transmission phase. */
  readonly sessions: number;
  /** Requests received, by command, including refused ones. */
  readonly requests: Readonly<Record<CommandName, number>>;
  /** Requests that failed. */
  readonly errors: number;
  /** Bytes of payload of accepted writes. */
  readonly bytesWritten: number;
  /** Bytes sent, including headers; with TLS, of plaintext. */
  readonly bytesSent: number;
}

export class Statistics {
  connections = 0;
  refusedConnections = 0;
  sessions = 0;
  errors = 0;
  bytesWritten = 0;
  bytesSent = 0;
  readonly requests: Record<CommandName, number> = {
    pread: 0,
    pwrite: 0,
    disconnect: 0,
    flush: 0,
    trim: 0,
    cache: 0,
    zero: 0,
    blockStatus: 0,
    unknown: 0,
  };

  snapshot(openConnections: number): NbdServerStatistics {
    const { connections, refusedConnections, sessions, errors, bytesWritten, bytesSent } = this;
    const requests = { ...this.requests };
    return { connections, openConnections, refusedConnections, sessions, requests, errors, bytesWritten, bytesSent };
  }
}
