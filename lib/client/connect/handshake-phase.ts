// Runs handshakes: performs their effects on the transport and feeds them the server's bytes.
// Invariant: bytes that come while no read is due were said out of turn, and nothing is made of them.

import { NbdProtocolError } from '../../errors.js';
import { type Handshake, START_TLS } from '../../protocol/handshake/effects.js';
import type { Transport } from '../../transport/transport.js';
import type { Phase } from '../link.js';

const SCRATCH_LENGTH = 16 * 1024;

interface Running {
  readonly handshake: Handshake<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  /** Bytes that the handshake waits for; 0 while it waits for TLS. */
  due: number;
}

export class Negotiator implements Phase {
  #transport: Transport;
  readonly #startTls: () => Promise<Transport>;
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_LENGTH);
  #chunks: Buffer[] = [];
  #available = 0;
  #running: Running | null = null;
  #stopped: { readonly error: unknown } | null = null;
  bytesSent = 0;

  constructor(transport: Transport, startTls: () => Promise<Transport>) {
    this.#transport = transport;
    this.#startTls = startTls;
  }

  get isBusy(): boolean {
    return this.#running !== null;
  }

  /**
   * Runs a handshake to its end. Both callbacks are synchronous: the bytes behind the last reply belong to whatever
   * phase comes next, and may be in the same event.
   */
  run<Result>(handshake: Handshake<Result>, resolve: (result: Result) => void, reject: (error: unknown) => void): void {
    if (this.#stopped !== null) {
      // Bytes would go nowhere, and no answer ever come.
      reject(this.#stopped.error);
      return;
    }
    this.#running = { handshake, resolve: resolve as (value: unknown) => void, reject, due: 0 };
    this.#step();
  }

  /** The connection is over: a handshake under way rejects with `error`. */
  stop(error: unknown): void {
    const running = this.#running;
    this.#stopped ??= { error };
    this.#running = null;
    this.#chunks = [];
    this.#available = 0;
    running?.reject(error);
  }

  /** What arrived beyond the end of the handshake: the first words of the transmission. */
  takeRest(): readonly Buffer[] {
    const rest = this.#chunks;
    this.#chunks = [];
    this.#available = 0;
    return rest;
  }

  target(): Uint8Array {
    return this.#scratch;
  }

  advance(length: number): void {
    this.push(this.#scratch.subarray(0, length));
  }

  push(chunk: Uint8Array): void {
    const running = this.#running;
    if (running === null) throw outOfTurn(chunk.length, 'while no option was pending');
    this.#chunks.push(Buffer.from(chunk));
    this.#available += chunk.length;
    if (running.due > 0 && this.#available >= running.due) this.#step(this.#take(running.due));
  }

  #step(bytes?: Buffer): void {
    const running = this.#running;
    if (running === null) return;
    let input = bytes;
    running.due = 0;
    try {
      for (;;) {
        const { done, value } = input === undefined ? running.handshake.next(EMPTY) : running.handshake.next(input);
        if (done === true) {
          this.#running = null;
          running.resolve(value);
          return;
        }
        const effect = value;
        input = undefined;
        if (typeof effect === 'number') {
          if (this.#available < effect) {
            running.due = effect;
            return;
          }
          input = this.#take(effect);
        } else if (effect === START_TLS) {
          this.#secure(running);
          return;
        } else {
          this.#write(effect);
        }
      }
    } catch (error) {
      this.#running = null;
      running.reject(error);
    }
  }

  #write(bytes: Uint8Array): void {
    // Before an option goes out, every reply to the one before has been read: what is left answers nothing.
    if (this.#available > 0) throw outOfTurn(this.#available, 'before the next option was sent');
    this.bytesSent += bytes.length;
    this.#transport.write([bytes], () => undefined);
  }

  #secure(running: Running): void {
    if (this.#available > 0) throw outOfTurn(this.#available, 'in plaintext after it had agreed to TLS');
    this.#startTls().then(
      (transport) => {
        this.#transport = transport;
        if (this.#running === running) this.#step(EMPTY);
      },
      (error: unknown) => {
        if (this.#running !== running) return;
        this.#running = null;
        running.reject(error);
      },
    );
  }

  #take(length: number): Buffer {
    const first = this.#chunks[0];
    this.#available -= length;
    if (first !== undefined && first.length >= length) {
      if (first.length === length) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(length);
      return Buffer.from(first.subarray(0, length));
    }
    const bytes = Buffer.alloc(length);
    let at = 0;
    let used = 0;
    while (at < length) {
      const chunk = this.#chunks[used] as Buffer;
      const take = Math.min(chunk.length, length - at);
      chunk.copy(bytes, at, 0, take);
      at += take;
      if (take === chunk.length) used++;
      else this.#chunks[used] = chunk.subarray(take);
    }
    this.#chunks.splice(0, used);
    return bytes;
  }
}

const EMPTY = Buffer.alloc(0);

const outOfTurn = (length: number, when: string): NbdProtocolError =>
  new NbdProtocolError(`handshake: the server sent ${length} bytes ${when}`, { code: 'EPROTO' });
