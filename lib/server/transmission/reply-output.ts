// What a connection sends: replies gathered over a tick and written at once, large ones by reference. Invariants:
// nothing is written after close(), and the bytes that wait are bounded as long as hasRoom() is heeded.

import type { Duplex } from 'node:stream';
import { clearImmediate, setImmediate } from 'node:timers';
import type { BytesFault } from '../faults.js';

const SLAB_SIZE = 262144;
/** Larger pieces get memory of their own. */
const SLAB_LIMIT = 65536;

export interface OutputOptions {
  /** Told how many bytes were given to the stream. */
  readonly sent: (bytes: number) => void;
  /** hasRoom() is false while more bytes than this wait. */
  readonly limit: number;
  /** The stream has passed on all that was written up to some flush. */
  readonly written: () => void;
  /** The fault that limits what this connection may send, asked before every write. */
  readonly fault: () => BytesFault | null;
  /** The fault's limit is reached, and its bytes are written. */
  readonly cut: (how: 'close' | 'reset') => void;
}

export class ReplyOutput {
  readonly #options: OutputOptions;
  #stream: Duplex;
  // Zeroed memory throughout: what a backend does not fill must not be what was there before.
  #slab = Buffer.alloc(0);
  #slabUsed = 0;
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  #sent = 0;
  #immediate: NodeJS.Immediate | null = null;
  #closed = false;

  /** Bytes that have not left this process. */
  get waiting(): number {
    return this.#pieceBytes + (this.#closed ? 0 : this.#stream.writableLength);
  }

  constructor(stream: Duplex, options: OutputOptions) {
    this.#stream = stream;
    this.#options = options;
  }

  /** Whether another reply may be made; if not, the stream will tell that it has drained. Writes before it says no. */
  hasRoom(): boolean {
    // Below its high water mark a stream does not tell when it has drained.
    const limit = Math.max(this.#options.limit, this.#stream.writableHighWaterMark);
    if (this.#pieceBytes + this.#stream.writableLength <= limit) return true;
    this.flush();
    return this.#stream.writableLength <= limit;
  }

  /** From now on everything goes to this stream: TLS over the old one. */
  attach(stream: Duplex): void {
    this.#stream = stream;
  }

  /** Zeroed bytes for a reply to be made in. */
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

  /** Sends these bytes with the next flush, which is at the end of this turn of the event loop at the latest. */
  push(bytes: Uint8Array): void {
    if (this.#closed) return;
    const piece = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#pieceBytes += piece.length;
    const last = this.#pieces.at(-1);
    if (last?.buffer === piece.buffer && last.byteOffset + last.length === piece.byteOffset) {
      // Neighbours in a slab, which is how replies come from a backend that answers at once: one piece.
      this.#pieces[this.#pieces.length - 1] = Buffer.from(
        piece.buffer as ArrayBuffer,
        last.byteOffset,
        last.length + piece.length,
      );
    } else {
      this.#pieces.push(piece);
    }
    this.#immediate ??= setImmediate(() => {
      this.#immediate = null;
      this.flush();
    });
  }

  /** Writes what waits. */
  flush(): void {
    if (this.#closed || this.#pieces.length === 0) return;
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#pieceBytes = 0;
    const fault = this.#options.fault();
    if (fault === null) this.#write(pieces);
    else this.#writeLimited(pieces, fault);
  }

  /** Drops what waits, and everything from here on. */
  close(): void {
    this.#closed = true;
    this.#pieces = [];
    this.#pieceBytes = 0;
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#immediate = null;
  }

  readonly #written = (): void => {
    if (!this.#closed) this.#options.written();
  };

  #write(pieces: readonly Buffer[]): void {
    const before = this.#sent;
    const last = pieces.length - 1;
    this.#stream.cork();
    for (let i = 0; i <= last; i += 1) {
      const piece = pieces[i] as Buffer;
      this.#sent += piece.length;
      if (i < last) this.#stream.write(piece);
      else this.#stream.write(piece, this.#written);
    }
    this.#stream.uncork();
    this.#options.sent(this.#sent - before);
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
