// The options of a server, their checks and defaults.

import type { Buffer } from '../util/buffer.js';
import { type HandshakeFeatures, type OptionRefusal, REFUSALS } from '../protocol/handshake/serve-offer.js';
import {
  aBoolean,
  aFunction,
  anObject,
  aString,
  checkOptions,
  type Complete,
  milliseconds,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  wholeNumber,
  wholeNumberOrInfinity,
} from '../util/option-checks.js';
import type { NbdBackend } from './backends/backend.js';
import type { FaultedRequest } from './held-requests.js';
import type { NbdExportOptions } from './served-export.js';

/** Keys by user name, as raw bytes. */
export type PskKeys = Readonly<Record<string, Uint8Array>>;

/** The certificate or keys of a server, and what it requires of clients. Strings and buffers contain PEM. */
export interface NbdServerTlsOptions {
  /** The certificate chain and its key. Not needed with `psk`. */
  readonly cert?: string | Buffer | undefined;
  /** The private key of `cert`. */
  readonly key?: string | Buffer | undefined;
  /** Authorities that sign clients' certificates. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[] | undefined;
  /** Revocation lists of the authorities: certificates on them are refused. Needs `verifyPeer`. */
  readonly crl?: string | Buffer | readonly (string | Buffer)[] | undefined;
  /** Requires clients to have a certificate signed by `ca`, which must be set. Default false. */
  readonly verifyPeer?: boolean | undefined;
  /** Pre-shared keys by user name, instead of certificates. */
  readonly psk?: PskKeys | undefined;
  /** Lowest version of TLS. Default `TLSv1.2`. */
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3' | undefined;
  /** Highest version of TLS. Default: the highest that Node.js supports. */
  readonly maxVersion?: 'TLSv1.2' | 'TLSv1.3' | undefined;
}

/** Makes the export of a name for one client. */
export type OpenExport = (
  name: string,
  client: OpeningClient,
) => OpenedExport | undefined | Promise<OpenedExport | undefined>;

/** What an {@link OpenExport} function makes: a backend alone is short for `{ backend }`. */
export type OpenedExport = NbdBackend | NbdExportOptions;

/** The client for which an export is made. */
export interface OpeningClient {
  /** The connection's number, from 1 in order of arrival. */
  readonly connection: number;
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
}

/** Options of an {@link NbdServer}. Times are milliseconds, sizes bytes. */
export interface NbdServerOptions {
  /** The exports by name; `''` is the default export. A backend alone is short for `{ backend }`. Default none. */
  readonly exports?: Readonly<Record<string, NbdBackend | NbdExportOptions>> | undefined;
  /** Name of the export for clients that request `''`, if no export has that name. Default none. */
  readonly defaultExport?: string | undefined;

  /** `oldstyle` offers the default export without negotiation. Default `newstyle`. */
  readonly style?: 'newstyle' | 'oldstyle' | undefined;
  /** False for the plain newstyle handshake, which has only NBD_OPT_EXPORT_NAME. Default true. */
  readonly fixedNewstyle?: boolean | undefined;
  /** Whether clients may decline the 124 zero bytes of the reply to NBD_OPT_EXPORT_NAME. Default true. */
  readonly noZeroes?: boolean | undefined;
  /** Options to refuse: false as an old server does (NBD_REP_ERR_UNSUP), or the name of the error. Default none. */
  readonly features?: { readonly [Name in keyof HandshakeFeatures]?: HandshakeFeatures[Name] | undefined } | undefined;

  /** `on`: clients may start TLS; `require`: they must. Both require `tlsOptions`. Default `off`. */
  readonly tls?: 'off' | 'on' | 'require' | undefined;
  /** Certificates or pre-shared keys for TLS. */
  readonly tlsOptions?: NbdServerTlsOptions | undefined;

  /** Maximum number of open connections; further ones are closed at once. Default 1000. */
  readonly maxConnections?: number | undefined;
  /** Milliseconds for the whole handshake. 0 or Infinity: no limit. Default 30,000. */
  readonly handshakeTimeout?: number | undefined;
  /** Maximum number of options in one handshake. Default 256. */
  readonly maxOptions?: number | undefined;
  /**
   * Milliseconds that close() waits for requests and clients, and that a client has to read its last replies. Default
   * 2000.
   */
  readonly closeTimeout?: number | undefined;

  /** Maximum payload of one request in bytes; an export may set less. Default 33,554,432. */
  readonly maxPayload?: number | undefined;
  /** Maximum number of requests in flight on one connection. Default 16. */
  readonly maxInFlight?: number | undefined;
  /** Maximum bytes of payload in flight on one connection; a larger request runs alone. Default 33,554,432. */
  readonly maxInFlightBytes?: number | undefined;
  /**
   * Maximum bytes held by all connections together: payload in flight, arriving payload, and replies that wait for
   * their clients. At the limit requests wait, and a client without progress for ten seconds is closed. Default
   * 268,435,456.
   */
  readonly maxTotalBytes?: number | undefined;
  /**
   * Bytes of replies that may wait for a client to read them; above that, the server stops reading its requests.
   * Doubles up to `maxInFlightBytes` while the client keeps reading. Default 1,048,576.
   */
  readonly maxReplyBytes?: number | undefined;

  /**
   * Called for a name that no export has, when a client first asks for it: makes the export of that name, for this
   * connection. Returns a backend, or options of an export, or undefined if there is no such export; or a promise of
   * these. If it throws, the client is refused with the error's message: NBD_REP_ERR_POLICY for `EACCES` and `EPERM`,
   * else NBD_REP_ERR_UNKNOWN. The backend is closed when no connection uses it any more, unless it was added with
   * {@link NbdServer.addExport}. Default none.
   */
  readonly openExport?: OpenExport | undefined;
  /**
   * Bytes of payload per second, of reads and as many of writes, over all connections. Default no limit.
   */
  readonly rate?: number | undefined;
  /** What faults with `probability` and `corrupt` follow from: a whole number below 2^32. Default 0. */
  readonly seed?: number | undefined;

  /** Called for every request before it is carried out; if it throws, the request fails with that error. */
  readonly onRequest?: ((request: FaultedRequest) => void) | undefined;
  /** Called when a connection has ended because of an error of the client or the stream. */
  readonly onConnectionError?: ((error: Error) => void) | undefined;
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
const MAX_SEED = 2 ** 32 - 1;

const OPTIONS: Omit<OptionTable<NbdServerOptions>, 'tlsOptions'> = {
  exports: anObject,
  defaultExport: aString,
  style: oneOf('newstyle', 'oldstyle'),
  fixedNewstyle: aBoolean,
  noZeroes: aBoolean,
  features: (where, value) => checkOptions(where, value, FEATURES),
  tls: oneOf('off', 'on', 'require'),
  maxConnections: wholeNumberOrInfinity(1),
  handshakeTimeout: milliseconds,
  maxOptions: wholeNumberOrInfinity(1),
  closeTimeout: wholeNumber(0, MAX_DELAY),
  maxPayload: wholeNumber(1, MAX_DELAY),
  maxInFlight: wholeNumberOrInfinity(1),
  maxInFlightBytes: wholeNumberOrInfinity(1),
  maxTotalBytes: wholeNumberOrInfinity(1),
  maxReplyBytes: wholeNumberOrInfinity(0),
  openExport: aFunction,
  rate: wholeNumber(1),
  seed: wholeNumber(0, MAX_SEED),
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

/** The checked options, with defaults. */
export type ServerSettings = NbdServerOptions & Complete<Pick<NbdServerOptions, keyof typeof DEFAULTS>>;

/**
 * `tlsOptions` is the platform's check of the option of that name.
 *
 * @throws NbdStrictError `EINVAL`: an unknown key, a bad value, or values that contradict each other.
 */
export function makeServerSettings(options: unknown, tlsOptions: OptionCheck<NbdServerTlsOptions>): ServerSettings {
  const checked = checkOptions<NbdServerOptions>('NbdServer', options, { ...OPTIONS, tlsOptions });
  const { tls } = checked;
  if (tls !== undefined && tls !== 'off' && checked.tlsOptions === undefined) {
    throw refuse('NbdServer', `tls: '${tls}' requires tlsOptions`);
  }
  // A server with certificates must not serve in plaintext just because an option was forgotten.
  if (tls === undefined && checked.tlsOptions !== undefined) {
    throw refuse('NbdServer', "tlsOptions without tls: set it to 'require', 'on' or 'off'");
  }
  return { ...DEFAULTS, ...checked };
}

export function isBackend(value: NbdBackend | NbdExportOptions): value is NbdBackend {
  return typeof value === 'object' && (value as unknown) !== null && 'read' in value;
}
