// Commands to bytes on the transport: everything that was granted in a tick goes out in one write.
// Invariant: one write at a time, so that the slab is free again when it has been flushed.

import { type Command, STAGE_GRANTED, STAGE_ISSUED } from '../protocol/command.js';
import { EXTENDED_REQUEST_LENGTH } from '../protocol/constants.js';
import { encodeRequest } from '../protocol/request-encoder.js';
import type { Transport } from '../transport/transport.js';

/** Payloads up to this are copied beside their header: one copy costs less than an iovec of their own. */
const INLINE_PAYLOAD = 8 * 1024;
const SLAB_LENGTH = 320 * 1024;

export class RequestWriter {
  readonly #transport: Transport;
  readonly #extendedHeaders: boolean;
  /** Told when a command's header is about to be written, and when its payload has left. */
  readonly #onIssued: (command: Command) => void;
  readonly #onFlushed: (command: Command) => void;
  #slab = Buffer.allocUnsafeSlow(16 * 1024);
  #queue: Command[] = [];
  #head = 0;
  #scheduled = false;
  #receiving = false;
  #writing = false;
  #stopped = false;
  /** Commands of the write under way whose payload went by reference. */
  #byReference: Command[] = [];
  #onIdle: (() => void) | null = null;
  bytes = 0;
  chunks = 0;

  constructor(
    transport: Transport,
    extendedHeaders: boolean,
    onIssued: (command: Command) => void,
    onFlushed: (command: Command) => void,
  ) {
    this.#transport = transport;
    this.#extendedHeaders = extendedHeaders;
    this.#onIssued = onIssued;
    this.#onFlushed = onFlushed;
  }

  /** The command goes out with this tick's write. */
  push(command: Command): void {
    command.stage = STAGE_GRANTED;
    this.#queue.push(command);
    if (!this.#scheduled && !this.#receiving) {
      this.#scheduled = true;
      process.nextTick(this.#flush);
    }
  }

  /** Replies are about to be decoded: what is granted meanwhile waits for the commands that follow from them. */
  beginReceiving(): void {
    this.#receiving = true;
  }

  endReceiving(): void {
    this.#receiving = false;
    if (this.#scheduled || this.#head === this.#queue.length) return;
    this.#scheduled = true;
    queueMicrotask(this.#afterMicrotasks);
  }

  /** Calls back when everything has left. */
  whenIdle(callback: () => void): void {
    if (this.#writing || this.#head < this.#queue.length) this.#onIdle = callback;
    else callback();
  }

  /** Nothing more goes out; returns what was granted and has not. */
  stop(): Command[] {
    this.#stopped = true;
    this.#byReference = [];
    return this.takeGranted();
  }

  /** Takes out what was granted and has not gone. */
  takeGranted(): Command[] {
    const granted = this.#queue.slice(this.#head).filter((command) => command.stage === STAGE_GRANTED);
    this.#queue = [];
    this.#head = 0;
    return granted;
  }

  // In a read event a tick would run before the microtasks. One begun from a microtask runs after the last of them:
  // the continuations of a whole batch of replies have then issued their next commands, and N replies make N
  // requests in one write.
  readonly #afterMicrotasks = (): void => {
    process.nextTick(this.#flush);
  };

  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#writing || this.#stopped) return;
    const buffers = this.#encode();
    if (buffers.length === 0) return;
    this.#writing = true;
    this.#transport.write(buffers, this.#flushed);
  };

  readonly #flushed = (): void => {
    if (this.#stopped) return;
    this.#writing = false;
    const left = this.#byReference;
    if (left.length > 0) {
      this.#byReference = [];
      for (const command of left) {
        command.flushed = true;
        this.#onFlushed(command);
      }
    }
    if (this.#head < this.#queue.length) {
      if (!this.#scheduled) this.#flush();
    } else if (this.#onIdle !== null) {
      const onIdle = this.#onIdle;
      this.#onIdle = null;
      onIdle();
    }
  };

  #encode(): Uint8Array[] {
    const queue = this.#queue;
    const buffers: Uint8Array[] = [];
    let from = 0;
    let at = 0;
    for (; this.#head < queue.length; this.#head++) {
      const command = queue[this.#head] as Command;
      if (command.stage !== STAGE_GRANTED) continue;
      const { payload } = command;
      const inline = payload !== null && payload.length <= INLINE_PAYLOAD ? payload.length : 0;
      if (at + EXTENDED_REQUEST_LENGTH + inline > this.#slab.length && !this.#grow(at)) break;
      command.stage = STAGE_ISSUED;
      at = encodeRequest(this.#slab, at, command, this.#extendedHeaders);
      this.chunks++;
      if (payload !== null && payload.length > 0) {
        if (inline > 0) {
          this.#slab.set(payload, at);
          at += inline;
        } else {
          buffers.push(this.#slab.subarray(from, at), payload);
          this.bytes += payload.length;
          from = at;
          command.flushed = false;
          this.#byReference.push(command);
        }
      }
      this.#onIssued(command);
    }
    if (this.#head === queue.length) {
      this.#queue = [];
      this.#head = 0;
    }
    if (at > from) buffers.push(this.#slab.subarray(from, at));
    this.bytes += at;
    return buffers;
  }

  /** A longer slab, before anything is in it; the first one suits reads, this one a window of small writes. */
  #grow(at: number): boolean {
    if (this.#slab.length >= SLAB_LENGTH) return false;
    const slab = Buffer.allocUnsafeSlow(SLAB_LENGTH);
    slab.set(this.#slab.subarray(0, at));
    this.#slab = slab;
    return true;
  }
}
