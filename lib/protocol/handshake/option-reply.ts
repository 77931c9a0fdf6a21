// Sends an option and reads its replies; every length is capped before it is used.

import { Buffer } from '../../util/buffer.js';
import { NbdOptionError, NbdProtocolError } from '../../errors.js';
import { get32 } from '../../util/bytes.js';
import * as c from '../constants.js';
import { optionName, printable, replaceBytes, replyName } from '../names.js';
import type { Handshake } from './effects.js';
import type { HandshakeSession } from './session.js';
import { quoted } from '../../util/visible.js';

/** Longest payload of any reply: information replies of unknown types are skipped up to this length. */
export const MAX_OPTION_REPLY = 64 * 1024 * 1024;

/** A reply that is not an error; its payload has not been read yet. */
export interface OptionReply {
  readonly type: number;
  readonly length: number;
}

export function violation(option: number, what: string): NbdProtocolError {
  return new NbdProtocolError(`${optionName(option)}: the server sent ${what}`, { code: 'EPROTO' });
}

/** IHAVEOPT, the option, the length and the data. */
export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(16 + data.length);
  bytes.writeUInt32BE(c.NBD_IHAVEOPT_HIGH, 0);
  bytes.writeUInt32BE(c.NBD_IHAVEOPT_LOW, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data.length, 12);
  bytes.set(data, 16);
  return bytes;
}

export function* sendOption(session: HandshakeSession, option: number, data?: Uint8Array): Handshake<void> {
  session.optionsSent++;
  session.lastOption = option;
  yield encodeOption(option, data);
}

/**
 * The next reply to `option`, which must be an ACK or of type `expected`. An error reply is returned as an
 * NbdOptionError; everything else is a violation.
 */
export function* readReply(
  session: HandshakeSession,
  option: number,
  expected: number,
): Handshake<OptionReply | NbdOptionError> {
  // The magic first: if it is wrong, do not wait for the rest of a reply.
  const magic = yield 8;
  if (get32(magic, 0) !== c.NBD_REP_MAGIC_HIGH || get32(magic, 4) !== c.NBD_REP_MAGIC_LOW) {
    throw violation(option, `0x${magic.toString('hex')} in place of the reply magic`);
  }
  const rest = yield 12;
  const answered = get32(rest, 0);
  const type = get32(rest, 4);
  const length = get32(rest, 8);
  if (answered !== option) throw violation(option, `a reply to ${optionName(answered)}`);
  if (type >= c.NBD_REP_FLAG_ERROR) return yield* readRefusal(session, option, type, length);
  if (type !== c.NBD_REP_ACK && type !== expected) throw violation(option, `${replyName(type)} in reply`);
  if (type === c.NBD_REP_ACK && length !== 0) throw violation(option, `an ACK with ${length} bytes`);
  if (length > MAX_OPTION_REPLY) throw violation(option, `${replyName(type)} of ${length} bytes`);
  return { type, length };
}

/** ERRNO of the refusals, as libnbd has them. */
const REFUSALS: Readonly<Record<number, { readonly code: string; readonly meaning: string }>> = {
  [c.NBD_REP_ERR_UNSUP]: { code: 'ENOTSUP', meaning: 'the server does not support it' },
  [c.NBD_REP_ERR_POLICY]: { code: 'EACCES', meaning: 'the server does not permit it' },
  [c.NBD_REP_ERR_INVALID]: { code: 'EINVAL', meaning: 'the server found it invalid' },
  [c.NBD_REP_ERR_PLATFORM]: { code: 'ENOTSUP', meaning: "the server's platform does not support it" },
  [c.NBD_REP_ERR_TLS_REQD]: { code: 'ENOTSUP', meaning: 'the server requires TLS first' },
  [c.NBD_REP_ERR_UNKNOWN]: { code: 'ENOENT', meaning: 'the server has no such export' },
  [c.NBD_REP_ERR_SHUTDOWN]: { code: 'ESHUTDOWN', meaning: 'the server is shutting down' },
  [c.NBD_REP_ERR_BLOCK_SIZE_REQD]: { code: 'EINVAL', meaning: 'the server requires block sizes to be negotiated' },
  [c.NBD_REP_ERR_TOO_BIG]: { code: 'EINVAL', meaning: 'the server found it too big' },
  [c.NBD_REP_ERR_EXT_HEADER_REQD]: { code: 'ENOTSUP', meaning: 'the server requires extended headers' },
};

const WITH_EXPORT: ReadonlySet<number> = new Set([c.NBD_OPT_GO, c.NBD_OPT_INFO, c.NBD_OPT_EXPORT_NAME]);

/** The payload of an error reply, as an error. */
export function* readRefusal(
  session: HandshakeSession,
  option: number,
  type: number,
  length: number,
): Handshake<NbdOptionError> {
  if (length > c.MAX_STRING) throw violation(option, `an error text of ${length} bytes`);
  const bytes = length === 0 ? new Uint8Array(0) : yield length;
  const { code, meaning } = REFUSALS[type] ?? { code: 'EINVAL', meaning: 'the server refused it' };
  const { shownName } = session;
  const { exportName, tls } = session.request;
  // A server may repeat the name in its message. It is masked before the text is escaped, or it might not be found.
  const text = printable(shownName === exportName ? bytes : replaceBytes(bytes, exportName, shownName), c.MAX_STRING);
  const about = WITH_EXPORT.has(option) ? ` for export ${quoted(shownName)}` : '';
  const wayOut = type === c.NBD_REP_ERR_TLS_REQD && tls === 0 ? '; use an nbds:// URI or setTls(TLS_REQUIRE)' : '';
  const repeated = text === '' ? '' : `: "${text}"`;
  const error = new NbdOptionError(
    `${optionName(option)}${about}: ${meaning} (${replyName(type)})${repeated}${wayOut}`,
    {
      code,
      exportName: shownName,
      ...(text === '' ? {} : { serverMessage: text }),
    },
  );
  refusalTypes.set(error, type);
  return error;
}

// The reply type decides how the handshake goes on (ERR_UNSUP falls back), but it is not part of the public error.
const refusalTypes = new WeakMap<NbdOptionError, number>();

/** The NBD_REP_ERR_* that a refusal stands for. */
export const refusalType = (error: NbdOptionError): number => refusalTypes.get(error) ?? c.NBD_REP_ERR_INVALID;

/** For options that are only acknowledged or refused. */
export function* readAck(session: HandshakeSession, option: number): Handshake<NbdOptionError | null> {
  const reply = yield* readReply(session, option, c.NBD_REP_ACK);
  return reply instanceof NbdOptionError ? reply : null;
}

/** A string at the end of a reply: at most 4096 bytes of UTF-8. */
export function* readString(option: number, what: string, length: number): Handshake<string> {
  if (length > c.MAX_STRING) throw violation(option, `${what} of ${length} bytes`);
  if (length === 0) return '';
  return (yield length).toString('utf8');
}
