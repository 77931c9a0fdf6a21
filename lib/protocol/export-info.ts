// Export information from the handshake: plain data, used by strict checks and getters.

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
  /** NBD_FLAG_* transmission flags, with impossible ones masked. */
  readonly flags: number;
  /** Null if the server advertised none, or ones that violate the protocol. */
  readonly blockSizes: BlockSizes | null;
  /** Null unless the server sent one (NBD_INFO_NAME, NBD_INFO_DESCRIPTION; requested by full info). */
  readonly canonicalName: string | null;
  readonly description: string | null;
}

/** What was negotiated besides the export: the format of replies and the contexts that block status reports. */
export interface Negotiated {
  structuredReplies: boolean;
  extendedHeaders: boolean;
  tls: boolean;
  /** Names by context ID. Null until contexts have been requested; empty if the server has none or refused. */
  contexts: ReadonlyMap<number, string> | null;
}

/** `oldstyle`, `newstyle` or `newstyle-fixed`, as returned by libnbd's nbd_get_protocol. */
export type ProtocolName = 'oldstyle' | 'newstyle' | 'newstyle-fixed';

const isPowerOf2 = (n: number): boolean => n > 0 && Number.isInteger(Math.log2(n));

/**
 * The block sizes, or null: as in libnbd, sizes that violate the protocol are ignored as a whole, so that no later
 * arithmetic meets a zero or an odd alignment.
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

/** The flags without impossible ones: DF without structured replies, FAST_ZERO without zero, and so on. */
export function maskFlags(flags: number, negotiated: Negotiated): number {
  let masked = flags;
  if (!negotiated.structuredReplies) masked &= ~c.NBD_FLAG_SEND_DF;
  if (!negotiated.extendedHeaders) masked &= ~c.NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  if ((flags & c.NBD_FLAG_SEND_WRITE_ZEROES) === 0) masked &= ~c.NBD_FLAG_SEND_FAST_ZERO;
  return masked;
}

const MIB = 1024 * 1024;

/** Maximum payload of one read or write: libnbd's LIBNBD_SIZE_PAYLOAD. */
export function payloadLimit(blockSizes: BlockSizes | null): number {
  if (blockSizes === null) return 32 * MIB;
  return Math.min(Math.max(blockSizes.maximum, MIB), c.MAX_PAYLOAD);
}
