// The public face of a connection: documentation, and delegation in a line or two. Every libnbd function nbd_foo_bar
// is the method fooBar.

import { inspect } from 'node:util';
import { EventEmitter } from 'eventemitter3';
import { type NbdError, NbdStrictError } from '../errors.js';
import { type ChunkCallback, type CompletionCallback, type ExtentCallback } from '../protocol/command.js';
import * as spec from '../protocol/commands.js';
import * as c from '../protocol/constants.js';
import { type ProtocolName } from '../protocol/export-info.js';
import { isUri, type NbdUri, parseUri } from '../protocol/uri.js';
import { type Extents } from '../util/extents.js';
import { type Duplex } from 'node:stream';
import { Info } from './info.js';
import { Lifecycle, type Target } from './lifecycle.js';
import { assign, checkName, makeSettings, type NbdConnectionOptions } from './options.js';
import {
  checkState,
  type ConnectionState,
  WHEN_CONNECTED,
  WHEN_CREATED,
  WHEN_CREATED_OR_NEGOTIATING,
  WHEN_STARTED,
} from './state.js';
import { Submission } from './submission.js';
import { namedTarget, type NbdTarget, streamTarget, tcpTarget, unixTarget, uriTarget } from './targets.js';

/** What a connection emits. None of these is needed to use it: every failure also reaches its own caller. */
export interface NbdConnectionEvents {
  /** The state changed. `ready` and `processing` are one state here, reported as `ready`. */
  stateChange: (state: ConnectionState, previous: ConnectionState) => void;
  /** The connection ended, with the error if it did not end by itself. Once, last. */
  close: (error?: NbdError) => void;
  /** No command is waiting any more after some had to: the moment to go on after `EAGAIN`. */
  drain: () => void;
}

/** A 64-bit count or offset in bytes. Numbers must be safe integers from 0; use a bigint above 2^53 - 1. */
export type ByteCount = number | bigint;

/**
 * A connection to one export of an NBD server, in the image of libnbd's `struct nbd_handle`.
 *
 * Every command comes in two forms. The promise form (`cache`) takes an `AbortSignal` and rejects with an
 * {@link NbdError}; it never throws. The raw form (`aioCache`) returns a cookie at once, takes an optional completion
 * callback, and throws what it refuses.
 */
export class NbdConnection extends EventEmitter<NbdConnectionEvents> {
  readonly #lifecycle: Lifecycle;
  readonly #commands: Submission;
  readonly #info: Info;

  /**
   * A connection that is not connected yet (libnbd: `nbd_create`).
   *
   * @throws NbdStrictError `EINVAL` for an unknown or ill-typed option, `ENAMETOOLONG` for a name above 4096 bytes.
   */
  constructor(options?: NbdConnectionOptions) {
    super();
    this.#lifecycle = new Lifecycle(this, makeSettings(options), {
      stateChange: (state, previous) => {
        this.#tell(() => this.emit('stateChange', state, previous));
      },
      close: (error) => {
        this.#tell(() => this.emit('close', error));
      },
      drain: () => {
        this.#tell(() => this.emit('drain'));
      },
    });
    this.#commands = new Submission(this.#lifecycle);
    this.#info = new Info(this.#lifecycle);
  }

  /** A listener that throws is a bug of its own: it surfaces as an uncaught exception, never inside a callback. */
  #tell(emit: () => unknown): void {
    try {
      emit();
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  }

  // ── Connecting ────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * The short way to a ready connection.
   *
   * @param target An NBD URI (`nbd://host/export`, `nbd+unix:///export?socket=PATH`), `{ host, port }`, `{ path }` of
   *   a Unix socket, or any connected Duplex.
   * @param options As for the constructor; `signal` gives up at any moment of it, rejecting with its reason.
   * @throws (rejects) NbdStrictError for bad input; NbdConnectionError with the transport's code (`ECONNREFUSED`,
   *   `ENOENT`, `ENOTFOUND` …) or `ETIMEDOUT`; NbdOptionError when the server refuses (`ENOENT` for an unknown
   *   export, `ENOTSUP` when it requires TLS); NbdProtocolError `EPROTO` when it breaks the protocol.
   */
  static async connect(
    target: NbdTarget,
    options: NbdConnectionOptions & { signal?: AbortSignal } = {},
  ): Promise<NbdConnection> {
    const { signal, ...rest } = options;
    const connection = new NbdConnection(rest);
    if (typeof target === 'string' || target instanceof URL) await connection.connectUri(String(target), signal);
    else await connection.#connect('connect', () => namedTarget('connect', target), signal);
    return connection;
  }

  /**
   * Connects to an NBD URI (libnbd: `nbd_connect_uri`). A name in the URI becomes the export name.
   *
   * @throws (rejects) as {@link NbdConnection.connect}; `EINVAL` for a URI that is none, `ENOTSUP` for a transport
   *   that this version does not have.
   */
  connectUri(uri: string, signal?: AbortSignal): Promise<void> {
    return this.#connect('connectUri', () => this.#applyUri('connectUri', uri), signal);
  }

  /** Connects over TCP (libnbd: `nbd_connect_tcp`). A failure to connect leaves the connection as it was. */
  connectTcp(host: string, port: number | string, signal?: AbortSignal): Promise<void> {
    return this.#connect('connectTcp', () => tcpTarget('connectTcp', host, port), signal);
  }

  /** Connects to a Unix socket (libnbd: `nbd_connect_unix`); `\0name` is an abstract one. */
  connectUnix(path: string, signal?: AbortSignal): Promise<void> {
    return this.#connect('connectUnix', () => unixTarget('connectUnix', path), signal);
  }

  /** Takes over a connected stream (libnbd: `nbd_connect_socket`); it is destroyed with the connection. */
  connectSocket(stream: Duplex, signal?: AbortSignal): Promise<void> {
    return this.#connect('connectSocket', () => streamTarget('connectSocket', stream), signal);
  }

  /** Begins to connect (libnbd: `nbd_aio_connect_uri`); `stateChange`, `close` and `aioIs*` tell how it went. */
  aioConnectUri(uri: string): void {
    this.#begin('aioConnectUri', () => this.#applyUri('aioConnectUri', uri));
  }

  /** Begins to connect over TCP (libnbd: `nbd_aio_connect_tcp`). */
  aioConnectTcp(host: string, port: number | string): void {
    this.#begin('aioConnectTcp', () => tcpTarget('aioConnectTcp', host, port));
  }

  /** Begins to connect to a Unix socket (libnbd: `nbd_aio_connect_unix`). */
  aioConnectUnix(path: string): void {
    this.#begin('aioConnectUnix', () => unixTarget('aioConnectUnix', path));
  }

  /** Begins to take over a connected stream (libnbd: `nbd_aio_connect_socket`). */
  aioConnectSocket(stream: Duplex): void {
    this.#begin('aioConnectSocket', () => streamTarget('aioConnectSocket', stream));
  }

  #connect(method: string, makeTarget: () => Target, signal?: AbortSignal): Promise<void> {
    try {
      this.#check(method, WHEN_CREATED);
      if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
      return this.#lifecycle.connect(makeTarget(), signal);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  #begin(method: string, makeTarget: () => Target): void {
    this.#check(method, WHEN_CREATED);
    // How it went is told by the state and the 'close' event.
    this.#lifecycle.connect(makeTarget()).catch(() => undefined);
  }

  #applyUri(method: string, text: unknown): Target {
    if (typeof text !== 'string') {
      throw new NbdStrictError(`${method}: the URI must be a string`, { code: 'EINVAL', syscall: method });
    }
    const uri: NbdUri = parseUri(text, method);
    const target = uriTarget(method, uri);
    if (uri.tls) {
      throw new NbdStrictError(`${method}: ${uri.scheme} needs TLS, which this version does not have`, {
        code: 'ENOTSUP',
        syscall: method,
      });
    }
    // A URI without a name leaves the name that was set.
    if (uri.exportName !== '') this.#lifecycle.settings.exportName = checkName(method, uri.exportName);
    return target;
  }

  #check(method: string, permitted: Parameters<typeof checkState>[2]): void {
    checkState(method, this.#lifecycle.phase, permitted, this.#lifecycle.error);
  }

  /** Whether the text begins like an NBD URI (libnbd: `nbd_is_uri`). */
  static isUri(text: string): boolean {
    return isUri(text);
  }

  // ── Settings ──────────────────────────────────────────────────────────────────────────────────────────────────
  // Each is also a constructor option. A refused value throws NbdStrictError and leaves the old one.

  /** Names the export to open (libnbd: `nbd_set_export_name`). Before connecting, or in option mode. */
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
   * Chooses what is checked before a command is sent (libnbd: `nbd_set_strict_mode`): `STRICT_*` bits. In any state,
   * at any time; commands that wait already are not affected.
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

  /** Whether reads clear the caller's buffer first (libnbd: `nbd_set_pread_initialize`). */
  setPreadInitialize(request: boolean): void {
    assign(this.#lifecycle.settings, 'preadInitialize', request, 'setPreadInitialize');
  }

  /** As set; true by default (libnbd: `nbd_get_pread_initialize`). */
  getPreadInitialize(): boolean {
    return this.#lifecycle.settings.preadInitialize;
  }

  /** Asks for a metadata context, such as `base:allocation` (libnbd: `nbd_add_meta_context`). Before connecting. */
  addMetaContext(name: string): void {
    this.#check('addMetaContext', WHEN_CREATED_OR_NEGOTIATING);
    const { settings } = this.#lifecycle;
    settings.metaContexts = [...settings.metaContexts, checkName('addMetaContext', name)];
  }

  /** Asks for no context any more (libnbd: `nbd_clear_meta_contexts`). */
  clearMetaContexts(): void {
    this.#check('clearMetaContexts', WHEN_CREATED_OR_NEGOTIATING);
    this.#lifecycle.settings.metaContexts = [];
  }

  /** How many contexts are asked for (libnbd: `nbd_get_nr_meta_contexts`). */
  getNrMetaContexts(): number {
    return this.#lifecycle.settings.metaContexts.length;
  }

  /** The i-th context that is asked for (libnbd: `nbd_get_meta_context`). */
  getMetaContext(i: number): string {
    const name = this.#lifecycle.settings.metaContexts[i];
    if (name !== undefined) return name;
    throw new NbdStrictError(`getMetaContext: there is no context ${i}`, { code: 'EINVAL', syscall: 'getMetaContext' });
  }

  // ── Facts about the export ────────────────────────────────────────────────────────────────────────────────────
  // Readable while negotiating (once the server has told), connected, and after a clean close. Else they throw
  // NbdStateError: ENOTCONN before connecting, EINVAL after.

  /** Size of the export in bytes (libnbd: `nbd_get_size`). Exact up to 2^64 - 1. */
  getSize(): bigint {
    return this.#info.size('getSize');
  }

  /**
   * A block-size constraint in bytes (libnbd: `nbd_get_block_size`), 0 where the server advertised none.
   *
   * @param sizeType `SIZE_MINIMUM`, `SIZE_PREFERRED`, `SIZE_MAXIMUM`, or `SIZE_PAYLOAD`: the longest write.
   */
  getBlockSize(sizeType: number): number {
    return this.#info.blockSize('getBlockSize', sizeType);
  }

  /** `oldstyle`, `newstyle` or `newstyle-fixed` (libnbd: `nbd_get_protocol`). */
  getProtocol(): ProtocolName {
    return this.#info.protocol('getProtocol');
  }

  /** Whether replies are structured (libnbd: `nbd_get_structured_replies_negotiated`). */
  getStructuredRepliesNegotiated(): boolean {
    return this.#info.negotiated('getStructuredRepliesNegotiated', 'structuredReplies');
  }

  /** Whether headers are extended (libnbd: `nbd_get_extended_headers_negotiated`). */
  getExtendedHeadersNegotiated(): boolean {
    return this.#info.negotiated('getExtendedHeadersNegotiated', 'extendedHeaders');
  }

  /** Whether the connection is encrypted (libnbd: `nbd_get_tls_negotiated`). */
  getTlsNegotiated(): boolean {
    return this.#info.negotiated('getTlsNegotiated', 'tls');
  }

  /** The server's own name for the export; needs `fullInfo` (libnbd: `nbd_get_canonical_export_name`). */
  getCanonicalExportName(): string {
    return this.#info.text('getCanonicalExportName', 'canonicalName');
  }

  /** The server's description of the export; needs `fullInfo` (libnbd: `nbd_get_export_description`). */
  getExportDescription(): string {
    return this.#info.text('getExportDescription', 'description');
  }

  /** Whether writes are refused (libnbd: `nbd_is_read_only`). */
  isReadOnly(): boolean {
    return this.#info.flag('isReadOnly', c.NBD_FLAG_READ_ONLY);
  }

  /** Whether the medium rotates, so that order matters (libnbd: `nbd_is_rotational`). */
  isRotational(): boolean {
    return this.#info.flag('isRotational', c.NBD_FLAG_ROTATIONAL);
  }

  /** Whether `flush` is supported (libnbd: `nbd_can_flush`). */
  canFlush(): boolean {
    return this.#info.flag('canFlush', c.NBD_FLAG_SEND_FLUSH);
  }

  /** Whether `CMD_FLAG_FUA` is supported (libnbd: `nbd_can_fua`). */
  canFua(): boolean {
    return this.#info.flag('canFua', c.NBD_FLAG_SEND_FUA);
  }

  /** Whether `trim` is supported (libnbd: `nbd_can_trim`). */
  canTrim(): boolean {
    return this.#info.flag('canTrim', c.NBD_FLAG_SEND_TRIM);
  }

  /** Whether `zero` is supported (libnbd: `nbd_can_zero`). */
  canZero(): boolean {
    return this.#info.flag('canZero', c.NBD_FLAG_SEND_WRITE_ZEROES);
  }

  /** Whether `CMD_FLAG_FAST_ZERO` is supported (libnbd: `nbd_can_fast_zero`). */
  canFastZero(): boolean {
    return this.#info.flag('canFastZero', c.NBD_FLAG_SEND_FAST_ZERO);
  }

  /** Whether `CMD_FLAG_DF` is supported (libnbd: `nbd_can_df`). */
  canDf(): boolean {
    return this.#info.flag('canDf', c.NBD_FLAG_SEND_DF);
  }

  /** Whether several connections see the same data (libnbd: `nbd_can_multi_conn`). */
  canMultiConn(): boolean {
    return this.#info.flag('canMultiConn', c.NBD_FLAG_CAN_MULTI_CONN);
  }

  /** Whether `cache` is supported (libnbd: `nbd_can_cache`). */
  canCache(): boolean {
    return this.#info.flag('canCache', c.NBD_FLAG_SEND_CACHE);
  }

  /** Whether block status takes a filter (libnbd: `nbd_can_block_status_payload`). */
  canBlockStatusPayload(): boolean {
    return this.#info.flag('canBlockStatusPayload', c.NBD_FLAG_BLOCK_STATUS_PAYLOAD);
  }

  /** Whether the server agreed to a metadata context (libnbd: `nbd_can_meta_context`). */
  canMetaContext(name: string): boolean {
    return this.#info.metaContext('canMetaContext', checkName('canMetaContext', name));
  }

  // ── State ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Where the connection is (libnbd: `nbd_connection_state`). */
  connectionState(): ConnectionState {
    return this.#lifecycle.state;
  }

  /** Not connecting yet (libnbd: `nbd_aio_is_created`). */
  aioIsCreated(): boolean {
    return this.#lifecycle.phase === 'created';
  }

  /** Connecting or in the handshake (libnbd: `nbd_aio_is_connecting`). */
  aioIsConnecting(): boolean {
    return this.#lifecycle.phase === 'connecting';
  }

  /** In option mode, waiting for `opt*` calls (libnbd: `nbd_aio_is_negotiating`). */
  aioIsNegotiating(): boolean {
    return this.#lifecycle.phase === 'negotiating';
  }

  /** Connected, nothing in flight (libnbd: `nbd_aio_is_ready`). */
  aioIsReady(): boolean {
    return this.#lifecycle.state === 'ready';
  }

  /** Connected, with commands in flight (libnbd: `nbd_aio_is_processing`). */
  aioIsProcessing(): boolean {
    return this.#lifecycle.state === 'processing';
  }

  /** Ended by either side in good order (libnbd: `nbd_aio_is_closed`). */
  aioIsClosed(): boolean {
    return this.#lifecycle.phase === 'closed';
  }

  /** Ended by an error (libnbd: `nbd_aio_is_dead`). */
  aioIsDead(): boolean {
    return this.#lifecycle.phase === 'dead';
  }

  /** Bytes sent, before encryption (libnbd: `nbd_stats_bytes_sent`). */
  statsBytesSent(): bigint {
    return BigInt(this.#lifecycle.bytesSent);
  }

  /** Options and commands sent (libnbd: `nbd_stats_chunks_sent`). */
  statsChunksSent(): bigint {
    return BigInt(this.#lifecycle.chunksSent);
  }

  /** Bytes received, after decryption (libnbd: `nbd_stats_bytes_received`). */
  statsBytesReceived(): bigint {
    return BigInt(this.#lifecycle.bytesReceived);
  }

  /** The greeting, and each reply or chunk of one, received (libnbd: `nbd_stats_chunks_received`). */
  statsChunksReceived(): bigint {
    return BigInt(this.#lifecycle.chunksReceived);
  }

  // ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────
  // Common to all: refused input rejects (raw: throws) with NbdStrictError, a wrong state with NbdStateError
  // (ENOTCONN before connecting, EINVAL after), a full line with NbdQueueFullError EAGAIN; nothing is then queued and
  // no byte sent. The server's refusal is an NbdCommandError with its errno, and the connection lives. The end of the
  // connection is an NbdConnectionError ENOTCONN with the reason as its cause. An abort rejects with signal.reason.

  /**
   * Asks the server to prefetch a range, so that a later read is fast (libnbd: `nbd_cache`). Success says that the
   * server has taken note, not that the bytes are there.
   *
   * @param count Bytes; up to 2^32 - 1, more with extended headers. Not split.
   * @param flags None is defined: leave it 0.
   * @throws (rejects) `EINVAL` when the server has no cache command ({@link canCache}), `count` is 0, or the range
   *   leaves the export or the server's block size; `ERANGE` when it is too long for one command.
   */
  cache(count: ByteCount, offset: ByteCount, flags = 0, signal?: AbortSignal): Promise<void> {
    return this.#commands.submit(spec.CACHE, count, offset, flags, signal);
  }

  /**
   * Raw form of {@link cache} (libnbd: `nbd_aio_cache`).
   *
   * @param completion Called once when the command has finished; returning `true` retires it.
   * @returns The cookie, from 1n, unique per connection: ask {@link aioCommandCompleted} about it.
   */
  aioCache(count: ByteCount, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.CACHE, count, offset, completion, flags);
  }

  /**
   * Reads `count` bytes (libnbd: `nbd_pread`): up to 64 MiB in one command. All bytes or a rejection, never fewer.
   */
  pread(count: number, offset: ByteCount, flags = 0, signal?: AbortSignal): Promise<Buffer> {
    return this.#commands.read(count, offset, flags, signal);
  }

  /** Reads into the caller's buffer, all of it, without a copy where it is large. It is cleared first. */
  preadInto(buffer: Uint8Array, offset: ByteCount, flags = 0, signal?: AbortSignal): Promise<void> {
    return this.#commands.readInto(buffer, offset, flags, signal);
  }

  /** Raw form of {@link preadInto} (libnbd: `nbd_aio_pread`). The buffer is the connection's until completion. */
  aioPread(buffer: Uint8Array, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.readRaw(buffer, offset, completion, flags);
  }

  /**
   * Reads and tells of every chunk as it arrives (libnbd: `nbd_pread_structured`).
   *
   * @param chunk Gets a view of the bytes, their offset in the export, `READ_DATA`, `READ_HOLE` or `READ_ERROR`, and
   *   the error of the latter. What it throws is what the call rejects with.
   * @param flags `CMD_FLAG_DF` asks for one chunk.
   */
  preadStructured(
    count: number,
    offset: ByteCount,
    chunk: ChunkCallback,
    flags = 0,
    signal?: AbortSignal,
  ): Promise<Buffer> {
    return this.#commands.readStructured(count, offset, chunk, flags, signal);
  }

  /** Raw form of {@link preadStructured} (libnbd: `nbd_aio_pread_structured`). */
  aioPreadStructured(
    buffer: Uint8Array,
    offset: ByteCount,
    chunk: ChunkCallback,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    return this.#commands.readStructuredRaw(buffer, offset, chunk, completion, flags);
  }

  /**
   * Writes the buffer (libnbd: `nbd_pwrite`). It must not change until the promise has settled.
   *
   * @param flags `CMD_FLAG_FUA`: on permanent storage before the promise resolves.
   * @throws (rejects) `EPERM` on a read-only export, `ENOSPC` when the range leaves it.
   */
  pwrite(buffer: Uint8Array, offset: ByteCount, flags = 0, signal?: AbortSignal): Promise<void> {
    return this.#commands.write(buffer, offset, flags, signal);
  }

  /** Raw form of {@link pwrite} (libnbd: `nbd_aio_pwrite`). */
  aioPwrite(buffer: Uint8Array, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.writeRaw(buffer, offset, completion, flags);
  }

  /** Puts every completed write on permanent storage (libnbd: `nbd_flush`). Writes in flight are not covered. */
  flush(flags = 0, signal?: AbortSignal): Promise<void> {
    return this.#commands.submit(spec.FLUSH, 0, 0, flags, signal);
  }

  /** Raw form of {@link flush} (libnbd: `nbd_aio_flush`). */
  aioFlush(completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.FLUSH, 0, 0, completion, flags);
  }

  /** Tells the server that the range is not needed (libnbd: `nbd_trim`); what it reads as then is undefined. */
  trim(count: ByteCount, offset: ByteCount, flags = 0, signal?: AbortSignal): Promise<void> {
    return this.#commands.submit(spec.TRIM, count, offset, flags, signal);
  }

  /** Raw form of {@link trim} (libnbd: `nbd_aio_trim`). */
  aioTrim(count: ByteCount, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.TRIM, count, offset, completion, flags);
  }

  /**
   * Writes zeroes without sending them (libnbd: `nbd_zero`).
   *
   * @param flags `CMD_FLAG_FUA`, `CMD_FLAG_NO_HOLE` (keep it allocated), `CMD_FLAG_FAST_ZERO` (fail with `ENOTSUP`
   *   rather than be slow).
   */
  zero(count: ByteCount, offset: ByteCount, flags = 0, signal?: AbortSignal): Promise<void> {
    return this.#commands.submit(spec.ZERO, count, offset, flags, signal);
  }

  /** Raw form of {@link zero} (libnbd: `nbd_aio_zero`). */
  aioZero(count: ByteCount, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.ZERO, count, offset, completion, flags);
  }

  /**
   * Asks for the extents of a range, with 32-bit lengths and flags (libnbd: `nbd_block_status`). A server may report
   * on less than was asked, never on nothing: go on from where it stopped.
   *
   * Without `extent` it resolves with the extents by context name; with it, `extent` is called once per context and
   * what it throws is what the call rejects with.
   *
   * @param flags `CMD_FLAG_REQ_ONE`: one extent only.
   * @throws (rejects) `ENOTSUP` when no metadata context was negotiated.
   */
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents>>;
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus(count: ByteCount, offset: ByteCount, ...rest: unknown[]): Promise<unknown> {
    return this.#status(spec.BLOCK_STATUS, count, offset, rest);
  }

  /** {@link blockStatus} with 64-bit lengths and flags, as bigint (libnbd: `nbd_block_status_64`). */
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    flags?: number,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus64(count: ByteCount, offset: ByteCount, ...rest: unknown[]): Promise<unknown> {
    return this.#status(spec.BLOCK_STATUS_64, count, offset, rest);
  }

  #status(command: spec.CommandSpec, count: ByteCount, offset: ByteCount, rest: unknown[]): Promise<unknown> {
    if (typeof rest[0] === 'function') {
      const [extent, flags, signal] = rest as [ExtentCallback, number | undefined, AbortSignal | undefined];
      return this.#commands.status(command, count, offset, extent, flags ?? 0, signal);
    }
    const [flags, signal] = rest as [number | undefined, AbortSignal | undefined];
    return this.#commands.statusMap(command, count, offset, flags ?? 0, signal);
  }

  /** Raw form of {@link blockStatus} (libnbd: `nbd_aio_block_status`). */
  aioBlockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    return this.#commands.statusRaw(spec.BLOCK_STATUS, count, offset, extent as ExtentCallback, completion, flags);
  }

  /** Raw form of {@link blockStatus64} (libnbd: `nbd_aio_block_status_64`). */
  aioBlockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    return this.#commands.statusRaw(spec.BLOCK_STATUS_64, count, offset, extent as ExtentCallback, completion, flags);
  }

  // ── Cookies ───────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Whether a raw command has completed (libnbd: `nbd_aio_command_completed`). In any state.
   *
   * @returns true when it succeeded, which retires it; false while it is pending, and for cookies that were never
   *   issued or are retired already.
   * @throws The command's error when it failed, which retires it; NbdStrictError `EINVAL` for cookie 0.
   */
  aioCommandCompleted(cookie: ByteCount): boolean {
    return this.#lifecycle.completions.completed(cookie);
  }

  /**
   * The oldest command that has completed and is not retired (libnbd: `nbd_aio_peek_command_completed`); 0n while
   * commands are in flight and none has completed.
   *
   * @throws NbdStateError `EINVAL` when nothing is in flight and nothing awaits retirement.
   */
  aioPeekCommandCompleted(): bigint {
    return this.#lifecycle.completions.peek(this.#lifecycle.inFlight);
  }

  /**
   * Commands accepted and not completed, waiting ones included (libnbd: `nbd_aio_in_flight`). An aborted command
   * counts until the server has answered it.
   *
   * @throws NbdStateError `ENOTCONN` before connecting, `EINVAL` while connecting.
   */
  aioInFlight(): number {
    this.#check('aioInFlight', WHEN_STARTED);
    return this.#lifecycle.inFlight;
  }

  // ── Ending ────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Graceful end (libnbd: `nbd_shutdown`): refuses new commands, lets those in flight settle, tells the server
   * (NBD_CMD_DISC) and waits until it has closed, `closeTimeout` at the most. Never rejects; once is enough.
   */
  shutdown(): Promise<void> {
    return this.#lifecycle.shutdown();
  }

  /**
   * Sends NBD_CMD_DISC behind the commands in flight (libnbd: `nbd_aio_disconnect`); `close` tells when it is over.
   * Commands after it are refused.
   */
  aioDisconnect(flags = 0): void {
    this.#check('aioDisconnect', WHEN_CONNECTED);
    this.#lifecycle.disconnectNow('aioDisconnect', flags);
  }

  /** Immediate end: pending commands reject with `ENOTCONN`, nothing is left behind. Idempotent. */
  close(): void {
    this.#lifecycle.close();
  }

  /** {@link shutdown}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#lifecycle.shutdown();
  }

  /** The connection keeps the process alive again, after {@link unref}. */
  ref(): this {
    this.#lifecycle.ref();
    return this;
  }

  /** An idle connection alone does not keep the process alive; one with commands in flight does. */
  unref(): this {
    this.#lifecycle.unref();
    return this;
  }

  /** @internal */
  [inspect.custom](_depth: number, options: object): string {
    const { settings, session, state, inFlight, target } = this.#lifecycle;
    const facts = {
      state,
      target: target?.description,
      exportName: settings.exportName,
      size: session?.info == null ? undefined : BigInt(session.info.size),
      inFlight,
    };
    const shown = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
    return `NbdConnection ${inspect(shown, options)}`;
  }
}
