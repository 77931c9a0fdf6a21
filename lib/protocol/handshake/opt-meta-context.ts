// NBD_OPT_SET_META_CONTEXT and NBD_OPT_LIST_META_CONTEXT: which kinds of block status the export can report.

import { Buffer } from '../../util/buffer.js';
import { NbdOptionError } from '../../errors.js';
import { get32, put32 } from '../../util/bytes.js';
import * as c from '../constants.js';
import { printableText } from '../names.js';
import type { Handshake } from './effects.js';
import { readReply, readString, sendOption, violation } from './option-reply.js';
import type { HandshakeSession } from './session.js';

/** The most contexts in one answer: more than any server has, so that an endless answer is detected. */
export const MAX_META_CONTEXTS = 1000;

/**
 * Asks for `queries` and keeps the contexts that the server selects in the session, none after a refusal. A context
 * that was asked for twice may be reported twice: with the same ID and name, it counts as one.
 */
export function* setMetaContext(
  session: HandshakeSession,
  queries: readonly string[],
): Handshake<NbdOptionError | readonly string[]> {
  const option = c.NBD_OPT_SET_META_CONTEXT;
  session.negotiated.contexts = new Map();
  const contexts = new Map<number, string>();
  const names: string[] = [];
  const refusal = yield* readContexts(session, option, queries, (id, name) => {
    const other = contexts.get(id) ?? name;
    if (other !== name) {
      throw violation(option, `context ID ${id} for ${printableText(other)} and ${printableText(name)}`);
    }
    contexts.set(id, name);
    names.push(name);
  });
  if (refusal !== null) return refusal;
  session.negotiated.contexts = contexts;
  return names;
}

/** The contexts that the server would select for `queries`, or all contexts without queries. */
export function* listMetaContext(
  session: HandshakeSession,
  queries: readonly string[],
): Handshake<NbdOptionError | readonly string[]> {
  const names: string[] = [];
  // IDs have no meaning here and must be ignored.
  const refusal = yield* readContexts(session, c.NBD_OPT_LIST_META_CONTEXT, queries, (_id, name) => names.push(name));
  return refusal ?? names;
}

function* readContexts(
  session: HandshakeSession,
  option: number,
  queries: readonly string[],
  found: (id: number, name: string) => void,
): Handshake<NbdOptionError | null> {
  yield* sendOption(session, option, contextRequest(session.request.exportName, queries));
  for (let replies = 0; ; replies++) {
    const reply = yield* readReply(session, option, c.NBD_REP_META_CONTEXT);
    if (reply instanceof NbdOptionError) return reply;
    if (reply.type === c.NBD_REP_ACK) return null;
    if (replies === MAX_META_CONTEXTS) throw violation(option, `more than ${MAX_META_CONTEXTS} contexts`);
    if (reply.length < 5) throw violation(option, `a context of ${reply.length} bytes`);
    const id = get32(yield 4, 0);
    found(id, yield* readString(option, 'a context name', reply.length - 4));
  }
}

function contextRequest(exportName: string, queries: readonly string[]): Buffer {
  const strings = [exportName, ...queries].map((text) => Buffer.from(text));
  const data = Buffer.alloc(4 + strings.reduce((sum, text) => sum + 4 + text.length, 0));
  let at = 0;
  strings.forEach((text, index) => {
    put32(data, at, text.length);
    data.set(text, at + 4);
    at += 4 + text.length;
    if (index === 0) {
      put32(data, at, queries.length);
      at += 4;
    }
  });
  return data;
}
