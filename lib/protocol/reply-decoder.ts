// Decodes the server's bytes into finished commands: simple, structured and extended replies in one numeric-state
// machine. Invariants: nothing is concatenated, nothing is allocated by a length that was not capped, and bytes land
// only inside the range of their own command.

import { asBuffer, Buffer } from '../util/buffer.js';
import { NbdProtocolError } from '../errors.js';
import { get16, get32 } from '../util/bytes.js';
import { allocate, allocateForInput } from '../util/memory.js';
import { fromHalves, TWO_32 } from '../util/u64.js';
import { ReplyRules, MAX_IDLE_CHUNKS, type ReplyContext, TOO_MANY_IDLE } from './reply-rules.js';
import type { ReplyTarget } from './reply-target.js';
import * as c from './constants.js';
import { chunkName } from './names.js';

/** Callbacks of a ReplyDecoder. */
export interface ReplySink<Target extends ReplyTarget> {
  /** The command in flight with this cookie. */
  find(cookie: number): Target | undefined;
  /** The reply is complete; `command.error` is set if it failed. */
  finished(command: Target): void;
  /** True while the reads in flight are large on average: headers are then read on their own (see DIRECT_LENGTH). */
  readonly expectsLarge: boolean;
}

/** 256 KiB: one read takes the replies of a whole window of 4 KiB reads. */
export const SCRATCH_LENGTH = 256 * 1024;
/**
 * With at least this much of a payload due, the transport reads straight into the result's buffer; below, a copy out of
 * the scratch buffer is cheaper than a separate read. When replies are large throughout, headers are read alone and
 * payloads whole, so that nothing of them is copied.
 *
 * This applies only to memory that nothing else can access, because a socket keeps the bare address. A caller can
 * transfer its own buffer to a worker, which frees it, and the server's bytes would land in memory that is used for
 * something else; and after an abort a buffer belongs to its owner again, while the next bytes still go to the address
 * that was chosen before. The copy into a caller's buffer costs less than the reads that it saves
 * (spec/perf/README.md).
 */
export const DIRECT_LENGTH = 128 * 1024;

/**
 * From this length on, a chunk is decoded while it arrives, so that no turn of the event loop has all the work: 10 ms for
 * the 262,144 extents of one of this length. Shorter ones are a fifth faster as a whole.
 */
const LONG_CHUNK = 2 * 1024 * 1024;

const HEADER = 0; // collecting a reply's header
const DATA = 1; // payload bytes on their way into the command's buffer
const SMALL = 2; // collecting the bounded rest of a chunk, which is parsed as a whole
const SKIP = 3; // dropping bytes

export class ReplyDecoder<Target extends ReplyTarget = ReplyTarget> {
  readonly #sink: ReplySink<Target>;
  readonly #extended: boolean;
  readonly #structured: boolean;
  readonly #rules: ReplyRules;
  /** Made by target(), which transports that push() never call. */
  #scratch: Buffer | null = null;
  #headerScratch: Buffer | null = null;
  /** A header, and the offset in front of data. */
  readonly #prefixLength: number;
  /** Headers and offsets that arrive in pieces. */
  readonly #partial = Buffer.alloc(c.EXTENDED_REPLY_LENGTH);
  #have = 0;

  #state = HEADER;
  #command: Target | null = null;
  #done = false;
  #type = 0;
  /** Payload bytes still due in this state. */
  #remaining = 0;
  /** Where in the command's range the next payload byte belongs, and where the chunk began. */
  #at = 0;
  #chunkStart = 0;
  /** Collects SMALL: the shared one for offsets and holes, one of its own size for anything longer. */
  #small: Buffer = this.#partial;
  #smallLength = 0;
  /** The last target() was the command's buffer, or the memory of a long chunk. */
  #isDirect = false;
  #stopped = false;
  /** Magic-delimited messages: libnbd's stats_chunks_received. */
  chunks = 0;

  constructor(sink: ReplySink<Target>, context: ReplyContext) {
    this.#sink = sink;
    this.#extended = context.extendedHeaders;
    this.#structured = context.structuredReplies;
    this.#rules = new ReplyRules(context);
    this.#prefixLength = context.extendedHeaders
      ? c.EXTENDED_REPLY_LENGTH + 8
      : context.structuredReplies
        ? c.STRUCTURED_REPLY_LENGTH + 8
        : c.SIMPLE_REPLY_LENGTH;
  }

  /** True between replies: no reply is cut off if the stream ends here. */
  get isAtBoundary(): boolean {
    return this.#state === HEADER && this.#have === 0;
  }

  /** The command whose reply has been received in part, if there is one. */
  get current(): Target | null {
    return this.#command;
  }

  /** Ignores everything that is received from now on. */
  stop(): void {
    this.#stopped = true;
    this.#isDirect = false;
  }

  /** Where the next bytes should land. */
  target(): Uint8Array {
    const command = this.#command;
    const large = this.#sink.expectsLarge;
    this.#isDirect = false;
    this.#scratch ??= allocateForInput(SCRATCH_LENGTH);
    if (this.#state === DATA) {
      const buffer = command?.buffer ?? null;
      if (buffer !== null && command?.ownsBuffer === true && (large || this.#remaining >= DIRECT_LENGTH)) {
        this.#isDirect = true;
        return buffer.subarray(this.#at, this.#at + this.#remaining);
      }
    } else if (this.#state === SMALL && this.#remaining >= DIRECT_LENGTH) {
      // Memory of this decoder's own, until the chunk is complete: a block map of 100,000 extents is not copied.
      this.#isDirect = true;
      return this.#small.subarray(this.#smallLength, this.#smallLength + this.#remaining);
    } else if (large && this.#state !== SKIP) {
      this.#headerScratch ??= this.#scratch.subarray(0, this.#prefixLength);
      if (this.#state === HEADER && this.#have === 0) return this.#headerScratch;
    }
    return this.#scratch;
  }

  /**
   * `length` bytes landed at the start of the last target(). Throws NbdProtocolError when the peer violates the
   * protocol.
   */
  advance(length: number): void {
    if (!this.#isDirect) {
      if (this.#scratch !== null) this.#decode(this.#scratch, length);
      return;
    }
    this.#isDirect = false;
    this.#remaining -= length;
    if (this.#state === DATA) {
      this.#at += length;
      if (this.#remaining === 0) this.#dataComplete();
    } else {
      this.#smallLength += length;
      this.#smallArrived();
    }
  }

  /** Bytes in a buffer of the transport. Throws like advance(). */
  push(chunk: Uint8Array): void {
    const bytes = asBuffer(chunk);
    this.#decode(bytes, bytes.length);
  }

  #decode(bytes: Buffer, end: number): void {
    let at = 0;
    while (at < end && !this.#stopped) {
      switch (this.#state) {
        case HEADER:
          at = this.#readHeader(bytes, at, end);
          break;
        case DATA:
          at = this.#readData(bytes, at, end);
          break;
        case SMALL: {
          const take = Math.min(this.#remaining, end - at);
          bytes.copy(this.#small, this.#smallLength, at, at + take);
          this.#smallLength += take;
          this.#remaining -= take;
          at += take;
          this.#smallArrived();
          break;
        }
        default: {
          const take = Math.min(this.#remaining, end - at);
          this.#remaining -= take;
          at += take;
          if (this.#remaining === 0) this.#chunkComplete();
        }
      }
    }
  }

  #readHeader(bytes: Buffer, at: number, end: number): number {
    if (this.#have === 0 && end - at >= 4) {
      const length = this.#headerLength(get32(bytes, at));
      if (end - at >= length) {
        this.#header(bytes, at);
        return at + length;
      }
    }
    // In pieces: the magic is checked as soon as it has arrived, because the length of the rest depends on it.
    let position = at;
    while (position < end) {
      const need = this.#have < 4 ? 4 : this.#headerLength(get32(this.#partial, 0));
      const take = Math.min(need - this.#have, end - position);
      bytes.copy(this.#partial, this.#have, position, position + take);
      this.#have += take;
      position += take;
      if (this.#have >= 4 && this.#have === this.#headerLength(get32(this.#partial, 0))) {
        this.#have = 0;
        this.#header(this.#partial, 0);
        return position;
      }
    }
    return position;
  }

  #headerLength(magic: number): number {
    if (this.#extended) {
      if (magic === c.NBD_EXTENDED_REPLY_MAGIC) return c.EXTENDED_REPLY_LENGTH;
    } else if (magic === c.NBD_SIMPLE_REPLY_MAGIC) {
      return c.SIMPLE_REPLY_LENGTH;
    } else if (this.#structured && magic === c.NBD_STRUCTURED_REPLY_MAGIC) {
      return c.STRUCTURED_REPLY_LENGTH;
    }
    const expected = this.#extended ? 'an extended' : this.#structured ? 'a simple or structured' : 'a simple';
    throw new NbdProtocolError(`reply: magic 0x${magic.toString(16)} is not that of ${expected} reply`, {
      code: 'EPROTO',
    });
  }

  #header(bytes: Buffer, at: number): void {
    this.chunks++;
    const magic = get32(bytes, at);
    const simple = magic === c.NBD_SIMPLE_REPLY_MAGIC;
    const cookie = get32(bytes, at + 8) * TWO_32 + get32(bytes, at + 12);
    const command = this.#sink.find(cookie);
    if (command === undefined) {
      throw new NbdProtocolError(
        `reply: cookie ${fromHalves(get32(bytes, at + 8), get32(bytes, at + 12))} is that of no command in flight`,
        { code: 'EPROTO' },
      );
    }
    this.#command = command;
    if (simple) {
      this.#done = true;
      this.#simpleHeader(command, get32(bytes, at + 4));
      return;
    }
    const flags = get16(bytes, at + 4);
    const type = get16(bytes, at + 6);
    this.#done = (flags & c.NBD_REPLY_FLAG_DONE) !== 0;
    this.#type = type;
    let length: number;
    if (this.#extended) {
      this.#rules.checkReplyOffset(command, get32(bytes, at + 16), get32(bytes, at + 20));
      length = get32(bytes, at + 24) * TWO_32 + get32(bytes, at + 28);
    } else {
      length = get32(bytes, at + 16);
    }
    this.#chunkHeader(command, type, length);
  }

  #simpleHeader(command: Target, wireError: number): void {
    if (wireError !== 0) {
      this.#rules.simpleError(command, wireError);
    } else if (command.spec.type === c.NBD_CMD_READ) {
      if (this.#structured) {
        throw this.#rules.violation(command, 'a simple reply to a read although structured replies were negotiated');
      }
      this.#beginData(command, 0, Number(command.count));
      return;
    } else {
      this.#rules.simpleSuccess(command);
    }
    this.#chunkComplete();
  }

  #chunkHeader(command: Target, type: number, length: number): void {
    const wanted = this.#rules.payloadLength(command, type, length, this.#done);
    if (type !== c.NBD_REPLY_TYPE_OFFSET_DATA && ++command.idleChunks > MAX_IDLE_CHUNKS) {
      throw this.#rules.violation(command, TOO_MANY_IDLE);
    }
    if (length === 0) {
      this.#chunkComplete();
    } else if (wanted === 0) {
      this.#state = SKIP;
      this.#remaining = length;
    } else {
      this.#state = SMALL;
      this.#smallLength = 0;
      this.#remaining = wanted;
      this.#chunkStart = length; // of DATA: kept here until its offset is known
      this.#small = wanted <= this.#partial.length ? this.#partial : allocate(wanted);
    }
  }

  /** More of a SMALL one, or all of it. */
  #smallArrived(): void {
    if (this.#remaining === 0) this.#smallComplete(this.#small, 0, this.#smallLength);
    else if (this.#small.length >= LONG_CHUNK) {
      this.#rules.arriving(this.#command as Target, this.#type, this.#small, this.#smallLength);
    }
  }

  /** The bounded part of a chunk has arrived: the offset of data, or all of any other chunk. */
  #smallComplete(bytes: Buffer, from: number, length: number): void {
    const command = this.#command as Target;
    if (this.#type === c.NBD_REPLY_TYPE_OFFSET_DATA) {
      const due = this.#chunkStart - 8;
      const start = this.#rules.dataStart(command, get32(bytes, from), get32(bytes, from + 4), due);
      this.#beginData(command, start, due);
      return;
    }
    const payload = bytes.subarray(from, from + length);
    this.#small = this.#partial;
    this.#rules.payload(command, this.#type, payload);
    this.#chunkComplete();
  }

  #beginData(command: Target, start: number, length: number): void {
    if (length === 0) {
      this.#chunkComplete();
      return;
    }
    this.#rules.prepareBuffer(command);
    this.#state = DATA;
    this.#at = start;
    this.#chunkStart = start;
    this.#remaining = length;
  }

  #readData(bytes: Buffer, at: number, end: number): number {
    const command = this.#command as Target;
    const take = Math.min(this.#remaining, end - at);
    const { buffer } = command;
    if (buffer !== null) {
      if (buffer.length < this.#at + take) this.#rules.bufferLost(command);
      else bytes.copy(buffer, this.#at, at, at + take);
    }
    this.#at += take;
    this.#remaining -= take;
    if (this.#remaining === 0) this.#dataComplete();
    return at + take;
  }

  #dataComplete(): void {
    this.#rules.dataArrived(this.#command as Target, this.#chunkStart, this.#at - this.#chunkStart);
    this.#chunkComplete();
  }

  #chunkComplete(): void {
    const command = this.#command as Target;
    this.#state = HEADER;
    this.#command = null;
    if (!this.#done) return;
    this.#rules.replyComplete(command);
    this.#sink.finished(command);
  }

  /** Where in a reply the decoder is, for the message of an early end. */
  get position(): string {
    if (this.#state === HEADER) return this.#have === 0 ? 'between replies' : 'inside the header of a reply';
    const what = this.#done && !this.#structured && !this.#extended ? 'a reply' : `a chunk (${chunkName(this.#type)})`;
    return `inside ${what}, with ${this.#remaining} bytes still due`;
  }
}
