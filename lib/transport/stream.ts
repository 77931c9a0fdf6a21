// Any Duplex as a transport: TLS sockets, sockets that the caller opened, streams in memory.

import type { Duplex } from 'node:stream';
import type { ChunkReceiver, PausableTransport } from './transport.js';

/** Members that sockets have and a plain Duplex may lack. */
interface SocketParts {
  /** Undocumented, so it may be missing; Node reads it for the idle timeout of sockets. */
  readonly _handle?: { readonly writeQueueSize?: number } | null;
  ref?: () => unknown;
  unref?: () => unknown;
}

/**
 * Called when the stream ends unexpectedly. Resolves with a more specific error (a subprocess's exit status, a TLS
 * alert) or with the error that was passed; null means a normal end.
 */
export type EndExplainer = (error: Error | null) => Promise<Error | null>;

/** Unlike other transports, it never reuses a chunk that it has delivered: the receiver may keep it. */
export class StreamTransport implements PausableTransport {
  readonly description: string;
  /** Called at an unexpected end, before the receiver is notified; the notification waits for the result. */
  explainEnd: EndExplainer | null = null;
  protected readonly stream: Duplex & SocketParts;
  protected receiver: ChunkReceiver | null = null;
  #error: Error | null = null;
  #isDestroyed = false;
  #isExplaining = false;

  constructor(stream: Duplex, description: string) {
    this.stream = stream;
    this.description = description;
    // Registered at once: an 'error' without a listener would end the process.
    stream.on('error', this.#onError);
    stream.on('close', this.#onClose);
  }

  start(receiver: ChunkReceiver): void {
    this.receiver = receiver;
    if (this.stream.destroyed) {
      // Its 'error' and 'close' may have been emitted before the listeners were added, or may still follow.
      this.#error ??= this.stream.errored;
      queueMicrotask(this.#onClose);
      return;
    }
    this.stream.on('end', this.#onEnd);
    this.listen();
  }

  /** Starts reading from the stream. */
  protected listen(): void {
    this.stream.on('data', this.#onData);
    // Its owner may have paused it, so that nothing is lost before the handover; it would stay paused otherwise.
    this.stream.resume();
  }

  /** Stops reading and returns the stream to a new owner (TLS). */
  detach(): Duplex {
    this.stream.off('data', this.#onData);
    this.stream.off('end', this.#onEnd);
    this.stream.off('error', this.#onError);
    this.stream.off('close', this.#onClose);
    this.receiver = null;
    return this.stream;
  }

  write(buffers: readonly Uint8Array[], flushed: () => void): void {
    const { stream } = this;
    const written = (error?: Error | null): void => {
      // A broken socket calls back without an error for data that it could not write.
      if (error == null && !stream.destroyed) flushed();
    };
    if (buffers.length === 1) {
      stream.write(buffers[0], written);
      return;
    }
    const last = buffers.length - 1;
    stream.cork();
    for (let i = 0; i < last; i++) stream.write(buffers[i]);
    stream.write(buffers[last], written);
    stream.uncork();
  }

  get unsent(): number {
    return this.stream.writableLength + (this.stream._handle?.writeQueueSize ?? 0);
  }

  /** Bytes that were written and that the stream still holds. */
  get buffered(): number {
    return this.stream.writableLength;
  }

  /** Bytes that have arrived and have not been delivered: while paused, or behind the chunk that is being delivered. */
  get undelivered(): number {
    return this.stream.readableLength;
  }

  /** Stops delivering: back-pressure towards the peer. */
  pause(): void {
    this.stream.pause();
  }

  resume(): void {
    this.stream.resume();
  }

  /** Half-closes after what was written, and calls back when that is out, or when it cannot be sent any more. */
  end(gone?: () => void): void {
    if (!this.stream.writableEnded && !this.stream.destroyed) this.stream.end(gone);
  }

  destroy(): void {
    this.#isDestroyed = true;
    this.stream.destroy();
  }

  ref(): void {
    this.stream.ref?.();
  }

  unref(): void {
    this.stream.unref?.();
  }

  readonly #onData = (chunk: Uint8Array | string): void => {
    // A stream with an encoding emits strings, in which bytes are already lost.
    if (typeof chunk === 'string') this.stream.destroy(new TypeError('the stream must not have an encoding set'));
    else this.receiver?.push(chunk);
  };

  readonly #onEnd = (): void => {
    if (this.explainEnd === null || this.stream.writableEnded) this.receiver?.end();
    else void this.#ended(this.explainEnd, null);
  };

  readonly #onError = (error: Error): void => {
    this.#error ??= error;
    // A TLS socket emits 'error' for a broken session but stays open.
    this.stream.destroy();
  };

  readonly #onClose = (): void => {
    if (this.explainEnd === null || this.#isDestroyed) this.#close(this.#error);
    else void this.#ended(this.explainEnd, this.#error);
  };

  async #ended(explain: EndExplainer, error: Error | null): Promise<void> {
    if (this.#isExplaining) return;
    this.#isExplaining = true;
    const answer = await explain(error);
    if (answer === null && !this.stream.destroyed) {
      this.receiver?.end();
      return;
    }
    this.#close(answer ?? this.#error);
    this.stream.destroy();
  }

  #close(error: Error | null): void {
    const { receiver } = this;
    if (receiver === null) return;
    this.receiver = null;
    receiver.close(error);
  }
}
