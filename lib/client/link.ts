// The one receiver of a connection's transport. It hands bytes to the phase that the connection is in, and turns
// whatever goes wrong there into the connection's death: nothing thrown here may reach the socket.

import type { Receiver, Transport } from '../transport/transport.js';

/** The handshake or the transmission: whoever makes sense of the bytes. May throw. */
export interface Phase {
  target(): Uint8Array;
  advance(length: number): void;
  push(chunk: Uint8Array): void;
}

/** Whom a link tells about its end. */
export interface LinkOwner {
  /** A phase threw: the peer broke a rule, or a bug. */
  failed(error: unknown): void;
  /** The peer sends no more. */
  ended(): void;
  /** The stream is gone. */
  closed(error: Error | null): void;
}

export class Link implements Receiver {
  transport: Transport;
  #phase: Phase;
  readonly #owner: LinkOwner;
  bytesReceived = 0;
  #target: Uint8Array | null = null;
  #chosenBy: Phase | null = null;

  constructor(transport: Transport, phase: Phase, owner: LinkOwner) {
    this.transport = transport;
    this.#phase = phase;
    this.#owner = owner;
  }

  set phase(phase: Phase) {
    this.#phase = phase;
  }

  target(): Uint8Array {
    this.#chosenBy = this.#phase;
    this.#target = this.#phase.target();
    return this.#target;
  }

  advance(length: number): void {
    this.bytesReceived += length;
    try {
      // The phase may have changed since it chose the buffer.
      if (this.#chosenBy === this.#phase) this.#phase.advance(length);
      else if (this.#target !== null) this.#phase.push(this.#target.subarray(0, length));
    } catch (error) {
      this.#owner.failed(error);
    }
  }

  push(chunk: Uint8Array): void {
    this.bytesReceived += chunk.length;
    try {
      this.#phase.push(chunk);
    } catch (error) {
      this.#owner.failed(error);
    }
  }

  end(): void {
    this.#owner.ended();
  }

  close(error: Error | null): void {
    this.#owner.closed(error);
  }
}
