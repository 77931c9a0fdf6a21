// What a server is made with, and the defaults.

import type { HandshakeFeatures } from '../protocol/handshake/serve-offer.js';
import type { NbdBackend } from './backend.js';
import type { FaultedRequest } from './faults.js';
import type { NbdExportOptions } from './served-export.js';
import type { NbdServerTlsOptions } from './tls-upgrade.js';

/** Options of an {@link NbdServer}. Times are milliseconds, sizes bytes. */
export interface NbdServerOptions {
  /** Exports by name, `''` being the default one; a backend alone stands for `{ backend }`. */
  readonly exports?: Readonly<Record<string, NbdBackend | NbdExportOptions>>;
  /** The export that clients get who ask for `''`, when none has that name. */
  readonly defaultExport?: string;

  /** `oldstyle` shows the default export at once and negotiates nothing. */
  readonly style?: 'newstyle' | 'oldstyle';
  /** False for the plain newstyle handshake, which knows NBD_OPT_EXPORT_NAME only. */
  readonly fixedNewstyle?: boolean;
  /** Whether clients may decline the 124 zeroes. */
  readonly noZeroes?: boolean;
  /** Options to refuse: false as an old server does (NBD_REP_ERR_UNSUP), or the name of the error. */
  readonly features?: Partial<HandshakeFeatures>;

  /** `on` lets clients start TLS, `require` serves no others; `off` unless set. Needs `tlsOptions`. */
  readonly tls?: 'off' | 'on' | 'require';
  readonly tlsOptions?: NbdServerTlsOptions;

  /** Connections at the same time; more are closed at once. Infinity. */
  readonly maxConnections?: number;
  /** For the whole handshake; 0 for no limit. 30,000. */
  readonly handshakeTimeout?: number;
  /** Options in one handshake. 256. */
  readonly maxOptions?: number;
  /** How long close() waits for commands and clients, and how long a client has to take its last replies. 2000. */
  readonly closeTimeout?: number;

  /** Longest payload of one request, where an export does not set less. 33,554,432. */
  readonly maxPayload?: number;
  /** Requests that run at the same time on one connection. 16. */
  readonly maxInFlight?: number;
  /** Payload that they have together. 67,108,864. */
  readonly maxInFlightBytes?: number;
  /** Replies that may wait for a client to read them; beyond that it is not read from. 1,048,576. */
  readonly maxReplyBytes?: number;

  /** Called for every request before it is carried out; an exception becomes the command's error. */
  readonly onRequest?: (request: FaultedRequest) => void;
  /** Called when a connection has ended because the client, or the stream, did something wrong. */
  readonly onConnectionError?: (error: Error) => void;
}

export const DEFAULT_FEATURES: HandshakeFeatures = {
  exportName: true,
  abort: true,
  list: true,
  info: true,
  go: true,
  structuredReply: true,
  extendedHeaders: true,
  listMetaContext: true,
  setMetaContext: true,
  blockSizeInfo: true,
  nameInfo: true,
};

export function isBackend(value: NbdBackend | NbdExportOptions): value is NbdBackend {
  return 'read' in value;
}
