// What a server offers in the handshake, and the session that results: plain data, without backends or sockets.

import { Buffer } from '../../util/buffer.js';
import type { U64 } from '../../util/u64.js';
import * as c from '../constants.js';
import { printable } from '../names.js';
import type { ReplyStyle } from '../reply-encoder.js';
import type { Handshake } from './effects.js';

/** The error replies to an option, by the protocol's names without `NBD_REP_ERR_`. */
export type OptionRefusal =
  | 'UNSUP'
  | 'POLICY'
  | 'INVALID'
  | 'PLATFORM'
  | 'TLS_REQD'
  | 'UNKNOWN'
  | 'SHUTDOWN'
  | 'BLOCK_SIZE_REQD'
  | 'TOO_BIG'
  | 'EXT_HEADER_REQD';

export const REFUSALS: Readonly<Record<OptionRefusal, number>> = {
  UNSUP: c.NBD_REP_ERR_UNSUP,
  POLICY: c.NBD_REP_ERR_POLICY,
  INVALID: c.NBD_REP_ERR_INVALID,
  PLATFORM: c.NBD_REP_ERR_PLATFORM,
  TLS_REQD: c.NBD_REP_ERR_TLS_REQD,
  UNKNOWN: c.NBD_REP_ERR_UNKNOWN,
  SHUTDOWN: c.NBD_REP_ERR_SHUTDOWN,
  BLOCK_SIZE_REQD: c.NBD_REP_ERR_BLOCK_SIZE_REQD,
  TOO_BIG: c.NBD_REP_ERR_TOO_BIG,
  EXT_HEADER_REQD: c.NBD_REP_ERR_EXT_HEADER_REQD,
};

/**
 * True: served. False: refused with NBD_REP_ERR_UNSUP, as by an old server. Any other value: refused with that error.
 */
export type Feature = boolean | OptionRefusal;

/** Which options of the fixed newstyle handshake are served. */
export interface HandshakeFeatures {
  /** NBD_OPT_EXPORT_NAME; it cannot be refused with an error, so anything but true closes the connection. */
  readonly exportName: Feature;
  /** NBD_OPT_ABORT; anything but true closes without the acknowledgement, as old servers did. */
  readonly abort: Feature;
  /** NBD_OPT_LIST. */
  readonly list: Feature;
  /** NBD_OPT_INFO. */
  readonly info: Feature;
  /** NBD_OPT_GO. */
  readonly go: Feature;
  /** NBD_OPT_STRUCTURED_REPLY. */
  readonly structuredReply: Feature;
  /** NBD_OPT_EXTENDED_HEADERS. */
  readonly extendedHeaders: Feature;
  /** NBD_OPT_LIST_META_CONTEXT. */
  readonly listMetaContext: Feature;
  /** NBD_OPT_SET_META_CONTEXT. */
  readonly setMetaContext: Feature;
  /** Whether NBD_INFO_BLOCK_SIZE is sent to clients that ask for it. */
  readonly blockSizeInfo: boolean;
  /** Whether NBD_INFO_NAME and NBD_INFO_DESCRIPTION are sent to clients that ask for it. */
  readonly nameInfo: boolean;
}

/** What has been negotiated so far; NBD_OPT_STARTTLS discards all of it. */
export interface NegotiationState {
  structured: boolean;
  extended: boolean;
  /** The export named by the last NBD_OPT_SET_META_CONTEXT that succeeded, and what it selected. */
  contexts: { readonly exportName: string; readonly names: readonly string[] } | null;
}

/** One export, as the handshake presents it. */
export interface ExportOffer {
  readonly name: string;
  readonly description: string;
  readonly size: U64;
  readonly blockSize: { readonly minimum: number; readonly preferred: number; readonly maximum: number };
  /** Refuses clients that do not ask for the block sizes. */
  readonly requireBlockSize: boolean;
  /** Neither listed nor served without TLS. */
  readonly requireTls: boolean;
  /** Names of its metadata contexts; those with 64-bit flags only with extended headers. */
  contextNames(extended: boolean): readonly string[];
  /** NBD_FLAG_* for a client that has negotiated this style and contexts. */
  transmissionFlags(style: ReplyStyle, hasContexts: boolean): number;
}

export interface ServerOffer<E extends ExportOffer> {
  readonly style: 'newstyle' | 'oldstyle';
  readonly fixedNewstyle: boolean;
  readonly noZeroes: boolean;
  readonly features: HandshakeFeatures;
  readonly tls: 'off' | 'on' | 'require';
  /** More options than this end the connection. */
  readonly maxOptions: number;
  /** The exports to list. */
  exports(): Iterable<E>;
  /** The export of that name; '' is the default export. */
  find(name: string): E | undefined;
  /**
   * Prepares the export of that name, for find(), and then calls `ready` (also when there is none, or none can be made).
   * Without this method there are the exports that find() knows.
   */
  prepare?(name: string, ready: () => void): void;
  /** Why the export could not be prepared: the error reply, and its text. */
  refusal?(name: string): readonly [OptionRefusal, string] | undefined;
}

/** Finds an export, which the server may have to make first. */
export function* findExport<E extends ExportOffer>(offer: ServerOffer<E>, name: string): Handshake<E | undefined> {
  if (offer.prepare !== undefined) {
    yield (resume) => {
      offer.prepare?.(name, resume);
    };
  }
  return offer.find(name);
}

/** The error reply to an option that names an export which find() does not return. */
export const refusalOfName = (offer: ServerOffer<ExportOffer>, name: Uint8Array): readonly [OptionRefusal, string] =>
  offer.refusal?.(Buffer.from(name).toString()) ?? ['UNKNOWN', `no export is named '${printable(name, 256)}'`];

/** The session that the transmission phase starts with. */
export interface ServedSession<E extends ExportOffer> {
  readonly export: E;
  readonly style: ReplyStyle;
  /** The transmission flags that were sent to the client. */
  readonly flags: number;
  /** Metadata contexts by ID. */
  readonly contexts: ReadonlyMap<number, string>;
}

export const styleOf = (state: NegotiationState): ReplyStyle =>
  state.extended ? 'extended' : state.structured ? 'structured' : 'simple';

/** IDs of the selected contexts: 1, 2 and so on in the order of selection, as in the replies to SET_META_CONTEXT. */
export function contextIds(names: readonly string[]): ReadonlyMap<number, string> {
  return new Map(names.map((name, index) => [index + 1, name]));
}
