// Cases for the server's half of the handshake: what it offers, what a client sends and what must be answered, byte for
// byte.

import {
  type ExportOffer,
  type HandshakeFeatures,
  type ServerOffer,
} from '../../lib/protocol/handshake/serve-offer.js';
import * as g from '../support/golden.js';

const { OPT, cat, option, reply, u16, u32 } = g;
export const SIZE = 1 << 20;

export function exportOffer(name: string, more: Partial<ExportOffer> = {}): ExportOffer {
  return {
    name,
    description: '',
    size: SIZE,
    blockSize: { minimum: 1, preferred: 4096, maximum: 1 << 25 },
    requireBlockSize: false,
    requireTls: false,
    contextNames: (extended) => ['base:allocation', 'x-a:one', 'x-a:two', ...(extended ? ['x-b:wide'] : [])],
    transmissionFlags: (style, hasContexts) =>
      g.HAS_FLAGS | (style === 'simple' ? 0 : g.SEND_DF) | (hasContexts ? g.STATUS_PAYLOAD : 0),
    ...more,
  };
}

export interface OfferOptions extends Partial<Omit<ServerOffer<ExportOffer>, 'features' | 'exports'>> {
  features?: Partial<HandshakeFeatures>;
  exports?: readonly ExportOffer[];
}

/** How a conversation stands. */
export type State = 'open' | 'tls' | 'left' | 'session' | 'broken';

export const go = (name: string, ...infos: number[]): Buffer => option(OPT.GO, infoRequest(name, infos));
export const infoRequest = (name: string, infos: number[]): Buffer =>
  cat(u32(Buffer.byteLength(name)), name, u16(infos.length), ...infos.map(u16));
export const metaRequest = (name: string, ...queries: string[]): Buffer =>
  cat(u32(name.length), name, u32(queries.length), ...queries.map((query) => cat(u32(query.length), query)));
export const ack = (number: number): Buffer => reply(number, g.ACK);
export const refused = (number: number, type: number, text: string): Buffer => reply(number, type, text);
export const known = (number: number, flags = g.HAS_FLAGS): Buffer =>
  cat(reply(number, g.INFO, g.infoExport(SIZE, flags)), ack(number));
export const STRUCTURED = option(OPT.STRUCTURED_REPLY);
export const EXTENDED = option(OPT.EXTENDED);

export interface Case {
  readonly name: string;
  readonly offer?: OfferOptions;
  /** After the client flags. */
  readonly input: Buffer;
  /** After the greeting. */
  readonly output?: Buffer;
  readonly state: State;
  readonly error?: RegExp;
}
