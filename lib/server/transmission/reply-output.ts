// What a connection sends: replies gathered over a tick and written at once, large ones by reference. Invariants:
// nothing is written after close(), and the bytes that wait are bounded as long as hasRoom() is heeded.

import { clearImmediate, setImmediate } from 'node:timers';
import type { StreamTransport } from '../../transport/stream.js';
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
  #transport: StreamTransport;
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
    return this.#pieceBytes + (this.#closed ? 0 : this.#transport.buffered);
  }

  constructor(transport: StreamTransport, options: OutputOptions) {
    this.#transport = transport;
    this.#options = options;
  }

  /** Whether another reply may be made. If false, wait for `written`; what was gathered has been flushed then. */
  hasRoom(): boolean {
    const { limit } = this.#options;
    if (this.#pieceBytes + this.#transport.buffered <= limit) return true;
    this.flush();
    return this.#transport.buffered <= limit;
  }

  /** From now on everything goes to this transport: TLS over the old one. */
  attach(transport: StreamTransport): void {
    this.#transport = transport;
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
  send(bytes: Uint8Array): void {
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
