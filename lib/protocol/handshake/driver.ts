// Runs handshake coroutines, of the client and of the server: performs their effects on a host and resumes them with
// the peer's bytes. Invariant: bytes are copied only into the read that the coroutine waits for. Bytes that arrive early
// stay in the chunk that brought them, so that a peer that sends ahead costs no further memory.

import { Buffer } from '../../util/buffer.js';
import { type Handshake, START_TLS, type Wait } from './effects.js';

/** What a driver performs effects on. An exception of write() or startTls() ends the handshake with that error. */
export interface HandshakeHost {
  /** Sends bytes. `early` bytes of the peer have arrived that no read has asked for yet. */
  write(bytes: Uint8Array, early: number): void;
  /** Starts TLS on the stream; secured() must be called once the session is established. */
  startTls(): void;
  /**
   * The error for bytes of plaintext behind the message that starts TLS. Anyone could have sent them: they must not
   * count as something that was sent under TLS, so they end the handshake.
   */
  plaintextBeforeTls(early: number): Error;
  /** While it returns true, no read is completed: the peer does not read what it is sent. Call resume() afterwards. */
  isBlocked?(): boolean;
}

/** The outcome of one handshake; each is called synchronously, and only one of them. */
interface Run {
  readonly handshake: Handshake<unknown>;
  readonly done: (result: unknown) => void;
  readonly failed: (error: unknown) => void;
}

const EMPTY = Buffer.alloc(0);

export class HandshakeDriver {
  readonly #host: HandshakeHost;
  #run: Run | null = null;
  #isSecuring = false;
  /** The read that the coroutine waits for, and how much of it has arrived. */
  #wanted: Buffer | null = null;
  #filled = 0;
  /** Chunks that have not been read yet, oldest first. */
  #chunks: Buffer[] = [];
  #early = 0;

  constructor(host: HandshakeHost) {
    this.#host = host;
  }

  get isRunning(): boolean {
    return this.#run !== null;
  }

  /**
   * Runs a handshake; there is one at a time. The bytes behind its last message belong to the next phase and may
   * arrive in the same event: `done` takes them with takeRest(). An exception of `done` goes to `failed`.
   */
  run<Result>(handshake: Handshake<Result>, done: (result: Result) => void, failed: (error: unknown) => void): void {
    this.#run = { handshake, done: done as (result: unknown) => void, failed };
    this.#step(EMPTY);
    this.#read();
  }

  /** Bytes from the peer, ignored while no handshake runs. Those that arrive early are kept: they must not change. */
  push(chunk: Buffer): void {
    if (this.#run === null) return;
    this.#chunks.push(chunk);
    this.#early += chunk.length;
    this.#read();
  }

  /** Continues after the host was blocked. */
  resume(): void {
    this.#read();
  }

  /** The TLS session that startTls() asked for is established. */
  secured(): void {
    if (!this.#isSecuring) return;
    this.#isSecuring = false;
    this.#step(EMPTY);
    this.#read();
  }

  /** Ends the handshake that is running, if any, with an error. */
  fail(error: unknown): void {
    const run = this.#run;
    this.stop();
    run?.failed(error);
  }

  /** Ends the handshake that is running without a call back, and drops what has arrived. */
  stop(): void {
    this.#run = null;
    this.#isSecuring = false;
    this.takeRest();
  }

  /** Takes every byte that has arrived and that the handshake has not been given. */
  takeRest(): readonly Buffer[] {
    const rest = this.#chunks;
    if (this.#wanted !== null && this.#filled > 0) rest.unshift(this.#wanted.subarray(0, this.#filled));
    this.#wanted = null;
    this.#chunks = [];
    this.#early = 0;
    return rest;
  }

  /** Completes reads from what has arrived. */
  #read(): void {
    while (this.#wanted !== null && this.#early > 0 && this.#host.isBlocked?.() !== true) {
      const chunk = this.#chunks[0] as Buffer;
      const taken = chunk.copy(this.#wanted, this.#filled);
      this.#filled += taken;
      this.#early -= taken;
      if (taken === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(taken);
      if (this.#filled < this.#wanted.length) continue;
      const bytes = this.#wanted;
      this.#wanted = null;
      this.#step(bytes);
    }
  }

  /** Performs effects up to the next read, to TLS, or to the end. */
  #step(input: Buffer): void {
    let bytes = input;
    // The host may end the handshake while it performs an effect.
    for (let run = this.#run; run !== null; run = this.#run) {
      try {
        const { done, value } = run.handshake.next(bytes);
        if (done === true) {
          this.#run = null;
          run.done(value);
          return;
        }
        bytes = EMPTY;
        if (value === START_TLS) {
          if (this.#early > 0) throw this.#host.plaintextBeforeTls(this.#early);
          this.#isSecuring = true;
          this.#host.startTls();
          return;
        }
        if (typeof value === 'function') {
          this.#wait(run, value);
          return;
        }
        if (typeof value !== 'number') {
          this.#host.write(value, this.#early);
        } else if (value > 0) {
          this.#wanted = Buffer.allocUnsafe(value);
          this.#filled = 0;
          return;
        }
      } catch (error) {
        this.#run = null;
        this.#isSecuring = false;
        run.failed(error);
        return;
      }
    }
  }

  /** Meanwhile no read is completed, since none is wanted. */
  #wait(run: Run, wait: Wait): void {
    let isOver = false;
    wait(() => {
      // The handshake may have been stopped, and another one started.
      if (isOver || this.#run !== run) return;
      isOver = true;
      this.#step(EMPTY);
      this.#read();
    });
  }
}
