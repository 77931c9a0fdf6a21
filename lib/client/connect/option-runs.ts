// The runs of the opt* methods: the handshake's options with libnbd's rules around them. A refusal is thrown, or
// `false` where libnbd returns a boolean.

import { NbdError, type NbdOptionError, NbdStateError } from '../../errors.js';
import * as c from '../../protocol/constants.js';
import type { Handshake } from '../../protocol/handshake/effects.js';
import { open, passOver, requestContexts } from '../../protocol/handshake/negotiate.js';
import { infoOrGo } from '../../protocol/handshake/opt-info.js';
import { list, type ListedExport } from '../../protocol/handshake/opt-list.js';
import { setMetaContext } from '../../protocol/handshake/opt-meta-context.js';
import { startTls } from '../../protocol/handshake/opt-simple.js';
import type { HandshakeSession } from '../../protocol/handshake/session.js';

export type OptionRun<Result> = (session: HandshakeSession) => Handshake<Result>;

/** The plain newstyle handshake has only EXPORT_NAME; with exportNameOnly, only that and STARTTLS are sent. */
function requireFixed(session: HandshakeSession, option?: SimpleOption): void {
  if (!session.isFixedNewstyle) {
    throw new NbdStateError('the server does not support the fixed newstyle handshake, which this option requires', {
      code: 'ENOTSUP',
    });
  }
  if (session.request.exportNameOnly === true && option !== startTls) {
    throw new NbdStateError('exportNameOnly is set: only NBD_OPT_EXPORT_NAME may be sent (see optGo)', {
      code: 'ENOTSUP',
    });
  }
}

/** Returns the result, but throws it if it is an error. */
function unwrap<Result>(result: Result | NbdError | null): Result {
  if (result instanceof NbdError) throw result;
  return result as Result;
}

export function* optGo(session: HandshakeSession): Handshake<void> {
  yield* requestContexts(session);
  unwrap(yield* open(session));
}

export function* optInfo(session: HandshakeSession): Handshake<void> {
  requireFixed(session);
  yield* requestContexts(session);
  unwrap(yield* infoOrGo(session, c.NBD_OPT_INFO));
}

export function* optList(session: HandshakeSession): Handshake<readonly ListedExport[]> {
  requireFixed(session);
  return unwrap(yield* list(session));
}

/** An option that lists or sets contexts. */
type MetaContextOption = (
  session: HandshakeSession,
  queries: readonly string[],
) => Handshake<NbdOptionError | readonly string[]>;

export function optMetaContext(option: MetaContextOption, queries: readonly string[]): OptionRun<readonly string[]> {
  return function* (session) {
    requireFixed(session);
    // Contexts can only be used with structured replies, but servers list them without.
    if (option === setMetaContext && !session.negotiated.structuredReplies) {
      throw new NbdStateError('metadata contexts require structured replies, which were not negotiated', {
        code: 'ENOTSUP',
      });
    }
    return unwrap(yield* option(session, queries));
  };
}

/** An option that is acknowledged or refused. */
type SimpleOption = (session: HandshakeSession) => Handshake<NbdOptionError | null>;

/** True if the server agreed, false if it refused; the refusal of a server that is shutting down is thrown. */
export function optBoolean(option: SimpleOption): OptionRun<boolean> {
  return function* (session) {
    requireFixed(session, option);
    const refusal = yield* option(session);
    passOver(refusal);
    return refusal === null;
  };
}

/** Throws if the server refuses. */
export function optRequired(option: SimpleOption): OptionRun<void> {
  return function* (session) {
    requireFixed(session, option);
    unwrap(yield* option(session));
  };
}
