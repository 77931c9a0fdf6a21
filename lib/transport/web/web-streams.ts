// A pair of web streams as a transport. Invariant: what is written is a copy, because the other side of a stream may
// keep, change or transfer the chunks that it receives.

import { concat } from '../../util/bytes.js';
import { isUint8Array } from '../../util/views.js';
import type { ChunkReceiver, PausableTransport } from '../transport.js';
import type { WebStreams } from './types.js';

export class WebStreamsTransport implements PausableTransport {
  readonly description: string;
  readonly #reader: ReturnType<WebStreams['readable']['getReader']>;
  readonly #writer: ReturnType<WebStreams['writable']['getWriter']>;
  #receiver: ChunkReceiver | null = null;
  #unsent = 0;
  #isEnding = false;
  #isDestroyed = false;
  /** Resolves when reading may go on; null while it is not paused. */
  #paused: { readonly over: Promise<void>; readonly resume: () => void } | null = null;

  /** Locks both streams. Throws a TypeError if one of them is locked. */
  constructor({ readable, writable }: WebStreams, description: string) {
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    this.description = description;
  }

  start(receiver: ChunkReceiver): void {
    this.#receiver = receiver;
    if (this.#isDestroyed) this.#close(null);
    else void this.#readAll();
  }

  write(buffers: readonly Uint8Array[], flushed: () => void): void {
    if (this.#isDestroyed || this.#isEnding) return;
    const chunk = concat(buffers);
    const { length } = chunk;
    this.#unsent += length;
    this.#writer.write(chunk).then(
      () => {
        this.#unsent -= length;
        if (!this.#isDestroyed) flushed();
      },
      (error: unknown) => {
        this.#fail(error);
      },
    );
  }

  get unsent(): number {
    return this.#unsent;
  }

  get buffered(): number {
    return this.#unsent;
  }

  /** At most one chunk is taken out of the stream, and only while reading is not paused. */
  readonly undelivered = 0;

  pause(): void {
    if (this.#paused !== null) return;
    let resume = (): void => undefined;
    const over = new Promise<void>((resolve) => {
      resume = resolve;
    });
    this.#paused = { over, resume };
  }

  resume(): void {
    this.#paused?.resume();
    this.#paused = null;
  }

  end(gone?: () => void): void {
    if (this.#isEnding || this.#isDestroyed) return;
    this.#isEnding = true;
    this.#writer.close().then(gone, (error: unknown) => {
      this.#fail(error);
    });
  }

  destroy(): void {
    this.#fail(null);
  }

  ref(): void {
    // Streams do not keep a process alive by themselves.
  }

  unref(): void {
    // See ref().
  }

  async #readAll(): Promise<void> {
    try {
      for (;;) {
        await this.#paused?.over;
        const { done, value } = await this.#reader.read();
        // Paused while it was waiting for the chunk.
        await this.#paused?.over;
        if (this.#isOver()) return;
        if (done) break;
        if (!isUint8Array(value)) throw new TypeError('the stream must contain Uint8Arrays');
        this.#receiver?.push(value);
      }
      this.#receiver?.end();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** A method, because TypeScript does not know that the field changes meanwhile. */
  #isOver(): boolean {
    return this.#isDestroyed;
  }

  #fail(thrown: unknown): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    this.resume();
    const ignore = (): undefined => undefined;
    this.#reader.cancel(thrown ?? undefined).catch(ignore);
    if (!this.#isEnding || thrown !== null) this.#writer.abort(thrown ?? undefined).catch(ignore);
    const error =
      thrown === null || thrown instanceof Error ? thrown : new Error(`the stream failed: ${JSON.stringify(thrown)}`);
    queueMicrotask(() => {
      this.#close(error);
    });
  }

  #close(error: Error | null): void {
    const receiver = this.#receiver;
    this.#receiver = null;
    receiver?.close(error);
  }
}
