// Writes commands to the transport: everything that was granted in a tick is sent in one write, up to a limit.
// Invariant: there is one write at a time, so that the slab is free again when it has been flushed.

import { Buffer } from '../../util/buffer.js';
import { type Command, STAGE_GRANTED, STAGE_ISSUED } from './command.js';
import { EXTENDED_REQUEST_LENGTH, NBD_CMD_WRITE } from '../../protocol/constants.js';
import { encodeRequest } from '../../protocol/request-encoder.js';
import { afterTick } from '../../util/platform.js';
import type { Transport } from '../../transport/transport.js';
import { byteLengthOf } from '../../util/views.js';

/** Payloads up to this are copied behind their header: a copy costs less than a separate iovec. */
const INLINE_PAYLOAD = 8 * 1024;
const SLAB_LENGTH = 320 * 1024;
/** A transport reports a write only when all of it has been sent: shorter writes show progress on a slow link. */
const MAX_WRITE = 1024 * 1024;

const NOTHING = new Uint8Array(0);
/** With fewer aborted commands than this, it is not worth going through the queue. */
const COMPACT_AT = 256;

/** A write whose buffer was detached or resized since the call. */
const isSpoiled = ({ payload, spec, count }: Command): boolean =>
  payload !== null && spec.type === NBD_CMD_WRITE && byteLengthOf(payload) !== count;

/** Callbacks of a RequestWriter. */
export interface RequestSource {
  /** The command's header is about to be written. */
  issued(command: Command): void;
  /** A part of its payload has been sent, not all of it. */
  payloadMoved(command: Command): void;
  /** All of its payload has been sent. */
  payloadSent(command: Command): void;
  /** Its buffer was detached or resized before its turn: nothing of the command is sent. */
  spoiled(command: Command): void;
  /**
   * Its buffer was detached or resized while it was being sent: the server waits for bytes that do not exist any more.
   */
  torn(command: Command): void;
}

export class RequestWriter {
  readonly #transport: Transport;
  readonly #extendedHeaders: boolean;
  readonly #source: RequestSource;
  #slab = Buffer.allocUnsafeSlow(16 * 1024);
  #queue: Command[] = [];
  #head = 0;
  /** Aborted commands in the queue, which does not move while a write is under way. */
  #cancelled = 0;
  #scheduled = false;
  #receiving = false;
  #writing = false;
  #stopped = false;
  /** Commands whose payload was passed by reference and ends in the current write. */
  #byReference: Command[] = [];
  /** The command whose payload does not fit into the current write, and the part that is still to be sent. */
  #cut: Command | null = null;
  #rest: Uint8Array = NOTHING;
  #restLength = 0;
  #spoiled: Command[] = [];
  #onIdle: (() => void) | null = null;
  bytes = 0;
  chunks = 0;

  constructor(transport: Transport, extendedHeaders: boolean, source: RequestSource) {
    this.#transport = transport;
    this.#extendedHeaders = extendedHeaders;
    this.#source = source;
  }

  /** The command is sent with this tick's write. */
  enqueue(command: Command): void {
    command.stage = STAGE_GRANTED;
    this.#queue.push(command);
    if (!this.#scheduled && !this.#receiving) {
      this.#scheduled = true;
      afterTick(this.#flush);
    }
  }

  /** A command that was granted and not sent was aborted: it is skipped, or removed. */
  cancelled(): void {
    if (++this.#cancelled < COMPACT_AT || this.#cancelled * 2 < this.#queue.length - this.#head) return;
    this.#cancelled = 0;
    this.#queue = this.#queue.slice(this.#head).filter((command) => command.stage === STAGE_GRANTED);
    this.#head = 0;
  }

  /** Replies are about to be decoded: commands granted meanwhile are written together with those that follow. */
  beginReceiving(): void {
    this.#receiving = true;
  }

  endReceiving(): void {
    this.#receiving = false;
    if (this.#scheduled || this.#head === this.#queue.length) return;
    this.#scheduled = true;
    queueMicrotask(this.#afterMicrotasks);
  }

  /** The transport has not sent all of the last write. */
  get isWriting(): boolean {
    return this.#writing;
  }

  /** Calls back when everything has been sent. */
  whenIdle(callback: () => void): void {
    if (this.#writing || this.#hasMore) this.#onIdle = callback;
    else callback();
  }

  /** Stops writing; returns the commands that were granted and not sent. */
  stop(): Command[] {
    this.#stopped = true;
    this.#onIdle = null;
    this.#byReference = [];
    this.#cut = null;
    this.#rest = NOTHING;
    return this.takeGranted();
  }

  /** Takes out the commands that were granted and not sent. */
  takeGranted(): Command[] {
    const granted = [...this.#spoiled, ...this.#queue.slice(this.#head)];
    this.#spoiled = [];
    this.#queue = [];
    this.#head = 0;
    this.#cancelled = 0;
    return granted.filter((command) => command.stage === STAGE_GRANTED);
  }

  /** A method, because TypeScript does not know that callbacks change the flag. */
  #hasStopped(): boolean {
    return this.#stopped;
  }

  get #hasMore(): boolean {
    return this.#cut !== null || this.#head < this.#queue.length;
  }

  // In a read event a tick runs before the microtasks; a tick scheduled from a microtask runs after the last of them.
  // By then the continuations of a whole batch of replies have issued their next commands, so that N replies lead to N
  // requests in one write.
  readonly #afterMicrotasks = (): void => {
    afterTick(this.#flush);
  };

  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#writing || this.#stopped) return;
    if (this.#cut !== null && byteLengthOf(this.#rest) !== this.#restLength) {
      this.#source.torn(this.#cut);
      return;
    }
    const buffers = this.#encode();
    if (this.#spoiled.length > 0 && !this.#endSpoiled()) return;
    if (buffers.length === 0) return;
    this.#writing = true;
    this.#transport.write(buffers, this.#flushed);
  };

  /** Returns false if a callback has closed the connection meanwhile. */
  #endSpoiled(): boolean {
    for (let command = this.#spoiled.shift(); command !== undefined; command = this.#spoiled.shift()) {
      this.#source.spoiled(command);
    }
    return !this.#stopped;
  }

  readonly #flushed = (): void => {
    if (this.#stopped) return;
    this.#writing = false;
    const sent = this.#byReference;
    if (sent.length > 0) {
      this.#byReference = [];
      for (const command of sent) {
        if (isSpoiled(command)) {
          // The buffer changed since the write: it is not known what was sent.
          this.#source.torn(command);
          return;
        }
        command.flushed = true;
        this.#source.payloadSent(command);
        // A callback has closed the connection: the remaining commands have been settled with it.
        if (this.#hasStopped()) return;
      }
    }
    if (this.#cut !== null) this.#source.payloadMoved(this.#cut);
    if (this.#hasMore) {
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
    let room = MAX_WRITE;
    if (this.#cut !== null) room -= this.#take(this.#cut, this.#rest, room, buffers);
    for (; room > 0 && this.#head < queue.length; this.#head++) {
      const command = queue[this.#head] as Command;
      if (command.stage !== STAGE_GRANTED) continue;
      const { payload } = command;
      const length = payload === null ? 0 : byteLengthOf(payload);
      if (length !== command.count && payload !== null && command.spec.type === NBD_CMD_WRITE) {
        this.#spoiled.push(command);
        continue;
      }
      const inline = length <= INLINE_PAYLOAD ? length : 0;
      if (at + EXTENDED_REQUEST_LENGTH + inline > this.#slab.length && !this.#grow(at)) break;
      command.stage = STAGE_ISSUED;
      at = encodeRequest(this.#slab, at, command, this.#extendedHeaders);
      this.chunks++;
      if (payload !== null && length > 0) {
        if (inline > 0) {
          this.#slab.set(payload, at);
          at += inline;
        } else {
          buffers.push(this.#slab.subarray(from, at));
          from = at;
          command.flushed = false;
          room -= this.#take(command, payload, room, buffers);
        }
      }
      this.#source.issued(command);
    }
    if (this.#head === queue.length) {
      this.#queue = [];
      this.#head = 0;
      this.#cancelled = 0;
    }
    if (at > from) buffers.push(this.#slab.subarray(from, at));
    this.bytes += at;
    return buffers;
  }

  /** Adds as much of a payload to the write as there is room for; returns the number of bytes. */
  #take(command: Command, payload: Uint8Array, room: number, buffers: Uint8Array[]): number {
    const isWhole = payload.length <= room;
    const part = isWhole ? payload : payload.subarray(0, room);
    buffers.push(part);
    this.bytes += part.length;
    this.#cut = isWhole ? null : command;
    this.#rest = isWhole ? NOTHING : payload.subarray(room, payload.length);
    this.#restLength = this.#rest.length;
    if (isWhole) this.#byReference.push(command);
    return part.length;
  }

  /** Replaces the slab by a longer one: the first suits reads, this one a window of small writes. */
  #grow(at: number): boolean {
    if (this.#slab.length >= SLAB_LENGTH) return false;
    const slab = Buffer.allocUnsafeSlow(SLAB_LENGTH);
    slab.set(this.#slab.subarray(0, at));
    this.#slab = slab;
    return true;
  }
}
