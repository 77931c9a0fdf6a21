// The server's half of the options that show or choose an export: LIST, INFO, GO and EXPORT_NAME.

import { Buffer } from '../../util/buffer.js';
import * as c from '../constants.js';
import type { Handshake } from './effects.js';
import { encodeOptionReply, refuse } from './serve-option.js';
import {
  contextIds,
  type ExportOffer,
  findExport,
  type NegotiationState,
  refusalOfName,
  type ServedSession,
  type ServerOffer,
  styleOf,
} from './serve-offer.js';

/** The export, the style of the session's replies, and the contexts that were selected for this name. */
export function openSession<E extends ExportOffer>(
  exportOffer: E,
  name: string,
  state: NegotiationState,
): ServedSession<E> {
  const style = styleOf(state);
  const names = state.contexts?.exportName === name ? state.contexts.names : [];
  return {
    export: exportOffer,
    style,
    flags: exportOffer.transmissionFlags(style, names.length > 0),
    contexts: contextIds(names),
  };
}

/** The whole answer to NBD_OPT_EXPORT_NAME: size, flags and, unless the client declined them, 124 zeroes. */
export function encodeExportNameReply(session: ServedSession<ExportOffer>, zeroes: boolean): Buffer {
  const bytes = Buffer.alloc(zeroes ? 134 : 10);
  bytes.writeBigUInt64BE(BigInt(session.export.size), 0);
  bytes.writeUInt16BE(session.flags, 8);
  return bytes;
}

export function* serveList<E extends ExportOffer>(offer: ServerOffer<E>, secure: boolean): Handshake<void> {
  for (const entry of offer.exports()) {
    if (entry.requireTls && !secure) continue;
    const name = Buffer.from(entry.name);
    const description = Buffer.from(entry.description);
    const data = Buffer.alloc(4 + name.length + description.length);
    data.writeUInt32BE(name.length, 0);
    data.set(name, 4);
    data.set(description, 4 + name.length);
    yield encodeOptionReply(c.NBD_OPT_LIST, c.NBD_REP_SERVER, data);
  }
  yield encodeOptionReply(c.NBD_OPT_LIST, c.NBD_REP_ACK);
}

/** INFO and GO. Returns the session that GO opens, or null after sending an error. */
export function* serveInfo<E extends ExportOffer>(
  option: number,
  data: Buffer,
  offer: ServerOffer<E>,
  state: NegotiationState,
  secure: boolean,
): Handshake<ServedSession<E> | null> {
  const request = decodeInfoRequest(data);
  if (typeof request === 'string') {
    yield* refuse(option, request === TOO_LONG ? 'TOO_BIG' : 'INVALID', request);
    return null;
  }
  const { name, wanted } = request;
  const entry = yield* findExport(offer, name.toString('utf8'));
  if (entry === undefined) {
    yield* refuse(option, ...refusalOfName(offer, name));
    return null;
  }
  if (entry.requireTls && !secure) {
    yield* refuse(option, 'TLS_REQD', 'this export needs TLS');
    return null;
  }
  const session = openSession(entry, name.toString('utf8'), state);
  const refused = entry.requireBlockSize && !wanted.has(c.NBD_INFO_BLOCK_SIZE);
  if (!refused) yield information(option, c.NBD_INFO_EXPORT, encodeExportNameReply(session, false));
  if (offer.features.nameInfo) {
    if (wanted.has(c.NBD_INFO_NAME)) yield information(option, c.NBD_INFO_NAME, Buffer.from(entry.name));
    if (wanted.has(c.NBD_INFO_DESCRIPTION) && entry.description !== '') {
      yield information(option, c.NBD_INFO_DESCRIPTION, Buffer.from(entry.description));
    }
  }
  // A client that is refused because it did not ask for block sizes receives them too, which saves it a round trip.
  if (refused || (offer.features.blockSizeInfo && wanted.has(c.NBD_INFO_BLOCK_SIZE))) {
    const sizes = Buffer.alloc(12);
    sizes.writeUInt32BE(entry.blockSize.minimum, 0);
    sizes.writeUInt32BE(entry.blockSize.preferred, 4);
    sizes.writeUInt32BE(entry.blockSize.maximum, 8);
    yield information(option, c.NBD_INFO_BLOCK_SIZE, sizes);
  }
  if (refused) {
    yield* refuse(option, 'BLOCK_SIZE_REQD', 'ask for NBD_INFO_BLOCK_SIZE first');
    return null;
  }
  yield encodeOptionReply(option, c.NBD_REP_ACK);
  return session;
}

function information(option: number, type: number, payload: Uint8Array): Buffer {
  const data = Buffer.alloc(2 + payload.length);
  data.writeUInt16BE(type, 0);
  data.set(payload, 2);
  return encodeOptionReply(option, c.NBD_REP_INFO, data);
}

export const TOO_LONG = 'the export name is longer than 4096 bytes';

/** The name and the requested information types, or why the data is not a valid request. */
function decodeInfoRequest(data: Buffer): { name: Buffer; wanted: ReadonlySet<number> } | string {
  if (data.length < 6) return 'the option is too short';
  const length = data.readUInt32BE(0);
  // Each length is compared with the data before it is used.
  if (length > data.length - 6) return 'the name is longer than the option';
  if (length > c.MAX_STRING) return TOO_LONG;
  const count = data.readUInt16BE(4 + length);
  const at = 6 + length;
  if (data.length - at !== count * 2) return 'the number of information requests is wrong';
  const wanted = new Set<number>();
  for (let i = 0; i < count; i += 1) wanted.add(data.readUInt16BE(at + i * 2));
  return { name: data.subarray(4, 4 + length), wanted };
}
