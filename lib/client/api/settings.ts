// Settings of a connection (libnbd's set_* and get_*). The public class is split over five files, each extending the
// one before: settings, facts, security settings, option mode, and connection.ts with the commands.

import { EventEmitter } from 'eventemitter3';
import { type NbdError, NbdStrictError } from '../../errors.js';
import { toCallback } from '../../protocol/strict.js';
import { throwLater } from '../../util/platform.js';
import { PACKAGE_NAME, VERSION } from '../../util/version.js';
import type { DebugCallback } from '../debug.js';
import { Lifecycle } from '../lifecycle.js';
import type { ClientPlatform } from '../platform.js';
import { assign, checkName, makeSettings, type NbdConnectionOptions } from '../options/options.js';
import {
  checkState,
  type ConnectionState,
  type Permission,
  WHEN_CREATED,
  WHEN_CREATED_OR_NEGOTIATING,
} from '../state.js';

/** The events of a connection. No listener is required: every failure also reaches its own caller. */
export interface NbdConnectionEvents {
  /** The state changed. `ready` and `processing` are one state here, reported as `ready`. */
  stateChange: (state: ConnectionState, previous: ConnectionState) => void;
  /** The connection ended; `error` is set unless it ended in good order. Emitted once, as the last event. */
  close: (error?: NbdError) => void;
  /** Emitted when the waiting line becomes empty again: retry after an `EAGAIN`. */
  drain: () => void;
  /**
   * A debug message, while debugging is on (`setDebug`): `context` is the method or the event that it is about. With a
   * listener, or a callback (`setDebugCallback`), nothing goes to stderr.
   */
  debug: (context: string, message: string) => void;
}

/** The lifecycle of a connection: the one accessor of all the classes that it is built of. */
export let lifecycleOf: (connection: NbdSettings) => Lifecycle;

/** The settings of an {@link NbdConnection}. */
export abstract class NbdSettings extends EventEmitter<NbdConnectionEvents> {
  readonly #lifecycle: Lifecycle;

  static {
    lifecycleOf = (connection) => connection.#lifecycle;
  }

  /** @internal */
  protected constructor(options: NbdConnectionOptions | undefined, platform: ClientPlatform) {
    super();
    this.#lifecycle = new Lifecycle(this, makeSettings(options, platform.unsupported), platform, {
      stateChange: (state, previous) => {
        this.#notify(() => this.emit('stateChange', state, previous));
      },
      close: (error) => {
        this.#notify(() => this.emit('close', error));
      },
      drain: () => {
        this.#notify(() => this.emit('drain'));
      },
      debug: (context, message) => {
        const isHeard = this.listenerCount('debug') > 0;
        if (isHeard) this.#notify(() => this.emit('debug', context, message));
        return isHeard;
      },
    });
  }

  /** The exception of a listener becomes an uncaught exception; it never interrupts the connection. */
  #notify(emit: () => unknown): void {
    try {
      emit();
    } catch (error) {
      throwLater(error);
    }
  }

  #check(method: string, permitted: Permission): void {
    checkState(method, this.#lifecycle.phase, permitted, this.#lifecycle.error);
  }

  #set(method: string, name: keyof NbdConnectionOptions, value: unknown, permitted?: Permission): void {
    if (permitted !== undefined) this.#check(method, permitted);
    assign(this.#lifecycle.settings, name, value, method);
  }

  // ── Settings ──────────────────────────────────────────────────────────────────────────────────────────────────
  // Each is also a constructor option. An invalid value throws NbdStrictError and the old value stays.

  /** Names the export to open (libnbd: `nbd_set_export_name`). Allowed before connecting, and in option mode. */
  setExportName(name: string): void {
    this.#check('setExportName', WHEN_CREATED_OR_NEGOTIATING);
    const before = this.#lifecycle.settings.exportName;
    assign(this.#lifecycle.settings, 'exportName', name, 'setExportName');
    if (name !== before) this.#lifecycle.session?.forgetExport();
  }

  /** The export name that was asked for (libnbd: `nbd_get_export_name`). */
  getExportName(): string {
    return this.#lifecycle.settings.exportName;
  }

  /**
   * Chooses what is checked before a command is sent (libnbd: `nbd_set_strict_mode`): `STRICT_*` bits. Allowed at any
   * time; commands that wait already are not affected.
   *
   * @throws NbdStrictError `EINVAL` for an unknown bit.
   */
  setStrictMode(flags: number): void {
    assign(this.#lifecycle.settings, 'strictMode', flags, 'setStrictMode');
    this.#lifecycle.setStrictMode(flags);
  }

  /** The `STRICT_*` bits in force (libnbd: `nbd_get_strict_mode`). */
  getStrictMode(): number {
    return this.#lifecycle.settings.strictMode;
  }

  /**
   * Stops after the first options, so that `opt*` can be called (libnbd: `nbd_set_opt_mode`). Set it before connecting.
   */
  setOptMode(enable: boolean): void {
    this.#set('setOptMode', 'optMode', enable, WHEN_CREATED);
  }

  /** As set; false by default (libnbd: `nbd_get_opt_mode`). */
  getOptMode(): boolean {
    return this.#lifecycle.settings.optMode;
  }

  /** Whether to ask for the canonical name and the description as well (libnbd: `nbd_set_full_info`). */
  setFullInfo(request: boolean): void {
    this.#set('setFullInfo', 'fullInfo', request, WHEN_CREATED_OR_NEGOTIATING);
  }

  /** As set; false by default (libnbd: `nbd_get_full_info`). */
  getFullInfo(): boolean {
    return this.#lifecycle.settings.fullInfo;
  }

  /** Whether to ask for block sizes (libnbd: `nbd_set_request_block_size`). */
  setRequestBlockSize(request: boolean): void {
    this.#set('setRequestBlockSize', 'requestBlockSize', request, WHEN_CREATED_OR_NEGOTIATING);
  }

  /** As set; true by default (libnbd: `nbd_get_request_block_size`). */
  getRequestBlockSize(): boolean {
    return this.#lifecycle.settings.requestBlockSize;
  }

  /** Whether to ask for the contexts that were added (libnbd: `nbd_set_request_meta_context`). */
  setRequestMetaContext(request: boolean): void {
    this.#set('setRequestMetaContext', 'requestMetaContext', request, WHEN_CREATED_OR_NEGOTIATING);
  }

  /** As set; true by default (libnbd: `nbd_get_request_meta_context`). */
  getRequestMetaContext(): boolean {
    return this.#lifecycle.settings.requestMetaContext;
  }

  /** Whether to ask for structured replies (libnbd: `nbd_set_request_structured_replies`). Set it before connecting. */
  setRequestStructuredReplies(request: boolean): void {
    this.#set('setRequestStructuredReplies', 'requestStructuredReplies', request, WHEN_CREATED);
  }

  /** As set; true by default (libnbd: `nbd_get_request_structured_replies`). */
  getRequestStructuredReplies(): boolean {
    return this.#lifecycle.settings.requestStructuredReplies;
  }

  /** Whether to ask for extended headers (libnbd: `nbd_set_request_extended_headers`). Set it before connecting. */
  setRequestExtendedHeaders(request: boolean): void {
    this.#set('setRequestExtendedHeaders', 'requestExtendedHeaders', request, WHEN_CREATED);
  }

  /** As set; true by default (libnbd: `nbd_get_request_extended_headers`). */
  getRequestExtendedHeaders(): boolean {
    return this.#lifecycle.settings.requestExtendedHeaders;
  }

  /** Which `HANDSHAKE_FLAG_*` may be used (libnbd: `nbd_set_handshake_flags`). Set it before connecting. */
  setHandshakeFlags(flags: number): void {
    this.#set('setHandshakeFlags', 'handshakeFlags', flags, WHEN_CREATED);
  }

  /** As set; all by default (libnbd: `nbd_get_handshake_flags`). */
  getHandshakeFlags(): number {
    return this.#lifecycle.settings.handshakeFlags;
  }

  /**
   * Opens the export with NBD_OPT_EXPORT_NAME and sends no other option, except NBD_OPT_STARTTLS for TLS. For old
   * servers that hang up at NBD_OPT_GO. libnbd has no such setting. Set it before connecting.
   */
  setExportNameOnly(only: boolean): void {
    this.#set('setExportNameOnly', 'exportNameOnly', only, WHEN_CREATED);
  }

  /** As set; false by default. */
  getExportNameOnly(): boolean {
    return this.#lifecycle.settings.exportNameOnly;
  }

  /** Whether debug messages are emitted (libnbd: `nbd_set_debug`). */
  setDebug(debug: boolean): void {
    this.#set('setDebug', 'debug', debug);
    this.#lifecycle.debug.enabled = debug;
  }

  /** As set; by default whether the variable LIBNBD_DEBUG is `1` (libnbd: `nbd_get_debug`). */
  getDebug(): boolean {
    return this.#lifecycle.settings.debug;
  }

  /** Sends debug messages to `callback` instead of stderr (libnbd: `nbd_set_debug_callback`). */
  setDebugCallback(callback: DebugCallback): void {
    this.#lifecycle.debug.callback = toCallback(callback, 'setDebugCallback', 'callback');
  }

  /** Sends debug messages to stderr again (libnbd: `nbd_clear_debug_callback`). */
  clearDebugCallback(): void {
    this.#lifecycle.debug.callback = null;
  }

  /** `nbd-sdk` (libnbd: `nbd_get_package_name`). */
  getPackageName(): string {
    return PACKAGE_NAME;
  }

  /** The version of this package (libnbd: `nbd_get_version`). */
  getVersion(): string {
    return VERSION;
  }

  /** What a distributor adds to the version: an empty string (libnbd: `nbd_get_version_extra`). */
  getVersionExtra(): string {
    return '';
  }

  /** True: TLS is supported, in Node (libnbd: `nbd_supports_tls`). False in `nbd-sdk/web`, where `wss:` has it. */
  supportsTls(): boolean {
    return this.#lifecycle.platform.supportsTls;
  }

  /** True on Linux, where a helper program connects to AF_VSOCK (libnbd: `nbd_supports_vsock`). */
  supportsVsock(): boolean {
    return this.#lifecycle.platform.supportsVsock;
  }

  /** Always true: URIs are supported (libnbd: `nbd_supports_uri`). */
  supportsUri(): boolean {
    return true;
  }

  /** A name for messages and debugging (libnbd: `nbd_set_handle_name`). */
  setHandleName(name: string): void {
    this.#set('setHandleName', 'handleName', name);
  }

  /** As set; `nbd1`, `nbd2` … by default (libnbd: `nbd_get_handle_name`). */
  getHandleName(): string {
    return this.#lifecycle.settings.handleName;
  }

  /** Whether reads clear the caller's buffer first (libnbd: `nbd_set_pread_initialize`). */
  setPreadInitialize(request: boolean): void {
    this.#set('setPreadInitialize', 'preadInitialize', request);
  }

  /** As set; true by default (libnbd: `nbd_get_pread_initialize`). */
  getPreadInitialize(): boolean {
    return this.#lifecycle.settings.preadInitialize;
  }

  /**
   * Adds a metadata context to ask for, such as `base:allocation` (libnbd: `nbd_add_meta_context`). Call it before
   * connecting.
   */
  addMetaContext(name: string): void {
    this.#check('addMetaContext', WHEN_CREATED_OR_NEGOTIATING);
    const { settings } = this.#lifecycle;
    settings.metaContexts = [...settings.metaContexts, checkName('addMetaContext', name)];
  }

  /** Removes all contexts that were added (libnbd: `nbd_clear_meta_contexts`). */
  clearMetaContexts(): void {
    this.#check('clearMetaContexts', WHEN_CREATED_OR_NEGOTIATING);
    this.#lifecycle.settings.metaContexts = [];
  }

  /** How many contexts were added (libnbd: `nbd_get_nr_meta_contexts`). */
  getNrMetaContexts(): number {
    return this.#lifecycle.settings.metaContexts.length;
  }

  /** The i-th context that was added, from 0 (libnbd: `nbd_get_meta_context`). */
  getMetaContext(i: number): string {
    const name = this.#lifecycle.settings.metaContexts[i];
    if (name !== undefined) return name;
    throw new NbdStrictError(`getMetaContext: there is no context ${i}`, { code: 'EINVAL', syscall: 'getMetaContext' });
  }
}
