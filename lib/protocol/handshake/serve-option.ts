// What every option of the server's half shares: the frame of a reply, refusing with a text, and reading data of a capped
// length.

import { Buffer } from '../../util/buffer.js';
import * as c from '../constants.js';
import { cutString } from '../reply-encoder.js';
import { type Handshake, SKIP_PIECE } from './effects.js';
import { type OptionRefusal, REFUSALS } from './serve-offer.js';

/** The longest option data that is held; longer data is dropped and the option refused. */
export const MAX_OPTION_DATA = 65536;

/** An option that claims more than this ends the connection: skipping it would cost more than it is worth. */
export const MAX_OPTION_LENGTH = c.MAX_PAYLOAD;

/** The reply magic, the option it answers, the reply type, the length and the data. */
export function encodeOptionReply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(20 + data.length);
  bytes.writeUInt32BE(c.NBD_REP_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(c.NBD_REP_MAGIC_LOW, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  bytes.set(data, 20);
  return bytes;
}

/** The error reply with a text for the user of the client. */
export function* refuse(option: number, refusal: OptionRefusal, message: string): Handshake<void> {
  yield encodeOptionReply(option, REFUSALS[refusal], cutString(message));
}

/** Reads `length` bytes, at most MAX_OPTION_DATA, piece by piece. */
export function* readData(length: number): Handshake<Buffer> {
  if (length === 0) return Buffer.alloc(0);
  if (length <= SKIP_PIECE) return yield length;
  const pieces: Buffer[] = [];
  for (let rest = length; rest > 0; rest -= SKIP_PIECE) pieces.push(yield Math.min(rest, SKIP_PIECE));
  return Buffer.concat(pieces);
}
