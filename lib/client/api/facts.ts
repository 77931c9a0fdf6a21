// What a connection has learnt of its export and where it is: getters only.

import * as c from '../../protocol/constants.js';
import type { ProtocolName } from '../../protocol/export-info.js';
import { checkName } from '../options/checks.js';
import { lifecycleOf, NbdHandle } from './settings.js';
import { Info } from './info.js';
import type { Lifecycle } from '../lifecycle.js';
import type { NbdConnectionOptions } from '../options/options.js';
import type { ConnectionState } from '../state.js';

/** The facts and the state of an {@link NbdConnection}. */
export abstract class NbdFacts extends NbdHandle {
  readonly #lifecycle: Lifecycle;
  readonly #info: Info;

  protected constructor(options?: NbdConnectionOptions) {
    super(options);
    this.#lifecycle = lifecycleOf(this);
    this.#info = new Info(this.#lifecycle);
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

  /**
   * Whether the server agreed to a metadata context (libnbd: `nbd_can_meta_context`). False also where it cannot: with
   * an older handshake, without structured replies, and after it has refused. Known as soon as `optSetMetaContext` has
   * resolved, before the export is open.
   *
   * @throws NbdStateError `EINVAL` where contexts were added and the server has not been asked for them yet.
   */
  canMetaContext(name: string): boolean {
    return this.#info.metaContext('canMetaContext', checkName('canMetaContext', name));
  }

  // ── State ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Where the connection is, as one word: the `aioIs*` that is true (libnbd: `nbd_connection_state`). */
  connectionState(): ConnectionState {
    return this.#lifecycle.state;
  }

  /** Not connecting yet (libnbd: `nbd_aio_is_created`). */
  aioIsCreated(): boolean {
    return this.#lifecycle.phase === 'created';
  }

  /**
   * Connecting, in the handshake, or waiting for the answer to an option (libnbd: `nbd_aio_is_connecting`): while it is
   * true after `aioConnect*` or `aioOpt*`, there is nothing to do but wait.
   */
  aioIsConnecting(): boolean {
    return this.#lifecycle.phase === 'connecting';
  }

  /** In option mode, no option is pending: `opt*` may be called (libnbd: `nbd_aio_is_negotiating`). */
  aioIsNegotiating(): boolean {
    return this.#lifecycle.phase === 'negotiating';
  }

  /**
   * Connected, and idle or waiting for replies (libnbd: `nbd_aio_is_ready`): commands may be issued, however many are
   * in flight. Whether there are any is {@link NbdConnection.aioInFlight}.
   */
  aioIsReady(): boolean {
    return this.#lifecycle.state === 'ready';
  }

  /**
   * Connected, with a request partly written or a reply partly read (libnbd: `nbd_aio_is_processing`). Commands may be
   * issued all the same.
   */
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
    return BigInt(this.#lifecycle.statistics.bytesSent);
  }

  /** Options and commands sent (libnbd: `nbd_stats_chunks_sent`). */
  statsChunksSent(): bigint {
    return BigInt(this.#lifecycle.statistics.chunksSent);
  }

  /** Bytes received, after decryption (libnbd: `nbd_stats_bytes_received`). */
  statsBytesReceived(): bigint {
    return BigInt(this.#lifecycle.statistics.bytesReceived);
  }

  /** The greeting, and each reply or chunk of one, received (libnbd: `nbd_stats_chunks_received`). */
  statsChunksReceived(): bigint {
    return BigInt(this.#lifecycle.statistics.chunksReceived);
  }
}
