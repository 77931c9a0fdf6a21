// The one receiver of a connection's transport. It passes bytes to the handshake or to the transmission, and an
// exception of theirs ends the connection: nothing thrown here may reach the socket.

import type { Receiver, Transport } from '../transport/transport.js';

/** Interprets received bytes: the handshake or the transmission. May throw. */
export interface ByteConsumer {
  target(): Uint8Array;
  advance(length: number): void;
  push(chunk: Uint8Array): void;
}

/** Callbacks of a Link. */
export interface LinkOwner {
  /** The consumer threw: the peer violated the protocol, or there is a bug. */
  failed(error: unknown): void;
  /** The peer sends no more. */
  ended(): void;
  /** The stream is gone. */
  closed(error: Error | null): void;
}

export class Link implements Receiver {
  transport: Transport;
  #consumer: ByteConsumer;
  readonly #owner: LinkOwner;
  bytesReceived = 0;
  #target: Uint8Array | null = null;
  #chosenBy: ByteConsumer | null = null;

  constructor(transport: Transport, consumer: ByteConsumer, owner: LinkOwner) {
    this.transport = transport;
    this.#consumer = consumer;
    this.#owner = owner;
  }

  set consumer(consumer: ByteConsumer) {
    this.#consumer = consumer;
  }

  target(): Uint8Array {
    this.#chosenBy = this.#consumer;
    this.#target = this.#consumer.target();
    return this.#target;
  }

  advance(length: number): void {
    this.bytesReceived += length;
    try {
      // The consumer may have changed since it chose the buffer.
      if (this.#chosenBy === this.#consumer) this.#consumer.advance(length);
      else if (this.#target !== null) this.#consumer.push(this.#target.subarray(0, length));
    } catch (error) {
      this.#owner.failed(error);
    }
  }

  push(chunk: Uint8Array): void {
    this.bytesReceived += chunk.length;
    try {
      this.#consumer.push(chunk);
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
