// The options of a connection: types, defaults (those of libnbd's lib/handle.c), and the validation that the
// constructor and the setters share.

import * as s from '../../protocol/client-constants.js';
import type { HandshakeRequest } from '../../protocol/handshake/session.js';
import type { Complete } from '../../util/option-checks.js';
import type { WebSocketClass } from '../../transport/web/types.js';
import { environment } from '../../util/platform.js';
import {
  checkBits,
  checkBoolean,
  checkBusyPoll,
  checkCount,
  checkName,
  checkNames,
  checkQueued,
  checkSocketName,
  checkTimeout,
  checkWebSocket,
  refuse,
  shown,
} from './checks.js';
import { type NbdTlsOptions, TLS_CHECKS, tlsDefaults, type TlsSettings } from './tls-options.js';

export { checkBits, checkName, checkNames, checkSignal } from './checks.js';

/** Options of `new NbdConnection(options)` and `NbdConnection.connect`. Those that libnbd has too have a setter. */
export interface NbdConnectionOptions extends NbdTlsOptions {
  /** The export to open. Default `''`, the server's default export. At most 4096 bytes of UTF-8. */
  exportName?: string | undefined;
  /** STRICT_* bits: the checks that are made before a command is sent. Default STRICT_MASK, all of them. */
  strictMode?: number | undefined;
  /** Pause the handshake before an export is opened, so that `opt*` methods can be called. Default false. */
  optMode?: boolean | undefined;
  /** Metadata contexts to request, such as `CONTEXT_BASE_ALLOCATION`. Default `[]`. */
  metaContexts?: readonly string[] | undefined;
  /** Whether to request the metadata contexts. Default true. */
  requestMetaContext?: boolean | undefined;
  /** Whether to request structured replies. Default true. */
  requestStructuredReplies?: boolean | undefined;
  /** Whether to request extended headers (64-bit lengths). Default true. */
  requestExtendedHeaders?: boolean | undefined;
  /** Whether to request the server's block sizes. Default true. */
  requestBlockSize?: boolean | undefined;
  /** Whether to request the export's canonical name and description. Default false. */
  fullInfo?: boolean | undefined;
  /** HANDSHAKE_FLAG_* bits that may be used. Default HANDSHAKE_FLAG_MASK, all of them. */
  handshakeFlags?: number | undefined;
  /**
   * Open the export with NBD_OPT_EXPORT_NAME and send no other option, except NBD_OPT_STARTTLS for TLS: for old servers
   * that close the connection on an unknown option, such as NBD_OPT_GO. Structured replies, metadata contexts and block
   * sizes are then not available. Default false.
   */
  exportNameOnly?: boolean | undefined;
  /** Clear the caller's buffers before a read, so that a failed read leaves no stale bytes. Default true. */
  preadInitialize?: boolean | undefined;
  /** Log debug messages to stderr, or to the debug callback. Default true if the variable LIBNBD_DEBUG is `1`. */
  debug?: boolean | undefined;
  /** The export name is a secret, such as a token: errors, `inspect` and messages show `***`. Default false. */
  maskExportName?: boolean | undefined;
  /** A name for messages and debugging. Default `nbd1`, `nbd2` … */
  handleName?: string | undefined;

  /** Maximum number of commands in flight. Default 64. */
  maxInFlight?: number | undefined;
  /** Maximum bytes of payload in flight; a larger command is sent when nothing else is. Default 64 MiB. */
  maxInFlightBytes?: number | undefined;
  /** Maximum number of commands waiting to be sent; further ones fail with `EAGAIN`. Default Infinity. */
  maxQueued?: number | undefined;
  /**
   * Milliseconds for name resolution, connect, TLS and handshake together. 0 or Infinity: no limit. Default 10,000.
   */
  connectTimeout?: number | undefined;
  /**
   * Milliseconds without progress on a command or on any command sent before it, after which the connection is closed.
   * Bytes of a payload sent or received are progress. 0 or Infinity: no limit. Default 0.
   */
  requestTimeout?: number | undefined;
  /**
   * Microseconds to busy-poll for a reply before letting the event loop sleep, while few or large commands are in
   * flight: a nearby server replies faster than a process wakes up. Backs off when polling does not pay. 0: never.
   * Default 100.
   */
  busyPoll?: number | undefined;
  /**
   * Milliseconds that `shutdown()` waits for the server to close before it closes the connection. A program that this
   * connection started and wrote to may take as long as it needs. Also how long the socket may accept no bytes of a
   * write that was aborted half-way before the connection is closed. 0: no limit, but 5,000 for aborted writes.
   * Default 5,000.
   */
  closeTimeout?: number | undefined;

  /** ALLOW_TRANSPORT_* bits: the transports that a URI may use. Default ALLOW_TRANSPORT_MASK, all of them. */
  uriAllowTransports?: number | undefined;
  /** TLS_DISABLE: no `nbds` URIs; TLS_REQUIRE: `nbds` URIs only; TLS_ALLOW: either. Default TLS_ALLOW. */
  uriAllowTls?: number | undefined;
  /** Whether a URI may name local files, for example in `tls-certificates`. Default false. */
  uriAllowLocalFile?: boolean | undefined;
  /** Whether a URI may choose the ciphers with `tls-priority`. Default false. */
  uriAllowTlsPriority?: boolean | undefined;
  /**
   * The class that opens `ws:` and `wss:` URLs, such as that of the npm package `ws`. Default null: the global
   * WebSocket, which Node has from version 22.
   */
  webSocket?: WebSocketClass | null | undefined;

  /** Name of the socket that `connectSystemdSocketActivation` passes on. Default `''`: the server sees `unknown`. */
  socketActivationName?: string | undefined;
  /**
   * What happens to the stderr of a program that the connection starts. `capture` keeps the last lines for the error
   * message when the program exits; `inherit` forwards it to this process's stderr. Default `capture`.
   */
  subprocessStderr?: 'capture' | 'inherit' | undefined;
}

type PlainOption = Exclude<keyof NbdConnectionOptions, keyof NbdTlsOptions>;

/** All options, with their values or defaults. */
export type Settings = {
  -readonly [K in PlainOption]-?: Complete<NbdConnectionOptions>[K];
} & TlsSettings;

let handles = 0;

const CHECKS: {
  readonly [K in keyof Required<NbdConnectionOptions>]: (method: string, value: unknown) => Settings[K];
} = {
  exportName: checkName,
  strictMode: (method, value) => checkBits(method, value, s.STRICT_MASK),
  optMode: checkBoolean,
  metaContexts: checkNames,
  requestMetaContext: checkBoolean,
  requestStructuredReplies: checkBoolean,
  requestExtendedHeaders: checkBoolean,
  requestBlockSize: checkBoolean,
  fullInfo: checkBoolean,
  handshakeFlags: (method, value) => checkBits(method, value, s.HANDSHAKE_FLAG_MASK),
  exportNameOnly: checkBoolean,
  preadInitialize: checkBoolean,
  debug: checkBoolean,
  maskExportName: checkBoolean,
  handleName: checkName,
  maxInFlight: checkCount,
  maxInFlightBytes: checkCount,
  maxQueued: checkQueued,
  connectTimeout: checkTimeout,
  requestTimeout: checkTimeout,
  busyPoll: checkBusyPoll,
  closeTimeout: checkTimeout,
  uriAllowTransports: (method, value) => checkBits(method, value, s.ALLOW_TRANSPORT_MASK),
  uriAllowTls: TLS_CHECKS.tls,
  uriAllowLocalFile: checkBoolean,
  uriAllowTlsPriority: checkBoolean,
  webSocket: checkWebSocket,
  socketActivationName: checkSocketName,
  subprocessStderr: (method, value) => {
    if (value === 'capture' || value === 'inherit') return value;
    throw refuse(method, `must be 'capture' or 'inherit', not ${shown(value)}`);
  },
  ...TLS_CHECKS,
};

function defaults(): Settings {
  return {
    exportName: '',
    strictMode: s.STRICT_MASK,
    optMode: false,
    metaContexts: [],
    requestMetaContext: true,
    requestStructuredReplies: true,
    requestExtendedHeaders: true,
    requestBlockSize: true,
    fullInfo: false,
    handshakeFlags: s.HANDSHAKE_FLAG_MASK,
    exportNameOnly: false,
    preadInitialize: true,
    debug: environment('LIBNBD_DEBUG') === '1',
    maskExportName: false,
    handleName: `nbd${++handles}`,
    maxInFlight: 64,
    maxInFlightBytes: 64 * 1024 * 1024,
    maxQueued: Infinity,
    connectTimeout: 10_000,
    requestTimeout: 0,
    busyPoll: 100,
    closeTimeout: 5_000,
    uriAllowTransports: s.ALLOW_TRANSPORT_MASK,
    uriAllowTls: s.TLS_ALLOW,
    uriAllowLocalFile: false,
    uriAllowTlsPriority: false,
    webSocket: null,
    socketActivationName: '',
    subprocessStderr: 'capture',
    ...tlsDefaults(),
  };
}

/** The defaults overridden by `options`; throws for an unknown or ill-typed option. Only own properties count. */
export function makeSettings(
  options: NbdConnectionOptions | undefined,
  unsupported: ReadonlySet<keyof NbdConnectionOptions> = new Set(),
): Settings {
  const settings = defaults();
  unsupportedNames.set(settings, unsupported);
  if (options === undefined) return settings;
  if (typeof (options as unknown) !== 'object' || (options as unknown) === null) {
    throw refuse('NbdConnection', `options must be an object, not ${shown(options)}`);
  }
  for (const key of Object.keys(options)) {
    if (!Object.hasOwn(CHECKS, key)) throw refuse('NbdConnection', `unknown option ${shown(key)}`);
    const name = key as keyof NbdConnectionOptions;
    // Read once: a getter may return another value the next time.
    const value: unknown = options[name];
    if (value !== undefined) assign(settings, name, value);
  }
  return settings;
}

/** Options that the program has set, even to the default value: a URI may not override them. */
const explicitNames = new WeakMap<Settings, Set<keyof NbdConnectionOptions>>();

/** Options that have no meaning on the platform of a connection. */
const unsupportedNames = new WeakMap<Settings, ReadonlySet<keyof NbdConnectionOptions>>();

/** Sets one option on behalf of the program; throws for an invalid value and then keeps the old one. */
export function assign(settings: Settings, name: keyof NbdConnectionOptions, value: unknown, method?: string): void {
  const where = method ?? `NbdConnection: ${name}`;
  if (unsupportedNames.get(settings)?.has(name) === true) throw refuse(where, 'not supported here', 'ENOTSUP');
  Object.assign(settings, { [name]: CHECKS[name](where, value) });
  const names = explicitNames.get(settings) ?? new Set();
  explicitNames.set(settings, names.add(name));
}

/** Whether the constructor or a setter has set the option, rather than a default or a URI. */
export const isExplicit = (settings: Settings, name: keyof NbdConnectionOptions): boolean =>
  explicitNames.get(settings)?.has(name) === true;

/** The export name as it may appear in messages. */
export const shownExportName = (settings: Settings): string =>
  settings.maskExportName && settings.exportName !== '' ? '***' : settings.exportName;

/** What the handshake requests. In option mode the setters still take effect until the export is open. */
export function handshakeRequest(settings: Settings): HandshakeRequest {
  return {
    get exportName() {
      return settings.exportName;
    },
    get fullInfo() {
      return settings.fullInfo;
    },
    get blockSize() {
      return settings.requestBlockSize;
    },
    get metaContext() {
      return settings.requestMetaContext;
    },
    get metaContexts() {
      return settings.metaContexts;
    },
    maskExportName: settings.maskExportName,
    tls: settings.tls,
    handshakeFlags: settings.handshakeFlags,
    exportNameOnly: settings.exportNameOnly,
    structuredReplies: settings.requestStructuredReplies && !settings.exportNameOnly,
    extendedHeaders: settings.requestExtendedHeaders && !settings.exportNameOnly,
    optMode: settings.optMode,
  };
}
