// The client's half of the handshake, in libnbd's order: TLS, extended headers, structured replies, contexts, GO.

import { NbdOptionError } from '../../errors.js';
import { TLS_DISABLE, TLS_REQUIRE } from '../client-constants.js';
import * as c from '../constants.js';
import type { Handshake } from './effects.js';
import { greet } from './greeting.js';
import { exportName, infoOrGo } from './opt-info.js';
import { setMetaContext } from './opt-meta-context.js';
import { extendedHeaders, startTls, structuredReply } from './opt-simple.js';
import { refusalType } from './option-reply.js';
import type { HandshakeSession } from './session.js';

/** The stage that a handshake has reached: options may be sent, or the export is open. */
export type HandshakeStage = 'negotiating' | 'transmission';

/**
 * From the greeting to an open export; with opt mode, to the point where options may be sent. Throws NbdOptionError
 * when the server refused (the client should then disconnect), other errors when the connection cannot be used any
 * more.
 */
export function* negotiate(session: HandshakeSession): Handshake<HandshakeStage> {
  const { request } = session;
  yield* greet(session);
  if (session.protocol === 'oldstyle') return 'transmission';
  if (session.isFixedNewstyle) {
    yield* prepare(session);
  }
  if (request.optMode) return 'negotiating';
  yield* requestContexts(session);
  const refusal = yield* open(session);
  if (refusal !== null) throw refusal;
  return 'transmission';
}

/**
 * Asks for the contexts that the user added, before GO and INFO. If the server cannot support any, the set of
 * negotiated contexts is empty from then on.
 */
export function* requestContexts(session: HandshakeSession): Handshake<void> {
  const { request, negotiated } = session;
  if (!request.metaContext) return;
  if (!negotiated.structuredReplies || request.metaContexts.length === 0) {
    negotiated.contexts ??= new Map();
    return;
  }
  const selected = yield* setMetaContext(session, request.metaContexts);
  if (selected instanceof NbdOptionError) passOver(selected);
}

/** The refused option was optional: go on without it, unless the server is shutting down. */
export function passOver(refusal: NbdOptionError | null): void {
  if (refusal !== null && refusalType(refusal) === c.NBD_REP_ERR_SHUTDOWN) throw refusal;
}

function* prepare(session: HandshakeSession): Handshake<void> {
  const { request, negotiated } = session;
  if (request.tls !== TLS_DISABLE) {
    const refusal = yield* startTls(session);
    if (refusal !== null && request.tls === TLS_REQUIRE) throw tlsRefused(refusal);
    passOver(refusal);
  }
  if (request.extendedHeaders && request.structuredReplies) passOver(yield* extendedHeaders(session));
  if (request.structuredReplies && !negotiated.extendedHeaders) passOver(yield* structuredReply(session));
}

/** ENOTSUP as in libnbd, whatever the server's reason is; the refusal is the cause. */
const tlsRefused = (refusal: NbdOptionError): NbdOptionError =>
  new NbdOptionError(`TLS is required, but the server refused to start it: ${refusal.message}`, {
    code: 'ENOTSUP',
    serverMessage: refusal.serverMessage,
    cause: refusal,
  });

/** GO, or EXPORT_NAME if the server does not support GO; returns the refusal, if there is one. */
export function* open(session: HandshakeSession): Handshake<NbdOptionError | null> {
  const { exportNameOnly = false } = session.request;
  if (session.isFixedNewstyle && (!exportNameOnly || session.negotiated.extendedHeaders)) {
    const refusal = yield* infoOrGo(session, c.NBD_OPT_GO);
    // With extended headers EXPORT_NAME is forbidden.
    if (refusal === null || refusalType(refusal) !== c.NBD_REP_ERR_UNSUP || session.negotiated.extendedHeaders) {
      return refusal;
    }
  }
  yield* exportName(session);
  return null;
}
