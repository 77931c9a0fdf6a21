// The options that are only acknowledged or refused: STARTTLS, EXTENDED_HEADERS, STRUCTURED_REPLY and ABORT.

import type { Buffer } from '../../util/buffer.js';
import { type NbdOptionError, NbdStateError } from '../../errors.js';
import * as c from '../constants.js';
import { type Handshake, START_TLS } from './effects.js';
import { encodeOption, readAck, sendOption } from './option-reply.js';
import type { HandshakeSession } from './session.js';

/** Asks for TLS and starts it if the server agrees; that discards what was negotiated before. */
export function* startTls(session: HandshakeSession): Handshake<NbdOptionError | null> {
  if (session.negotiated.tls) {
    throw new NbdStateError('NBD_OPT_STARTTLS: TLS has been negotiated already', { code: 'EINVAL' });
  }
  yield* sendOption(session, c.NBD_OPT_STARTTLS);
  const refusal = yield* readAck(session, c.NBD_OPT_STARTTLS);
  if (refusal !== null) return refusal;
  yield START_TLS;
  session.forgetAll();
  session.negotiated.tls = true;
  return null;
}

export function* structuredReply(session: HandshakeSession): Handshake<NbdOptionError | null> {
  yield* sendOption(session, c.NBD_OPT_STRUCTURED_REPLY);
  const refusal = yield* readAck(session, c.NBD_OPT_STRUCTURED_REPLY);
  if (refusal === null) session.negotiated.structuredReplies = true;
  return refusal;
}

/** Extended headers include structured replies. */
export function* extendedHeaders(session: HandshakeSession): Handshake<NbdOptionError | null> {
  yield* sendOption(session, c.NBD_OPT_EXTENDED_HEADERS);
  const refusal = yield* readAck(session, c.NBD_OPT_EXTENDED_HEADERS);
  if (refusal === null) {
    session.negotiated.extendedHeaders = true;
    session.negotiated.structuredReplies = true;
  }
  return refusal;
}

/** NBD_OPT_ABORT as bytes: its sender may close the connection at once, so no reply is read. */
export const encodeAbort = (): Buffer => encodeOption(c.NBD_OPT_ABORT);
