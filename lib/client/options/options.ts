// The options of a connection: their types, their defaults (libnbd's, lib/handle.c), and their validation, which
// the constructor and the setters share.

import * as s from '../../protocol/client-constants.js';
import type { HandshakeRequest } from '../../protocol/handshake/session.js';
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
  refuse,
  shown,
} from './checks.js';
import { type NbdTlsOptions, TLS_CHECKS, tlsDefaults, type TlsSettings } from './tls-options.js';

export { checkBits, checkName, checkNames, checkSignal } from './checks.js';

/** What `new NbdConnection(options)` and the `connect` functions take. Each libnbd option has a setter as well. */
export interface NbdConnectionOptions extends NbdTlsOptions {
  /** The export to open. Default `''`, the server's default export. At most 4096 bytes of UTF-8. */
  exportName?: string;
  /** STRICT_* bits: what is checked before a command is sent. Default: everything. */
  strictMode?: number;
  /** Stop after the first options of the handshake, so that `opt*` calls can be made. Default false. */
  optMode?: boolean;
  /** Metadata contexts to ask for, such as `CONTEXT_BASE_ALLOCATION`. Default none. */
  metaContexts?: readonly string[];
  /** Whether to ask for the contexts at all. Default true. */
  requestMetaContext?: boolean;
  /** Whether to ask for structured replies. Default true. */
  requestStructuredReplies?: boolean;
  /** Whether to ask for 64-bit extended headers. Default true. */
  requestExtendedHeaders?: boolean;
  /** Whether to ask for the server's block sizes. Default true. */
  requestBlockSize?: boolean;
  /** Whether to ask for the export's canonical name and description. Default false. */
  fullInfo?: boolean;
  /** HANDSHAKE_FLAG_* bits that may be used. Default: all. */
  handshakeFlags?: number;
  /**
   * Open the export with NBD_OPT_EXPORT_NAME and send no option but that and, for TLS, NBD_OPT_STARTTLS: for old
   * servers that hang up at an option they do not know, NBD_OPT_GO for example. Structured replies, metadata contexts
   * and block sizes are then not available. Default false.
   */
  exportNameOnly?: boolean;
  /** Clear the caller's buffers before a read, so that a failed one leaves no old bytes. Default true. */
  preadInitialize?: boolean;
  /** Tell on stderr, or the debug callback, what happens. Default: whether the variable LIBNBD_DEBUG is `1`. */
  debug?: boolean;
  /** The export name is a secret, such as a token: errors, `inspect` and messages show `***`. Default false. */
  maskExportName?: boolean;
  /** A name for messages and debugging. Default `nbd1`, `nbd2` … */
  handleName?: string;

  /** Commands on the wire at once. Default 64. */
  maxInFlight?: number;
  /** Bytes of payload on the wire at once; one larger command goes alone. Default 64 MiB. */
  maxInFlightBytes?: number;
  /** Commands that may wait beyond those on the wire; more fail with `EAGAIN`. Default Infinity. */
  maxQueued?: number;
  /** Milliseconds for name look-up, connect, TLS and handshake together. 0 or Infinity: no limit. Default 10,000. */
  connectTimeout?: number;
  /**
   * Milliseconds without any progress of a command, nor of those sent before it, after which its connection is given
   * up. Bytes of a payload that come or leave are progress. 0 or Infinity: no limit. Default 0.
   */
  requestTimeout?: number;
  /**
   * Microseconds without a reply for which the event loop goes round instead of sleeping, while few commands or large
   * ones are in flight: a server near by answers sooner than a process is woken. Where it is in vain it is hardly ever
   * tried again. Default 100; 0: never.
   */
  busyPoll?: number;
  /**
   * Milliseconds that the goodbye of `shutdown()` may take before it closes. A program that was started and written to
   * has its own time to end, without a limit. Also how long the socket may take no byte of a write that was aborted
   * half-way, before the connection is given up. Default 5,000; 0: no limit, but 5,000 for the latter.
   */
  closeTimeout?: number;

  /** ALLOW_TRANSPORT_* bits: the transports that a URI may use. Default: all. */
  uriAllowTransports?: number;
  /** TLS_DISABLE: no `nbds` URIs; TLS_REQUIRE: no others. Default TLS_ALLOW: either. */
  uriAllowTls?: number;
  /** Whether a URI may name files of this machine, as `tls-certificates` does. Default false. */
  uriAllowLocalFile?: boolean;
  /** Whether a URI may choose the ciphers, with `tls-priority`. Default false. */
  uriAllowTlsPriority?: boolean;

  /** What the socket is called that `connectSystemdSocketActivation` hands over. Default `''`: unknown. */
  socketActivationName?: string;
  /**
   * Where the stderr of a program goes that a connection starts. `capture`, the default, keeps the end of it for the
   * error when the program dies; `inherit` leaves it to this process's stderr.
   */
  subprocessStderr?: 'capture' | 'inherit';
}

type PlainOption = Exclude<keyof NbdConnectionOptions, keyof NbdTlsOptions>;

/** The same, complete. */
export type Settings = {
  -readonly [K in PlainOption]-?: Required<NbdConnectionOptions>[K];
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
    debug: process.env['LIBNBD_DEBUG'] === '1',
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
    socketActivationName: '',
    subprocessStderr: 'capture',
    ...tlsDefaults(),
  };
}

/** The options over the defaults; an unknown or ill-typed one throws. Only own properties count. */
export function makeSettings(options: NbdConnectionOptions | undefined): Settings {
  const settings = defaults();
  if (options === undefined) return settings;
  if (typeof (options as unknown) !== 'object' || (options as unknown) === null) {
    throw refuse('NbdConnection', `options must be an object, not ${shown(options)}`);
  }
  for (const key of Object.keys(options)) {
    if (!Object.hasOwn(CHECKS, key)) throw refuse('NbdConnection', `unknown option ${shown(key)}`);
    const name = key as keyof NbdConnectionOptions;
    // Read once: a getter may answer differently the next time.
    const value: unknown = options[name];
    if (value !== undefined) assign(settings, name, value);
  }
  return settings;
}

/** What the program has set itself, be it to the default: a URI may not undo it. */
const explicitNames = new WeakMap<Settings, Set<keyof NbdConnectionOptions>>();

/** Sets one option for the program; throws and leaves the old value when the new one is not of its kind. */
export function assign(settings: Settings, name: keyof NbdConnectionOptions, value: unknown, method?: string): void {
  Object.assign(settings, { [name]: CHECKS[name](method ?? `NbdConnection: ${name}`, value) });
  const names = explicitNames.get(settings) ?? new Set();
  explicitNames.set(settings, names.add(name));
}

/** Whether an option of the constructor or a setter has set it, and not only a default or a URI. */
export const isExplicit = (settings: Settings, name: keyof NbdConnectionOptions): boolean =>
  explicitNames.get(settings)?.has(name) === true;

/** The export name as messages may show it. */
export const shownExportName = (settings: Settings): string =>
  settings.maskExportName && settings.exportName !== '' ? '***' : settings.exportName;

/** What the handshake asks for. In option mode the setters still count until the export is open. */
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
