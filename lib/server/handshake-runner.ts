// Runs a handshake coroutine on bytes as they come. Invariant: bytes are copied to where the coroutine wants them and
// nowhere else, so what a client sends ahead takes no memory but the chunk that it came in.

import { NbdProtocolError } from '../errors.js';
import { type Handshake, START_TLS } from '../protocol/handshake/effects.js';

export interface HandshakeHost<Result> {
  write(bytes: Uint8Array): void;
  /** True while the client is not to be served further, because it does not read what it got. */
  isBlocked(): boolean;
  /** Begin TLS; resume() is to be called when it stands. */
  startTls(): void;
  /** The end, with the bytes that came after it. */
  done(result: Result, rest: Buffer): void;
  failed(error: Error): void;
}

const EMPTY = Buffer.alloc(0);

export class HandshakeRunner<Result> {
  readonly #coroutine: Handshake<Result>;
  readonly #host: HandshakeHost<Result>;
  // The read that the coroutine waits for; null while it waits for TLS, for a reader of its replies, or not at all.
  #wanted: Buffer | null = null;
  #filled = 0;
  #rest: Buffer = EMPTY;
  #state: 'reading' | 'tls' | 'over' = 'reading';

  constructor(coroutine: Handshake<Result>, host: HandshakeHost<Result>) {
    this.#coroutine = coroutine;
    this.#host = host;
  }

  start(): void {
    this.#step(EMPTY);
    this.#run();
  }

  push(chunk: Buffer): void {
    if (this.#state === 'over') return;
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#run();
  }

  /** Goes on after TLS stands, or after the client has read. */
  resume(): void {
    if (this.#state === 'tls') {
      this.#state = 'reading';
      this.#step(EMPTY);
    }
    this.#run();
  }

  stop(): void {
    this.#state = 'over';
  }

  #run(): void {
    while (this.#wanted !== null && this.#state === 'reading' && this.#rest.length > 0 && !this.#host.isBlocked()) {
      const taken = this.#rest.copy(this.#wanted, this.#filled);
      this.#filled += taken;
      this.#rest = this.#rest.subarray(taken);
      if (this.#filled < this.#wanted.length) return;
      const bytes = this.#wanted;
      this.#wanted = null;
      this.#step(bytes);
    }
  }

  /** Performs effects up to the next read. */
  #step(input: Buffer): void {
    let sent = input;
    try {
      for (;;) {
        const next = this.#coroutine.next(sent);
        if (next.done === true) {
          this.#state = 'over';
          this.#host.done(next.value, this.#rest);
          return;
        }
        sent = EMPTY;
        if (next.value === START_TLS) {
          this.#startTls();
          return;
        }
        if (typeof next.value === 'number') {
          this.#wanted = Buffer.allocUnsafe(next.value);
          this.#filled = 0;
          return;
        }
        this.#host.write(next.value);
      }
    } catch (error) {
      this.#state = 'over';
      this.#host.failed(error as Error);
    }
  }

  #startTls(): void {
    // What came in clear behind the request could be anybody's: it must not be taken for something sent under TLS.
    if (this.#rest.length > 0) {
      throw new NbdProtocolError('the client broke the protocol: plaintext after NBD_OPT_STARTTLS', { code: 'EPROTO' });
    }
    this.#state = 'tls';
    this.#host.startTls();
  }
}
