// What the handshake told about an export: plain data, made by the handshake, read by strict checks and getters.

import type { U64 } from '../util/u64.js';
import * as c from './constants.js';

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/** The size, flags and limits of one export. */
export interface ExportInfo {
  readonly size: U64;
  /** NBD_FLAG_* transmission flags, with the false claims masked. */
  readonly flags: number;
  /** Null when the server advertised no limits or a triple that breaks the protocol's rules. */
  readonly blockSizes: BlockSizes | null;
  /** Null unless the server gave one (NBD_INFO_NAME, NBD_INFO_DESCRIPTION; asked for by full info). */
  readonly canonicalName: string | null;
  readonly description: string | null;
}

/** What was negotiated besides the export: how replies look and which contexts block status reports. */
export interface Negotiated {
  structuredReplies: boolean;
  extendedHeaders: boolean;
  tls: boolean;
  /** Null while the contexts are open: none was asked for yet. Empty where the server has none, or refused. */
  contexts: ReadonlyMap<number, string> | null;
}

/** `oldstyle`, `newstyle` or `newstyle-fixed`, as libnbd's nbd_get_protocol says it. */
export type ProtocolName = 'oldstyle' | 'newstyle' | 'newstyle-fixed';

const isPowerOf2 = (n: number): boolean => n > 0 && Number.isInteger(Math.log2(n));

/**
 * A block-size triple as it may be used, or null: one that breaks the protocol's rules is ignored as a whole, as
 * libnbd does, so that no later arithmetic meets a zero or an odd alignment.
 */
export function acceptBlockSizes(minimum: number, preferred: number, maximum: number): BlockSizes | null {
  const valid =
    isPowerOf2(minimum) &&
    minimum <= 65536 &&
    isPowerOf2(preferred) &&
    preferred >= 512 &&
    minimum <= preferred &&
    preferred <= maximum &&
    (maximum === 0xffff_ffff || maximum % minimum === 0);
  return valid ? { minimum, preferred, maximum } : null;
}

/** The flags less those that cannot be true: DF without structured replies, FAST_ZERO without zero, and so on. */
export function maskFlags(flags: number, negotiated: Negotiated): number {
  let masked = flags;
  if (!negotiated.structuredReplies) masked &= ~c.NBD_FLAG_SEND_DF;
  if (!negotiated.extendedHeaders) masked &= ~c.NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  if ((flags & c.NBD_FLAG_SEND_WRITE_ZEROES) === 0) masked &= ~c.NBD_FLAG_SEND_FAST_ZERO;
  return masked;
}

const MIB = 1024 * 1024;

/** Longest payload of one read or write: libnbd's LIBNBD_SIZE_PAYLOAD. */
export function payloadLimit(blockSizes: BlockSizes | null): number {
  if (blockSizes === null) return 32 * MIB;
  return Math.min(Math.max(blockSizes.maximum, MIB), c.MAX_PAYLOAD);
}
