// What a server is made with, and the defaults.

import { type HandshakeFeatures, type OptionRefusal, REFUSALS } from '../protocol/handshake/serve-offer.js';
import {
  aBoolean,
  aFunction,
  anObject,
  aString,
  checkOptions,
  milliseconds,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  wholeNumber,
  wholeNumberOrInfinity,
} from '../util/option-checks.js';
import type { NbdBackend } from './backends/backend.js';
import type { FaultedRequest } from './faults.js';
import type { NbdExportOptions } from './served-export.js';
import { type NbdServerTlsOptions, someTlsOptions } from './tls-options.js';

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

  /** `on` lets clients start TLS, `require` serves no others. Both need `tlsOptions`. Default `off`. */
  readonly tls?: 'off' | 'on' | 'require';
  readonly tlsOptions?: NbdServerTlsOptions;

  /** Connections at the same time; more are closed at once. Default 1000. */
  readonly maxConnections?: number;
  /** For the whole handshake; 0 or Infinity for no limit. Default 30,000. */
  readonly handshakeTimeout?: number;
  /** Options in one handshake. Default 256. */
  readonly maxOptions?: number;
  /** How long close() waits for commands and clients, and a client has to take its last replies. Default 2000. */
  readonly closeTimeout?: number;

  /** Longest payload of one request, where an export does not set less. Default 33,554,432. */
  readonly maxPayload?: number;
  /** Requests that run at the same time on one connection. Default 16. */
  readonly maxInFlight?: number;
  /** Payload that they have together; one larger request runs alone. Default 33,554,432. */
  readonly maxInFlightBytes?: number;
  /**
   * The same over all connections, with replies that wait for their clients and payloads that arrive. Requests wait
   * while it is used up; a client that has taken or sent nothing for ten seconds is then closed. Default 268,435,456.
   */
  readonly maxTotalBytes?: number;
  /**
   * Replies that may wait for a client to read them; beyond that it is not read from. It doubles, up to
   * `maxInFlightBytes`, while the client reads what it is sent. Default 1,048,576.
   */
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

const aFeature: OptionCheck<boolean | OptionRefusal> = oneOf<boolean | OptionRefusal>(
  true,
  false,
  ...(Object.keys(REFUSALS) as OptionRefusal[]),
);

const FEATURES: OptionTable<HandshakeFeatures> = {
  exportName: aFeature,
  abort: aFeature,
  list: aFeature,
  info: aFeature,
  go: aFeature,
  structuredReply: aFeature,
  extendedHeaders: aFeature,
  listMetaContext: aFeature,
  setMetaContext: aFeature,
  blockSizeInfo: aBoolean,
  nameInfo: aBoolean,
};

const MAX_DELAY = 2 ** 31 - 1;

const OPTIONS: OptionTable<NbdServerOptions> = {
  exports: anObject,
  defaultExport: aString,
  style: oneOf('newstyle', 'oldstyle'),
  fixedNewstyle: aBoolean,
  noZeroes: aBoolean,
  features: (where, value) => checkOptions(where, value, FEATURES),
  tls: oneOf('off', 'on', 'require'),
  tlsOptions: someTlsOptions,
  maxConnections: wholeNumberOrInfinity(1),
  handshakeTimeout: milliseconds,
  maxOptions: wholeNumberOrInfinity(1),
  closeTimeout: wholeNumber(0, MAX_DELAY),
  maxPayload: wholeNumber(1, MAX_DELAY),
  maxInFlight: wholeNumberOrInfinity(1),
  maxInFlightBytes: wholeNumberOrInfinity(1),
  maxTotalBytes: wholeNumberOrInfinity(1),
  maxReplyBytes: wholeNumberOrInfinity(0),
  onRequest: aFunction,
  onConnectionError: aFunction,
};

export const DEFAULTS = {
  maxConnections: 1000,
  handshakeTimeout: 30_000,
  maxOptions: 256,
  closeTimeout: 2000,
  maxPayload: 1 << 25,
  maxInFlight: 16,
  maxInFlightBytes: 1 << 25,
  maxTotalBytes: 1 << 28,
  maxReplyBytes: 1 << 20,
} as const;

/** The options, checked, over the defaults. */
export type ServerSettings = NbdServerOptions & Required<Pick<NbdServerOptions, keyof typeof DEFAULTS>>;

/** @throws NbdStrictError `EINVAL`: an unknown key, a bad value, or values that do not go together. */
export function makeServerSettings(options: unknown): ServerSettings {
  const checked = checkOptions('NbdServer', options, OPTIONS);
  const { tls, tlsOptions } = checked;
  if (tls !== undefined && tls !== 'off' && tlsOptions === undefined) {
    throw refuse('NbdServer', `tls: '${tls}' requires tlsOptions`);
  }
  // Whoever has a certificate does not mean to serve in the clear by leaving something out.
  if (tls === undefined && tlsOptions !== undefined) {
    throw refuse('NbdServer', "tlsOptions without tls: set it to 'require', 'on' or 'off'");
  }
  return { ...DEFAULTS, ...checked };
}

export function isBackend(value: NbdBackend | NbdExportOptions): value is NbdBackend {
  return typeof value === 'object' && (value as unknown) !== null && 'read' in value;
}
