// The server's half of LIST_META_CONTEXT and SET_META_CONTEXT.

import { Buffer } from '../../util/buffer.js';
import * as c from '../constants.js';
import type { Handshake } from './effects.js';
import { TOO_LONG } from './serve-export.js';
import { encodeOptionReply, refuse } from './serve-option.js';
import {
  type ExportOffer,
  findExport,
  type NegotiationState,
  refusalOfName,
  type ServerOffer,
  styleOf,
} from './serve-offer.js';

export function* serveMetaContext<E extends ExportOffer>(
  option: number,
  data: Buffer,
  offer: ServerOffer<E>,
  state: NegotiationState,
  secure: boolean,
): Handshake<void> {
  const selects = option === c.NBD_OPT_SET_META_CONTEXT;
  // "Issuing this command replaces all previously-set metadata contexts (including when this command fails)".
  if (selects) state.contexts = null;
  if (styleOf(state) === 'simple') {
    yield* refuse(option, 'INVALID', 'negotiate structured replies first');
    return;
  }
  const request = decodeMetaContextRequest(data);
  if (typeof request === 'string') {
    yield* refuse(option, request === TOO_LONG ? 'TOO_BIG' : 'INVALID', request);
    return;
  }
  const name = request.name.toString('utf8');
  const entry = yield* findExport(offer, name);
  // NBD_REP_ERR_TLS_REQD is not allowed here, so an export that needs TLS is unknown until then.
  if (entry === undefined || (entry.requireTls && !secure)) {
    yield* refuse(option, ...refusalOfName(offer, request.name));
    return;
  }
  const available = entry.contextNames(state.extended);
  const names = selects ? selected(available, request.queries) : listed(available, request.queries);
  for (const [index, context] of names.entries()) {
    const reply = Buffer.alloc(4 + Buffer.byteLength(context));
    reply.writeUInt32BE(selects ? index + 1 : 0, 0);
    reply.write(context, 4);
    yield encodeOptionReply(option, c.NBD_REP_META_CONTEXT, reply);
  }
  if (selects) state.contexts = { exportName: name, names };
  yield encodeOptionReply(option, c.NBD_REP_ACK);
}

/**
 * Exact names only, each once, in the client's order. Wildcards and unknown names select nothing and are not errors.
 */
function selected(available: readonly string[], queries: readonly string[]): string[] {
  return [...new Set(queries)].filter((query) => available.includes(query));
}

/** All contexts without queries; else those that equal a query, or begin with a query that ends in a colon. */
function listed(available: readonly string[], queries: readonly string[]): string[] {
  if (queries.length === 0) return [...available];
  const exact = new Set(queries);
  const wildcards = [...exact].filter((query) => query.endsWith(':'));
  return available.filter((name) => exact.has(name) || wildcards.some((wildcard) => name.startsWith(wildcard)));
}

function decodeMetaContextRequest(data: Buffer): { name: Buffer; queries: string[] } | string {
  if (data.length < 8) return 'the option is too short';
  const length = data.readUInt32BE(0);
  if (length > data.length - 8) return 'the name is longer than the option';
  if (length > c.MAX_STRING) return TOO_LONG;
  const count = data.readUInt32BE(4 + length);
  const queries: string[] = [];
  let at = 8 + length;
  // Each query takes at least four bytes, so the claimed count cannot make this loop longer than the data.
  for (let i = 0; i < count; i += 1) {
    if (data.length - at < 4) return 'the queries are cut short';
    const queryLength = data.readUInt32BE(at);
    at += 4;
    if (queryLength > data.length - at) return 'a query is longer than the option';
    if (queryLength > c.MAX_STRING) return 'a query is longer than 4096 bytes';
    queries.push(data.toString('utf8', at, at + queryLength));
    at += queryLength;
  }
  if (at !== data.length) return 'there is more data than the queries';
  return { name: data.subarray(4, 4 + length), queries };
}
