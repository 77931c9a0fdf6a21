// Sends a connection's replies, which are gathered over a tick and written at once, large ones by reference.
// Invariants: nothing is written after close(), and the waiting bytes are bounded as long as callers check hasRoom().

import { asBuffer, Buffer } from '../../util/buffer.js';
import { setImmediate } from '../../util/timers.js';
import type { PausableTransport } from '../../transport/transport.js';
import type { BytesFault } from '../faults.js';

const SLAB_SIZE = 262144;
/** Larger pieces are allocated separately. */
const SLAB_LIMIT = 65536;

/** What replies are sent to. */
export interface ReplySink {
  /** Returns zeroed bytes for a reply. */
  take(length: number): Buffer;
  /** Sends these bytes, which must not change afterwards. */
  send(bytes: Uint8Array): void;
}

/** Keeps one reply until it is released. */
export class HeldReply implements ReplySink {
  readonly #output: ReplySink;
  #pieces: Uint8Array[] = [];
  /** Number of bytes that are kept. */
  bytes = 0;

  constructor(output: ReplySink) {
    this.#output = output;
  }

  take(length: number): Buffer {
    return this.#output.take(length);
  }

  send(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.bytes += bytes.length;
  }

  release(): void {
    for (const piece of this.#pieces) this.#output.send(piece);
    this.#pieces = [];
  }
}

export interface OutputOptions {
  /** Called with the number of bytes passed to the stream. */
  readonly sent: (bytes: number) => void;
  /** hasRoom() is false while more bytes than this wait. */
  readonly limit: number;
  /** Called when the stream has written everything up to some flush. */
  readonly written: () => void;
  /** Returns the fault that limits what this connection may send; called before every write. */
  readonly fault: () => BytesFault | null;
  /** Called when the fault's limit is reached and all bytes up to it are written. */
  readonly cut: (how: 'close' | 'reset') => void;
}

export class ReplyOutput implements ReplySink {
  readonly #options: OutputOptions;
  #transport: PausableTransport;
  // Always zeroed memory: what a backend does not fill must not expose old content.
  #slab = Buffer.alloc(0);
  #slabUsed = 0;
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  #sent = 0;
  #isScheduled = false;
  #closed = false;

  /** Bytes that have not left this process. */
  get waiting(): number {
    return this.#pieceBytes + (this.#closed ? 0 : this.#transport.buffered);
  }

  constructor(transport: PausableTransport, options: OutputOptions) {
    this.#transport = transport;
    this.#options = options;
  }

  /** Whether another reply may be produced; if false, wait for `written`. Flushes before it returns false. */
  hasRoom(): boolean {
    const { limit } = this.#options;
    if (this.#pieceBytes + this.#transport.buffered <= limit) return true;
    this.flush();
    return this.#transport.buffered <= limit;
  }

  /** From now on everything goes to this transport: TLS over the old one. */
  attach(transport: PausableTransport): void {
    this.#transport = transport;
  }

  /** Returns zeroed bytes for a reply. */
  take(length: number): Buffer {
    if (length > SLAB_LIMIT) return Buffer.alloc(length);
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = Buffer.alloc(SLAB_SIZE);
      this.#slabUsed = 0;
    }
    const piece = this.#slab.subarray(this.#slabUsed, this.#slabUsed + length);
    this.#slabUsed += length;
    return piece;
  }

  /** Sends these bytes with the next flush, at the end of this turn of the event loop at the latest. */
  send(bytes: Uint8Array): void {
    if (this.#closed) return;
    const piece = asBuffer(bytes);
    this.#pieceBytes += piece.length;
    const last = this.#pieces.at(-1);
    if (last?.buffer === piece.buffer && last.byteOffset + last.length === piece.byteOffset) {
      // Adjacent in a slab, as replies of a synchronous backend are: join them to one piece.
      this.#pieces[this.#pieces.length - 1] = Buffer.from(
        piece.buffer as ArrayBuffer,
        last.byteOffset,
        last.length + piece.length,
      );
    } else {
      this.#pieces.push(piece);
    }
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#flushLater);
  }

  /** Writes all waiting bytes. */
  flush(): void {
    if (this.#closed || this.#pieces.length === 0) return;
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#pieceBytes = 0;
    const fault = this.#options.fault();
    if (fault === null) this.#write(pieces);
    else this.#writeLimited(pieces, fault);
  }

  /** Drops all waiting bytes, and everything from now on. */
  close(): void {
    this.#closed = true;
    this.#pieces = [];
    this.#pieceBytes = 0;
  }

  readonly #flushLater = (): void => {
    this.#isScheduled = false;
    this.flush();
  };

  readonly #written = (): void => {
    if (!this.#closed) this.#options.written();
  };

  #write(pieces: readonly Buffer[]): void {
    if (pieces.length === 0) return;
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    this.#sent += bytes;
    this.#transport.write(pieces, this.#written);
    this.#options.sent(bytes);
  }

  #writeLimited(pieces: readonly Buffer[], fault: BytesFault): void {
    const allowed: Buffer[] = [];
    let left = fault.afterBytes - this.#sent;
    for (const piece of pieces) {
      if (left <= 0) break;
      allowed.push(piece.subarray(0, left));
      left -= piece.length;
    }
    this.#write(allowed);
    if (left > 0) return;
    this.close();
    if (fault.then !== 'stall') this.#options.cut(fault.then);
  }
}
