// The server's half of the handshake, as a coroutine. It returns the session, or null when the client aborts, and
// throws NbdProtocolError if the connection must be closed. Every length is checked before it is used, and nothing that
// was negotiated before TLS is kept after it.

import { Buffer } from '../../util/buffer.js';
import { NbdProtocolError } from '../../errors.js';
import * as c from '../constants.js';
import { optionName } from '../names.js';
import { type Handshake, skip, START_TLS } from './effects.js';
import { encodeExportNameReply, openSession, serveInfo, serveList } from './serve-export.js';
import { serveMetaContext } from './serve-meta-context.js';
import { encodeOptionReply, MAX_OPTION_DATA, MAX_OPTION_LENGTH, readData, refuse } from './serve-option.js';
import {
  type ExportOffer,
  type Feature,
  findExport,
  type HandshakeFeatures,
  type NegotiationState,
  type OptionRefusal,
  type ServedSession,
  type ServerOffer,
} from './serve-offer.js';

const FEATURE_OF: ReadonlyMap<number, keyof HandshakeFeatures> = new Map([
  [c.NBD_OPT_LIST, 'list'],
  [c.NBD_OPT_INFO, 'info'],
  [c.NBD_OPT_GO, 'go'],
  [c.NBD_OPT_STRUCTURED_REPLY, 'structuredReply'],
  [c.NBD_OPT_EXTENDED_HEADERS, 'extendedHeaders'],
  [c.NBD_OPT_LIST_META_CONTEXT, 'listMetaContext'],
  [c.NBD_OPT_SET_META_CONTEXT, 'setMetaContext'],
]);

/** Options that "MUST NOT send any additional data". */
const WITHOUT_DATA: ReadonlySet<number> = new Set([
  c.NBD_OPT_LIST,
  c.NBD_OPT_STARTTLS,
  c.NBD_OPT_STRUCTURED_REPLY,
  c.NBD_OPT_EXTENDED_HEADERS,
]);

const fresh = (): NegotiationState => ({ structured: false, extended: false, contexts: null });

export function* serve<E extends ExportOffer>(offer: ServerOffer<E>): Handshake<ServedSession<E> | null> {
  if (offer.style === 'oldstyle') return yield* serveOldstyle(offer);
  yield greeting(offer);
  const zeroes = readClientFlags(offer, (yield 4).readUInt32BE(0));

  let state = fresh();
  let secure = false;
  for (let options = 1; ; options += 1) {
    const header = yield 16;
    if (options > offer.maxOptions) throw violation(`more than ${String(offer.maxOptions)} options`);
    if (header.readUInt32BE(0) !== c.NBD_IHAVEOPT_HIGH || header.readUInt32BE(4) !== c.NBD_IHAVEOPT_LOW) {
      throw violation(`option magic 0x${header.toString('hex', 0, 8)}`);
    }
    const option = header.readUInt32BE(8);
    const length = header.readUInt32BE(12);
    if (length > MAX_OPTION_LENGTH) throw violation(`${optionName(option)} of ${String(length)} bytes`);

    if (option === c.NBD_OPT_EXPORT_NAME) return yield* serveExportName(offer, length, state, secure, zeroes);
    if (!offer.fixedNewstyle) throw violation(`${optionName(option)} without the fixed newstyle handshake`);
    if (option === c.NBD_OPT_ABORT) {
      yield* skip(length);
      if (offer.features.abort === true) yield encodeOptionReply(option, c.NBD_REP_ACK);
      return null;
    }
    const refusal = refusalOf(offer, option, length, secure);
    if (refusal !== null) {
      // It replaces what was set before "including when this command fails", for whatever reason.
      if (option === c.NBD_OPT_SET_META_CONTEXT) state.contexts = null;
      yield* skip(length);
      yield* refuse(option, ...refusal);
      continue;
    }
    if (option === c.NBD_OPT_STARTTLS) {
      yield encodeOptionReply(option, c.NBD_REP_ACK);
      yield START_TLS;
      secure = true;
      state = fresh();
      continue;
    }
    const session = yield* serveOption(offer, option, yield* readData(length), state, secure);
    if (session !== null) return session;
  }
}

/** Every option that may be followed by another; a session only after GO. */
function* serveOption<E extends ExportOffer>(
  offer: ServerOffer<E>,
  option: number,
  data: Buffer,
  state: NegotiationState,
  secure: boolean,
): Handshake<ServedSession<E> | null> {
  switch (option) {
    case c.NBD_OPT_LIST:
      yield* serveList(offer, secure);
      return null;
    case c.NBD_OPT_STRUCTURED_REPLY:
      if (state.extended) {
        yield* refuse(option, 'EXT_HEADER_REQD', 'extended headers are on already');
        return null;
      }
      state.structured = true;
      yield encodeOptionReply(option, c.NBD_REP_ACK);
      return null;
    case c.NBD_OPT_EXTENDED_HEADERS:
      state.extended = true;
      yield encodeOptionReply(option, c.NBD_REP_ACK);
      return null;
    case c.NBD_OPT_LIST_META_CONTEXT:
    case c.NBD_OPT_SET_META_CONTEXT:
      yield* serveMetaContext(option, data, offer, state, secure);
      return null;
    default: {
      const session = yield* serveInfo(option, data, offer, state, secure);
      return option === c.NBD_OPT_GO ? session : null;
    }
  }
}

/** Why an option is refused before its data is read: the error and its text. */
function refusalOf<E extends ExportOffer>(
  offer: ServerOffer<E>,
  option: number,
  length: number,
  secure: boolean,
): [OptionRefusal, string] | null {
  const startsTls = option === c.NBD_OPT_STARTTLS;
  if (offer.tls === 'require' && !secure && !startsTls) return ['TLS_REQD', 'this server needs TLS'];
  if (startsTls && offer.tls === 'off') return ['POLICY', 'this server has no TLS'];
  if (startsTls && secure) return ['INVALID', 'TLS is on already'];
  if (!startsTls) {
    const name = FEATURE_OF.get(option);
    const feature: Feature = name === undefined ? false : offer.features[name];
    if (feature !== true) return [feature === false ? 'UNSUP' : feature, `${optionName(option)} is not served here`];
  }
  if (length > 0 && WITHOUT_DATA.has(option)) return ['INVALID', `${optionName(option)} takes no data`];
  if (length > MAX_OPTION_DATA) return ['TOO_BIG', `${optionName(option)} of ${String(length)} bytes`];
  return null;
}

/** The one option without an error reply: any problem ends the connection. */
function* serveExportName<E extends ExportOffer>(
  offer: ServerOffer<E>,
  length: number,
  state: NegotiationState,
  secure: boolean,
  zeroes: boolean,
): Handshake<ServedSession<E>> {
  if (length > c.MAX_STRING) throw violation(`an export name of ${String(length)} bytes`);
  const name = (yield* readData(length)).toString('utf8');
  if (offer.features.exportName !== true) throw refused('NBD_OPT_EXPORT_NAME is not served here');
  if (state.extended) throw violation('NBD_OPT_EXPORT_NAME after NBD_OPT_EXTENDED_HEADERS');
  const entry = yield* findExport(offer, name);
  if (entry === undefined) throw refused(offer.refusal?.(name)?.[1] ?? 'the export is not known');
  if (!secure && (offer.tls === 'require' || entry.requireTls)) throw refused('the export needs TLS');
  if (entry.requireBlockSize) throw refused('the export needs a client that asks for block sizes');
  const session = openSession(entry, name, state);
  yield encodeExportNameReply(session, zeroes);
  return session;
}

function* serveOldstyle<E extends ExportOffer>(offer: ServerOffer<E>): Handshake<ServedSession<E>> {
  const entry = yield* findExport(offer, '');
  if (entry === undefined) throw refused('an oldstyle server has nothing to show without a default export');
  const session = openSession(entry, '', fresh());
  const bytes = Buffer.alloc(152);
  bytes.writeUInt32BE(c.NBD_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(c.NBD_MAGIC_LOW, 4);
  bytes.writeUInt32BE(c.NBD_OLDSTYLE_MAGIC_HIGH, 8);
  bytes.writeUInt32BE(c.NBD_OLDSTYLE_MAGIC_LOW, 12);
  bytes.writeBigUInt64BE(BigInt(entry.size), 16);
  // 16 bits of handshake flags, which oldstyle must leave clear, and 16 of transmission flags.
  bytes.writeUInt16BE(session.flags, 26);
  yield bytes;
  return session;
}

function handshakeFlags(offer: ServerOffer<ExportOffer>): number {
  return (offer.fixedNewstyle ? c.NBD_FLAG_FIXED_NEWSTYLE : 0) | (offer.noZeroes ? c.NBD_FLAG_NO_ZEROES : 0);
}

function greeting(offer: ServerOffer<ExportOffer>): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeUInt32BE(c.NBD_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(c.NBD_MAGIC_LOW, 4);
  bytes.writeUInt32BE(c.NBD_IHAVEOPT_HIGH, 8);
  bytes.writeUInt32BE(c.NBD_IHAVEOPT_LOW, 12);
  bytes.writeUInt16BE(handshakeFlags(offer), 16);
  return bytes;
}

/** Whether the client wants the 124 zeroes. A flag that was not offered "MUST drop the TCP connection". */
function readClientFlags(offer: ServerOffer<ExportOffer>, flags: number): boolean {
  const unknown = flags & ~handshakeFlags(offer);
  if (unknown !== 0) throw violation(`client flags 0x${(unknown >>> 0).toString(16)}`);
  return (flags & c.NBD_FLAG_C_NO_ZEROES) === 0;
}

const violation = (what: string): NbdProtocolError =>
  new NbdProtocolError(`the client broke the protocol: ${what}`, { code: 'EPROTO' });

const refused = (reason: string): NbdProtocolError =>
  new NbdProtocolError(`the client was turned away: ${reason}`, { code: 'EPROTO' });
