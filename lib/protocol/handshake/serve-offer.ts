// What a server brings to its half of the handshake, and what comes out of it: plain data, no backends, no sockets.

import type { U64 } from '../../util/u64.js';
import * as c from '../constants.js';
import type { ReplyStyle } from '../reply-encoder.js';

/** The error replies to an option, by the protocol's names less `NBD_REP_ERR_`. */
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

/** True: served. False: refused with NBD_REP_ERR_UNSUP, as by a server that is too old. Else refused with that error. */
export type Feature = boolean | OptionRefusal;

/** Each option of the fixed newstyle handshake, to be served or refused. */
export interface HandshakeFeatures {
  /** NBD_OPT_EXPORT_NAME; it cannot be refused with an error, so anything but true closes the connection. */
  readonly exportName: Feature;
  /** NBD_OPT_ABORT; anything but true closes without the acknowledgement, as servers of old did. */
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
  /** Whether NBD_INFO_BLOCK_SIZE is sent to those who ask. */
  readonly blockSizeInfo: boolean;
  /** Whether NBD_INFO_NAME and NBD_INFO_DESCRIPTION are sent to those who ask. */
  readonly nameInfo: boolean;
}

/** What has been agreed on so far; NBD_OPT_STARTTLS forgets all of it. */
export interface NegotiationState {
  structured: boolean;
  extended: boolean;
  /** The export named by the last NBD_OPT_SET_META_CONTEXT that succeeded, and what it selected. */
  contexts: { readonly exportName: string; readonly names: readonly string[] } | null;
}

/** One export, as the handshake shows it. */
export interface ExportOffer {
  readonly name: string;
  readonly description: string;
  readonly size: U64;
  readonly blockSize: { readonly minimum: number; readonly preferred: number; readonly maximum: number };
  /** Refuses clients that do not ask for the block sizes. */
  readonly requireBlockSize: boolean;
  /** Not shown and not served without TLS. */
  readonly requireTls: boolean;
  /** Names of its metadata contexts, less those with 64-bit flags unless extended headers are on. */
  contextNames(extended: boolean): readonly string[];
  /** NBD_FLAG_* for a client that negotiated this much. */
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
}

/** What the transmission phase starts with. */
export interface ServedSession<E extends ExportOffer> {
  readonly export: E;
  readonly style: ReplyStyle;
  /** The transmission flags that the client was told. */
  readonly flags: number;
  /** Metadata contexts by ID. */
  readonly contexts: ReadonlyMap<number, string>;
}

export const styleOf = (state: NegotiationState): ReplyStyle =>
  state.extended ? 'extended' : state.structured ? 'structured' : 'simple';

/** IDs of the selected contexts: 1, 2 and so on in the order of selection, as the replies to SET_META_CONTEXT said. */
export function contextIds(names: readonly string[]): ReadonlyMap<number, string> {
  return new Map(names.map((name, index) => [index + 1, name]));
}
