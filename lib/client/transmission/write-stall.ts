// Aborted writes of which the socket has accepted a part: their buffers are in use until it has accepted the rest, so
// they wait for that as long as bytes are sent. If none are sent, the connection is closed: nothing else frees the
// buffers.

import { NbdConnectionError } from '../../errors.js';
import type { Transport } from '../../transport/transport.js';

/** The limit if `closeTimeout` sets none: an abort must not wait for ever. */
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

  /** `limit` in milliseconds; 0 for the default. */
  constructor(limit: number, transport: Transport, onStall: (error: NbdConnectionError) => void) {
    this.#limit = limit > 0 ? limit : DEFAULT_LIMIT;
    this.#transport = transport;
    this.#onStall = onStall;
  }

  /** One more aborted write waits until its bytes have been sent. */
  begin(): void {
    if (++this.#waiting > 1) return;
    this.#unsent = this.#transport.unsent ?? 0;
    this.#movedAt = performance.now();
    this.#timer = setInterval(this.#check, Math.max(1, Math.ceil(this.#limit / CHECKS)));
  }

  /** The bytes of an aborted write have been sent. */
  end(): void {
    if (--this.#waiting === 0) this.stop();
  }

  /** The current write was sent: the only sign of progress on a transport without `unsent`. */
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
