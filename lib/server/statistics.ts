// What a server has done, for tests and logs.

import type { CommandName } from './transmission/command-name.js';

/** Counts since the server was made. */
export interface NbdServerStatistics {
  /** Connections that were accepted, ended ones included. */
  readonly connections: number;
  /** Connections that are open now. */
  readonly openConnections: number;
  /** Connections that were closed at once: there were `maxConnections`, or the server was closed. */
  readonly refusedConnections: number;
  /** Connections that came into the transmission phase. */
  readonly sessions: number;
  /** Requests that arrived, by command, refused ones included. */
  readonly requests: Readonly<Record<CommandName, number>>;
  /** Requests that were answered with an error. */
  readonly errors: number;
  /** Payload of writes taken, in bytes. */
  readonly bytesWritten: number;
  /** Bytes sent, headers included; with TLS, of plaintext. */
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
    read: 0,
    write: 0,
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
