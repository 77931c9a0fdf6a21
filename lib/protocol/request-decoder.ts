// Decodes requests of the transmission phase from the bytes of a client. Invariants: nothing is allocated for a length
// that the sink has not accepted, and a payload is copied at most once, from the chunk into the sink's buffer.

import { Buffer } from '../util/buffer.js';
import { NbdProtocolError } from '../errors.js';
import { get16, get32 } from '../util/bytes.js';
import { fromHalves, type U64 } from '../util/u64.js';
import * as c from './constants.js';
import { commandName } from './names.js';

/** One request as received. The client's cookie is opaque, so it stays in two halves. */
export class Request {
  readonly type: number;
  readonly flags: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: U64;
  /** The length field: number of bytes of the range, or of the payload that follows. */
  readonly count: U64;
  /** Bytes of payload that follow the header. */
  readonly payloadLength: number;
  /** The payload; null if there is none or it was dropped. */
  payload: Buffer | null = null;

  constructor(
    type: number,
    flags: number,
    cookieHigh: number,
    cookieLow: number,
    offset: U64,
    count: U64,
    payloadLength: number,
  ) {
    this.type = type;
    this.flags = flags;
    this.cookieHigh = cookieHigh;
    this.cookieLow = cookieLow;
    this.offset = offset;
    this.count = count;
    this.payloadLength = payloadLength;
  }
}

/** Callbacks of a RequestDecoder. */
export interface RequestSink {
  /**
   * Called after a request's header if a payload follows. Returns a buffer of `request.payloadLength` bytes for it, or
   * null to drop it. If the chunk contains the whole payload, `present` is a view of it, which may be returned to save
   * the copy. `later` means that there is no memory now: all bytes from the payload on are kept until resume(), which
   * calls this again.
   */
  payloadFor(request: Request, present: Buffer | null): Buffer | null | 'later';
  /** A request is complete. */
  request(request: Request): void;
}

export interface RequestDecoderOptions {
  /** Requests have 32-byte headers, and a flag indicates whether a payload follows; a write always has one. */
  readonly extendedHeaders: boolean;
  /** Bytes. A longer payload ends the connection; up to this length the sink decides whether to keep it. */
  readonly payloadLimit: number;
}

/** Fed by push(), which throws NbdProtocolError when framing is lost; the decoder must not be used afterwards. */
export class RequestDecoder {
  readonly #sink: RequestSink;
  readonly #extended: boolean;
  readonly #payloadLimit: number;
  readonly #magic: number;
  // The header of a request that is split across chunks.
  readonly #partial: Buffer;
  #partialLength = 0;
  // The request whose payload is arriving, and the buffer for it.
  #request: Request | null = null;
  #target: Buffer | null = null;
  #payloadDone = 0;
  // Bytes from a payload on that has to wait for memory.
  #kept: Buffer | null = null;
  #stopped = false;

  constructor(sink: RequestSink, options: RequestDecoderOptions) {
    this.#sink = sink;
    this.#extended = options.extendedHeaders;
    this.#payloadLimit = options.payloadLimit;
    this.#magic = options.extendedHeaders ? c.NBD_EXTENDED_REQUEST_MAGIC : c.NBD_REQUEST_MAGIC;
    this.#partial = Buffer.alloc(options.extendedHeaders ? c.EXTENDED_REQUEST_LENGTH : c.REQUEST_LENGTH);
  }

  /** Drops everything from now on: nothing may follow NBD_CMD_DISC. May be called by the sink. */
  stop(): void {
    this.#stopped = true;
    this.#request = null;
    this.#target = null;
    this.#partialLength = 0;
    this.#kept = null;
  }

  /** Whether a payload waits for memory: the caller should stop pushing. */
  get isWaiting(): boolean {
    return this.#kept !== null;
  }

  /** Length of the payload that is arriving. */
  get arriving(): number {
    return this.#target?.length ?? 0;
  }

  /** Asks the sink again for a buffer for the waiting payload. */
  resume(): void {
    const kept = this.#kept;
    this.#kept = null;
    if (kept !== null) this.push(kept);
  }

  push(chunk: Buffer): void {
    if (this.#kept !== null) {
      this.#kept = Buffer.concat([this.#kept, chunk]);
      return;
    }
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#request !== null) {
        const taken = this.#takePayload(this.#request, chunk, at);
        if (taken === null) {
          this.#kept = chunk.subarray(at);
          return;
        }
        at += taken;
      } else if (this.#partialLength === 0 && chunk.length - at >= this.#partial.length) {
        this.#header(chunk, at);
        at += this.#partial.length;
      } else {
        at += this.#takePartial(chunk, at);
      }
    }
  }

  #takePartial(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#partial.length - this.#partialLength, chunk.length - at);
    chunk.copy(this.#partial, this.#partialLength, at, at + taken);
    this.#partialLength += taken;
    // Checked as soon as four bytes are there: a client of another protocol may never send the rest.
    if (this.#partialLength >= 4) this.#checkMagic(this.#partial, 0);
    if (this.#partialLength === this.#partial.length) {
      this.#partialLength = 0;
      this.#header(this.#partial, 0);
    }
    return taken;
  }

  #checkMagic(bytes: Buffer, at: number): void {
    const magic = get32(bytes, at);
    if (magic !== this.#magic) {
      throw violation(`request magic 0x${magic.toString(16)} instead of 0x${this.#magic.toString(16)}`);
    }
  }

  #header(bytes: Buffer, at: number): void {
    this.#checkMagic(bytes, at);
    const flags = get16(bytes, at + 4);
    const type = get16(bytes, at + 6);
    const count = this.#extended ? fromHalves(get32(bytes, at + 24), get32(bytes, at + 28)) : get32(bytes, at + 24);
    // With extended headers a write must also have PAYLOAD_LEN, but qemu 10 omits it and sends the payload anyway.
    const hasPayload = type === c.NBD_CMD_WRITE || (this.#extended && (flags & c.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0);
    if (hasPayload && count > this.#payloadLimit) {
      throw violation(
        `${commandName(type)} with ${String(count)} bytes of payload, limit ${String(this.#payloadLimit)}`,
      );
    }
    const request = new Request(
      type,
      flags,
      get32(bytes, at + 8),
      get32(bytes, at + 12),
      fromHalves(get32(bytes, at + 16), get32(bytes, at + 20)),
      count,
      hasPayload ? Number(count) : 0,
    );
    if (request.payloadLength === 0) {
      this.#sink.request(request);
      return;
    }
    this.#request = request;
    this.#payloadDone = 0;
  }

  /** Returns the number of bytes taken; null if the sink has no memory for them. */
  #takePayload(request: Request, chunk: Buffer, at: number): number | null {
    const taken = Math.min(request.payloadLength - this.#payloadDone, chunk.length - at);
    let present: Buffer | null = null;
    if (this.#payloadDone === 0) {
      if (taken === request.payloadLength) present = chunk.subarray(at, at + taken);
      const target = this.#sink.payloadFor(request, present);
      if (target === 'later') return null;
      this.#target = target;
    }
    if (this.#target !== null && this.#target !== present) chunk.copy(this.#target, this.#payloadDone, at, at + taken);
    this.#payloadDone += taken;
    if (this.#payloadDone === request.payloadLength) {
      request.payload = this.#target;
      this.#request = null;
      this.#target = null;
      this.#sink.request(request);
    }
    return taken;
  }
}

function violation(reason: string): NbdProtocolError {
  return new NbdProtocolError(`the client broke the protocol: ${reason}`, { code: 'EPROTO' });
}
