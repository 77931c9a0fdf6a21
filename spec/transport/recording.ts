// A receiver that records the calls of a transport.

import { type Receiver } from '../../lib/transport/transport.js';

export class Recording implements Receiver {
  /** 'push', 'advance', 'end', 'close' …, in order. */
  readonly calls: string[] = [];
  readonly chunks: Buffer[] = [];
  /** The buffer that the next read is to land in. */
  buffer: Uint8Array = new Uint8Array(64);
  error: Error | null | undefined = undefined;
  targets = 0;
  #wake: (() => void)[] = [];

  get bytes(): string {
    return Buffer.concat(this.chunks).toString();
  }

  target(): Uint8Array {
    this.targets++;
    return this.buffer;
  }

  advance(length: number): void {
    this.#note('advance', this.buffer.subarray(0, length));
  }

  push(chunk: Uint8Array): void {
    this.#note('push', chunk);
  }

  end(): void {
    this.#note('end');
  }

  close(error: Error | null): void {
    this.error = error;
    this.#note('close');
  }

  /** Resolves when the condition holds, looked at after each call. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  closed(): Promise<void> {
    return this.until(() => this.calls.includes('close'));
  }

  #note(call: string, bytes?: Uint8Array): void {
    this.calls.push(call);
    // A copy: the buffer may be used again at once.
    if (bytes !== undefined) this.chunks.push(Buffer.from(bytes));
    for (const wake of this.#wake.splice(0)) wake();
  }
}
