// Read-only accessors: what the server reported about the export, the state of the connection, and statistics.

import { NbdError, NbdStateError, NbdStrictError } from '../../errors.js';
import * as s from '../../protocol/client-constants.js';
import * as c from '../../protocol/constants.js';
import { type ExportInfo, payloadLimit, type ProtocolName } from '../../protocol/export-info.js';
import { checkName } from '../options/checks.js';
import { checkState, type ConnectionState, WHEN_INFORMED } from '../state.js';
import { lifecycleOf, NbdSettings } from './settings.js';

/** The facts and the state of an {@link NbdConnection}. */
export abstract class NbdFacts extends NbdSettings {
  // ── Facts about the export ────────────────────────────────────────────────────────────────────────────────────
  // Available while negotiating (once the server has reported them), while connected, and after a clean close.
  // Otherwise they throw NbdStateError: ENOTCONN before connecting, EINVAL after.

  /** Size of the export in bytes (libnbd: `nbd_get_size`). Exact up to 2^64 - 1. */
  getSize(): bigint {
    return BigInt(exportInfo(this, 'getSize').size);
  }

  /**
   * A block-size constraint in bytes (libnbd: `nbd_get_block_size`), 0 where the server advertised none.
   *
   * @param sizeType `SIZE_MINIMUM`, `SIZE_PREFERRED`, `SIZE_MAXIMUM`, or `SIZE_PAYLOAD`: the longest write.
   */
  getBlockSize(sizeType: number): number {
    return blockSize(this, 'getBlockSize', sizeType);
  }

  /** `oldstyle`, `newstyle` or `newstyle-fixed` (libnbd: `nbd_get_protocol`). */
  getProtocol(): ProtocolName {
    return protocolOf(this, 'getProtocol');
  }

  /** Whether replies are structured (libnbd: `nbd_get_structured_replies_negotiated`). */
  getStructuredRepliesNegotiated(): boolean {
    return isNegotiated(this, 'getStructuredRepliesNegotiated', 'structuredReplies');
  }

  /** Whether headers are extended (libnbd: `nbd_get_extended_headers_negotiated`). */
  getExtendedHeadersNegotiated(): boolean {
    return isNegotiated(this, 'getExtendedHeadersNegotiated', 'extendedHeaders');
  }

  /** Whether the connection is encrypted (libnbd: `nbd_get_tls_negotiated`). */
  getTlsNegotiated(): boolean {
    return isNegotiated(this, 'getTlsNegotiated', 'tls');
  }

  /** The server's own name for the export; needs `fullInfo` (libnbd: `nbd_get_canonical_export_name`). */
  getCanonicalExportName(): string {
    return textOf(this, 'getCanonicalExportName', 'canonicalName');
  }

  /** The server's description of the export; needs `fullInfo` (libnbd: `nbd_get_export_description`). */
  getExportDescription(): string {
    return textOf(this, 'getExportDescription', 'description');
  }

  /** Whether writes are refused (libnbd: `nbd_is_read_only`). */
  isReadOnly(): boolean {
    return hasFlag(this, 'isReadOnly', c.NBD_FLAG_READ_ONLY);
  }

  /** Whether the medium rotates, so that order matters (libnbd: `nbd_is_rotational`). */
  isRotational(): boolean {
    return hasFlag(this, 'isRotational', c.NBD_FLAG_ROTATIONAL);
  }

  /** Whether `flush` is supported (libnbd: `nbd_can_flush`). */
  canFlush(): boolean {
    return hasFlag(this, 'canFlush', c.NBD_FLAG_SEND_FLUSH);
  }

  /** Whether `CMD_FLAG_FUA` is supported (libnbd: `nbd_can_fua`). */
  canFua(): boolean {
    return hasFlag(this, 'canFua', c.NBD_FLAG_SEND_FUA);
  }

  /** Whether `trim` is supported (libnbd: `nbd_can_trim`). */
  canTrim(): boolean {
    return hasFlag(this, 'canTrim', c.NBD_FLAG_SEND_TRIM);
  }

  /** Whether `zero` is supported (libnbd: `nbd_can_zero`). */
  canZero(): boolean {
    return hasFlag(this, 'canZero', c.NBD_FLAG_SEND_WRITE_ZEROES);
  }

  /** Whether `CMD_FLAG_FAST_ZERO` is supported (libnbd: `nbd_can_fast_zero`). */
  canFastZero(): boolean {
    return hasFlag(this, 'canFastZero', c.NBD_FLAG_SEND_FAST_ZERO);
  }

  /** Whether `CMD_FLAG_DF` is supported (libnbd: `nbd_can_df`). */
  canDf(): boolean {
    return hasFlag(this, 'canDf', c.NBD_FLAG_SEND_DF);
  }

  /** Whether several connections see the same data (libnbd: `nbd_can_multi_conn`). */
  canMultiConn(): boolean {
    return hasFlag(this, 'canMultiConn', c.NBD_FLAG_CAN_MULTI_CONN);
  }

  /** Whether `cache` is supported (libnbd: `nbd_can_cache`). */
  canCache(): boolean {
    return hasFlag(this, 'canCache', c.NBD_FLAG_SEND_CACHE);
  }

  /** Whether block status takes a filter (libnbd: `nbd_can_block_status_payload`). */
  canBlockStatusPayload(): boolean {
    return hasFlag(this, 'canBlockStatusPayload', c.NBD_FLAG_BLOCK_STATUS_PAYLOAD);
  }

  /**
   * Whether the server agreed to a metadata context (libnbd: `nbd_can_meta_context`). Also false when it cannot: with
   * an older handshake, without structured replies, and after a refusal. Known as soon as `optSetMetaContext` has
   * resolved, before the export is open.
   *
   * @throws NbdStateError `EINVAL` if contexts were added and the server has not been asked for them yet.
   */
  canMetaContext(name: string): boolean {
    return hasContext(this, 'canMetaContext', checkName('canMetaContext', name));
  }

  // ── State ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The state of the connection, as one word: that of the `aioIs*` that is true (libnbd: `nbd_connection_state`). */
  connectionState(): ConnectionState {
    return lifecycleOf(this).state;
  }

  /** Not connecting yet (libnbd: `nbd_aio_is_created`). */
  aioIsCreated(): boolean {
    return lifecycleOf(this).phase === 'created';
  }

  /**
   * Connecting, in the handshake, or waiting for the answer to an option (libnbd: `nbd_aio_is_connecting`): true from
   * `aioConnect*` or `aioOpt*` until its outcome is known.
   */
  aioIsConnecting(): boolean {
    return lifecycleOf(this).phase === 'connecting';
  }

  /** In option mode, no option is pending: `opt*` may be called (libnbd: `nbd_aio_is_negotiating`). */
  aioIsNegotiating(): boolean {
    return lifecycleOf(this).phase === 'negotiating';
  }

  /**
   * Connected, and idle or waiting for replies (libnbd: `nbd_aio_is_ready`): commands may be issued, however many are
   * in flight. {@link NbdConnection.aioInFlight} returns how many there are.
   */
  aioIsReady(): boolean {
    return lifecycleOf(this).state === 'ready';
  }

  /**
   * Connected, with a request partly written or a reply partly read (libnbd: `nbd_aio_is_processing`). Commands may
   * still be issued.
   */
  aioIsProcessing(): boolean {
    return lifecycleOf(this).state === 'processing';
  }

  /** Ended in good order, by either side (libnbd: `nbd_aio_is_closed`). */
  aioIsClosed(): boolean {
    return lifecycleOf(this).phase === 'closed';
  }

  /** Ended by an error (libnbd: `nbd_aio_is_dead`). */
  aioIsDead(): boolean {
    return lifecycleOf(this).phase === 'dead';
  }

  /** Bytes sent, before encryption (libnbd: `nbd_stats_bytes_sent`). */
  statsBytesSent(): bigint {
    return BigInt(lifecycleOf(this).statistics.bytesSent);
  }

  /** Options and commands sent (libnbd: `nbd_stats_chunks_sent`). */
  statsChunksSent(): bigint {
    return BigInt(lifecycleOf(this).statistics.chunksSent);
  }

  /** Bytes received, after decryption (libnbd: `nbd_stats_bytes_received`). */
  statsBytesReceived(): bigint {
    return BigInt(lifecycleOf(this).statistics.bytesReceived);
  }

  /** The greeting, and each reply or chunk of one, received (libnbd: `nbd_stats_chunks_received`). */
  statsChunksReceived(): bigint {
    return BigInt(lifecycleOf(this).statistics.chunksReceived);
  }
}

const unavailable = (method: string, what: string): NbdStateError =>
  new NbdStateError(`${method}: ${what}`, { code: 'EINVAL', syscall: method });

/** What the server reported about the export; throws while it has not. */
function exportInfo(connection: NbdFacts, method: string): ExportInfo {
  const { phase, error, session } = lifecycleOf(connection);
  checkState(method, phase, WHEN_INFORMED, error);
  const info = session?.info;
  if (info == null) throw unavailable(method, 'export information is not available yet: call optGo or optInfo first');
  return info;
}

const hasFlag = (connection: NbdFacts, method: string, flag: number): boolean =>
  (exportInfo(connection, method).flags & flag) !== 0;

type Feature = 'structuredReplies' | 'extendedHeaders' | 'tls';

function isNegotiated(connection: NbdFacts, method: string, feature: Feature): boolean {
  const { phase, error, session } = lifecycleOf(connection);
  checkState(method, phase, WHEN_INFORMED, error);
  return session?.negotiated[feature] ?? false;
}

function protocolOf(connection: NbdFacts, method: string): ProtocolName {
  const { phase, error, session } = lifecycleOf(connection);
  checkState(method, phase, WHEN_INFORMED, error);
  if (session?.protocol == null) throw unavailable(method, 'the server has not sent its greeting yet');
  return session.protocol;
}

function blockSize(connection: NbdFacts, method: string, which: number): number {
  const { blockSizes } = exportInfo(connection, method);
  switch (which) {
    case s.SIZE_MINIMUM:
      return blockSizes?.minimum ?? 0;
    case s.SIZE_PREFERRED:
      return blockSizes?.preferred ?? 0;
    case s.SIZE_MAXIMUM:
      return blockSizes?.maximum ?? 0;
    case s.SIZE_PAYLOAD:
      return payloadLimit(blockSizes);
    default:
      throw new NbdStrictError(`${method}: must be one of SIZE_MINIMUM … SIZE_PAYLOAD, not ${String(which)}`, {
        code: 'EINVAL',
        syscall: method,
      });
  }
}

function textOf(connection: NbdFacts, method: string, which: 'canonicalName' | 'description'): string {
  const text = exportInfo(connection, method)[which];
  if (text === null) {
    throw new NbdError(`${method}: not sent by the server (request it with setFullInfo)`, {
      code: 'ENOTSUP',
      syscall: method,
    });
  }
  return text;
}

function hasContext(connection: NbdFacts, method: string, name: string): boolean {
  const { phase, error, session, settings } = lifecycleOf(connection);
  checkState(method, phase, WHEN_INFORMED, error);
  const contexts = session?.negotiated.contexts;
  if (contexts == null) {
    if (settings.metaContexts.length === 0) return false;
    throw unavailable(
      method,
      'the server has not been asked for the metadata contexts that were added: call optGo, optInfo or ' +
        'optSetMetaContext first, with requestMetaContext on',
    );
  }
  return [...contexts.values()].includes(name);
}
