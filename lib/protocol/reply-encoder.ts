// Encodes replies in the three styles: simple, structured and extended. Only headers and small chunks: the data of a read
// follows its header in the same buffer, or is sent by reference.

import { Buffer } from '../util/buffer.js';
import { put16, put32, put64 } from '../util/bytes.js';
import { lowHalf, type U64 } from '../util/u64.js';
import * as c from './constants.js';

/** The style of the replies of a connection, which the handshake decides. */
export type ReplyStyle = 'simple' | 'structured' | 'extended';

/** What a reply repeats of its request. */
export interface Answered {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: U64;
}

/** Returns memory for a reply, from a slab or newly allocated. */
export type TakeBuffer = (length: number) => Buffer;

const HEADER_LENGTHS = {
  simple: c.SIMPLE_REPLY_LENGTH,
  structured: c.STRUCTURED_REPLY_LENGTH,
  extended: c.EXTENDED_REPLY_LENGTH,
};

export class ReplyEncoder {
  readonly style: ReplyStyle;
  /** Length of what encodeData() writes in front of a read's data: 16, 28 or 40. */
  readonly dataPrefix: number;
  readonly #headerLength: number;
  readonly #take: TakeBuffer;

  constructor(style: ReplyStyle, take: TakeBuffer) {
    this.style = style;
    this.#take = take;
    this.#headerLength = HEADER_LENGTHS[style];
    this.dataPrefix = this.#headerLength + (style === 'simple' ? 0 : 8);
  }

  /** Success without data: a simple reply, or the one chunk NBD_REPLY_TYPE_NONE. */
  encodeDone(request: Answered): Buffer {
    const bytes = this.#take(this.#headerLength);
    // The protocol permits a simple reply here, but a client that negotiated structured replies gets only those.
    this.#header(bytes, request, c.NBD_REPLY_TYPE_NONE, 0, true, 0);
    return bytes;
  }

  /**
   * An error as the final reply to a request. `message` is cut to the protocol's 4096 bytes; a simple reply does not
   * contain it.
   */
  encodeError(request: Answered, error: number, message: string): Buffer {
    if (this.style === 'simple') {
      const bytes = this.#take(this.#headerLength);
      this.#header(bytes, request, 0, 0, true, error);
      return bytes;
    }
    const text = cutString(message);
    const bytes = this.#take(this.#headerLength + 6 + text.length);
    this.#header(bytes, request, c.NBD_REPLY_TYPE_ERROR, 6 + text.length, true, 0);
    put32(bytes, this.#headerLength, error);
    put16(bytes, this.#headerLength + 4, text.length);
    bytes.set(text, this.#headerLength + 6);
    return bytes;
  }

  /**
   * Writes the header of `length` bytes of a read's data at the start of `bytes`, which has at least `dataPrefix` bytes;
   * the data follows it. In the simple style it is the header of the whole reply.
   */
  encodeData(bytes: Buffer, request: Answered, offset: U64, length: number, done: boolean): void {
    if (this.style === 'simple') {
      this.#header(bytes, request, 0, 0, true, 0);
      return;
    }
    this.#header(bytes, request, c.NBD_REPLY_TYPE_OFFSET_DATA, 8 + length, done, 0);
    put64(bytes, this.#headerLength, offset);
  }

  /** A run of zeroes of a read; structured and extended styles only. `length` must be 1 to 2^32 - 1. */
  encodeHole(request: Answered, offset: U64, length: number, done: boolean): Buffer {
    const bytes = this.#take(this.#headerLength + 12);
    this.#header(bytes, request, c.NBD_REPLY_TYPE_OFFSET_HOLE, 12, done, 0);
    put64(bytes, this.#headerLength, offset);
    put32(bytes, this.#headerLength + 8, length);
    return bytes;
  }

  /**
   * One context's extents: flat pairs of length and flags, at least one pair. In the structured style both must fit
   * in 32 bits.
   */
  encodeBlockStatus(request: Answered, contextId: number, pairs: readonly U64[], done: boolean): Buffer {
    const extended = this.style === 'extended';
    const length = extended ? 8 + pairs.length * 8 : 4 + pairs.length * 4;
    const bytes = this.#take(this.#headerLength + length);
    const type = extended ? c.NBD_REPLY_TYPE_BLOCK_STATUS_EXT : c.NBD_REPLY_TYPE_BLOCK_STATUS;
    this.#header(bytes, request, type, length, done, 0);
    let at = this.#headerLength;
    put32(bytes, at, contextId);
    at += 4;
    if (extended) {
      put32(bytes, at, pairs.length / 2);
      at += 4;
    }
    for (const value of pairs) {
      if (extended) put64(bytes, at, value);
      else put32(bytes, at, lowHalf(value));
      at += extended ? 8 : 4;
    }
    return bytes;
  }

  #header(bytes: Buffer, request: Answered, type: number, length: number, done: boolean, error: number): void {
    if (this.style === 'simple') {
      put32(bytes, 0, c.NBD_SIMPLE_REPLY_MAGIC);
      put32(bytes, 4, error);
      put32(bytes, 8, request.cookieHigh);
      put32(bytes, 12, request.cookieLow);
      return;
    }
    const extended = this.style === 'extended';
    put32(bytes, 0, extended ? c.NBD_EXTENDED_REPLY_MAGIC : c.NBD_STRUCTURED_REPLY_MAGIC);
    put16(bytes, 4, done ? c.NBD_REPLY_FLAG_DONE : 0);
    put16(bytes, 6, type);
    put32(bytes, 8, request.cookieHigh);
    put32(bytes, 12, request.cookieLow);
    if (extended) {
      put64(bytes, 16, request.offset);
      put32(bytes, 24, 0);
      put32(bytes, 28, length);
    } else {
      put32(bytes, 16, length);
    }
  }
}

/** UTF-8 of at most 4096 bytes, never ending inside a character. */
export function cutString(text: string, limit = c.MAX_STRING): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length <= limit) return bytes;
  let end = limit;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}
