// Aborted writes of which the socket has taken a part: their buffers are in use until it has taken the rest, so they
// wait for it as long as bytes leave. Where none leave, the connection is given up: nothing else frees the buffers.

import { NbdConnectionError } from '../../errors.js';
import type { Transport } from '../../transport/transport.js';

/** Where `closeTimeout` sets no limit there is one all the same: an abort is not to wait for ever. */
const DEFAULT_LIMIT = 5_000;
const CHECKS = 8;

export class WriteStall {
  readonly #limit: number;
  readonly #transport: Transport;
  readonly #onStall: (error: NbdConnectionError) => void;
  #timer: NodeJS.Timeout | null = null;
  #waiting = 0;
  #unsent = 0;
  #movedAt = 0;

  /** `limit` in milliseconds; 0 for the default one. */
  constructor(limit: number, transport: Transport, onStall: (error: NbdConnectionError) => void) {
    this.#limit = limit > 0 ? limit : DEFAULT_LIMIT;
    this.#transport = transport;
    this.#onStall = onStall;
  }

  /** One more aborted write waits for its bytes to leave. */
  begin(): void {
    if (++this.#waiting > 1) return;
    this.#unsent = this.#transport.unsent ?? 0;
    this.#movedAt = performance.now();
    this.#timer = setInterval(this.#check, Math.max(1, Math.ceil(this.#limit / CHECKS)));
  }

  /** Its bytes have left. */
  end(): void {
    if (--this.#waiting === 0) this.stop();
  }

  /** The write under way has left: on a transport that says no more, bytes move. */
  moved(): void {
    this.#movedAt = performance.now();
  }

  stop(): void {
    this.#waiting = 0;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  readonly #check = (): void => {
    const { unsent = 0 } = this.#transport;
    if (unsent !== this.#unsent) {
      this.#unsent = unsent;
      this.#movedAt = performance.now();
    } else if (performance.now() - this.#movedAt >= this.#limit) {
      this.stop();
      this.#onStall(
        new NbdConnectionError(
          `connection: the peer has taken no byte for ${this.#limit} ms, in the middle of a write that was aborted; ` +
            'its buffer is free only when the connection is given up (closeTimeout)',
          { code: 'ETIMEDOUT' },
        ),
      );
    }
  };
}
