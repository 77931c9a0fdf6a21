// The transmission phase of one connection: requests in, replies out. Invariants: running requests and held bytes stay
// within the limits; a client that does not read its replies is not read from; whatever a backend throws becomes an
// error reply; after destroy() nothing more happens.

import type { Buffer } from '../../util/buffer.js';
import { NbdConnectionError } from '../../errors.js';
import * as c from '../../protocol/constants.js';
import { wireError } from '../../protocol/names.js';
import { ReplyEncoder } from '../../protocol/reply-encoder.js';
import { type Request, RequestDecoder } from '../../protocol/request-decoder.js';
import type { MemoryAccount, MemoryBudget } from './memory-budget.js';
import { Dispatcher, type DispatchOptions, type Way } from './dispatcher.js';
import type { PayloadPool } from './payload-pool.js';
import { Postponed } from './postponed.js';
import type { ReplyOutput, ReplySink } from './reply-output.js';
import { filterLimit, hasFilter, type Session, validate } from './request-validation.js';
import type { Statistics } from '../statistics.js';
import { wireErrorOf } from './wire-error.js';

/** "any payload not exceeding 2^25 bytes SHOULD NOT be considered a denial of service attack". */
const TOLERATED_PAYLOAD = 1 << 25;
/** Payloads up to this length are usually part of the stream's chunk, or cost as little. */
const SMALL_PAYLOAD = 65536;

export interface TransmissionOptions extends DispatchOptions {
  /** Maximum number of running requests. */
  readonly maxInFlight: number;
  /** Maximum bytes of their payloads; a larger request runs alone. */
  readonly maxInFlightBytes: number;
  /** Bytes of replies that may wait for a client that has not proved yet that it reads. */
  readonly maxReplyBytes: number;
  /** Memory of all connections together. */
  readonly budget: MemoryBudget;
  /** Allocates memory for payloads. */
  readonly payloads: PayloadPool;
  readonly statistics: Statistics;
}

/** The part of a connection that the transmission phase uses. */
export interface TransmissionHost {
  readonly output: ReplyOutput;
  /** Stops reading from the client, until resume(). */
  pause(): void;
  resume(): void;
  /** Called when all requests have been replied to and the client or the server has disconnected. */
  finished(): void;
  /** Called when a fault ends the connection. */
  cut(how: 'close' | 'reset'): void;
  /** Called when an error ends the connection. */
  failed(error: Error): void;
}

export class Transmission {
  readonly #host: TransmissionHost;
  readonly #session: Session;
  readonly #options: TransmissionOptions;
  readonly #encoder: ReplyEncoder;
  readonly #decoder: RequestDecoder;
  readonly #dispatcher: Dispatcher;
  // Requests that wait for others to end; at most as many as one chunk of the stream contains.
  #waiting: Request[] = [];
  #nextWaiting = 0;
  readonly #postponed: Postponed;
  #running = 0;
  #runningBytes = 0;
  /** The part of #runningBytes that will be sent as replies. */
  #readingBytes = 0;
  /** Bytes of payloads of waiting requests. */
  #waitingBytes = 0;
  /** Bytes of replies that may be produced ahead of the client; grows while the client reads. */
  #window: number;
  #sentInWindow = 0;
  #account: MemoryAccount;
  readonly #abort = new AbortController();
  /** When the client last read or sent something. */
  #lastProgress = performance.now();
  #pumping = false;
  #paused = false;
  #ending = false;
  #isDisconnected = false;
  #shuttingDown = false;
  #gone = false;

  constructor(host: TransmissionHost, session: Session, options: TransmissionOptions) {
    this.#host = host;
    this.#session = session;
    this.#options = options;
    this.#encoder = new ReplyEncoder(session.style, (length) => host.output.take(length));
    this.#postponed = new Postponed(() => {
      this.#pump();
    });
    this.#dispatcher = new Dispatcher({
      ...options,
      session,
      encoder: this.#encoder,
      output: host.output,
      signal: this.#abort.signal,
      postponed: this.#postponed,
      weight: (request) => this.#weight(request),
      perform: (request, way) => {
        this.#perform(request, way);
      },
      refuse: (request, error, message) => {
        this.#refuse(request, error, message, host.output);
      },
      fail: (request, error) => {
        this.#fail(request, error, host.output);
      },
      cut: (how) => {
        host.cut(how);
      },
    });
    this.#window = options.maxReplyBytes;
    this.#account = options.budget.open({
      roomAgain: () => {
        this.#roomAgain();
      },
      isStalled: (milliseconds) => this.#isStalled(milliseconds),
      evict: () => {
        const reason = 'the client makes no progress while other connections need memory';
        host.failed(new NbdConnectionError(reason, { code: 'ETIMEDOUT' }));
      },
    });
    this.#decoder = new RequestDecoder(
      {
        payloadFor: (request, present) => this.#payloadFor(request, present),
        request: (request) => {
          this.#arrived(request);
        },
      },
      {
        extendedHeaders: session.style === 'extended',
        payloadLimit: session.export.disconnectsLargeWrites
          ? session.export.maxPayload
          : Math.max(session.export.maxPayload, TOLERATED_PAYLOAD),
      },
    );
  }

  /** Handles bytes from the client; throws NbdProtocolError if they violate the protocol. */
  push(chunk: Buffer): void {
    this.#lastProgress = performance.now();
    this.#decoder.push(chunk);
    this.#pump();
  }

  /** Called when the client sends no more: complete requests are still replied to. */
  end(): void {
    this.#decoder.stop();
    this.#ending = true;
    this.#pump();
  }

  /** Whether the client has sent NBD_CMD_DISC. */
  get isDisconnected(): boolean {
    return this.#isDisconnected;
  }

  /** Called when the stream has written replies. */
  written(): void {
    this.#lastProgress = performance.now();
    if (this.#host.output.waiting === 0) {
      if (this.#sentInWindow >= this.#window) {
        this.#window = Math.min(Math.max(this.#window, 1) * 2, Math.max(this.#window, this.#options.maxInFlightBytes));
        this.#sentInWindow = 0;
      }
    }
    this.#pump();
  }

  /** Called when the server closes: running requests are finished, all others fail with ESHUTDOWN. */
  shutdown(): void {
    this.#shuttingDown = true;
    this.#postponed.releaseHeld();
    this.end();
  }

  /** Called when the connection has ended. */
  destroy(): void {
    this.#gone = true;
    this.#decoder.stop();
    this.#waiting = [];
    this.#nextWaiting = 0;
    this.#waitingBytes = 0;
    this.#postponed.cancel();
    this.#abort.abort();
    this.#account.close();
    this.#account.set(this.#runningBytes);
  }

  /** Updates the memory account; requests still running in the backend count even after the connection has ended. */
  #count(): void {
    const own = this.#gone ? 0 : this.#waitingBytes + this.#decoder.arriving + this.#host.output.waiting;
    this.#account.set(own + this.#runningBytes + this.#postponed.bytes);
  }

  #roomAgain(): void {
    if (this.#gone) return;
    try {
      this.#decoder.resume();
    } catch (error) {
      this.#host.failed(error as Error);
      return;
    }
    this.#pump();
  }

  #isStalled(milliseconds: number): boolean {
    const isDue = this.#host.output.waiting > 0 || (this.#decoder.arriving > 0 && !this.#paused);
    return isDue && performance.now() - this.#lastProgress >= milliseconds;
  }

  #payloadFor(request: Request, present: Buffer | null): Buffer | null | 'later' {
    if (hasFilter(request.type, request.flags) && request.payloadLength > filterLimit(this.#session)) return null;
    // A request that will be refused needs no memory for its payload.
    if (validate(request, this.#session) !== null) return null;
    // A backend that keeps the data would keep the whole chunk alive.
    if (present !== null && this.#session.export.backend.copiesData === true) return present;
    if (request.payloadLength > SMALL_PAYLOAD && !this.#account.mayTake(request.payloadLength)) return 'later';
    this.#account.set(this.#account.held + request.payloadLength);
    return this.#options.payloads.take(request.payloadLength);
  }

  #arrived(request: Request): void {
    if (request.type === c.NBD_CMD_DISC) {
      // "A client MUST NOT send anything to the server after": whatever follows is ignored.
      this.#decoder.stop();
      this.#isDisconnected = true;
    }
    this.#waitingBytes += request.payload?.length ?? 0;
    this.#waiting.push(request);
  }

  #pump(): void {
    if (this.#pumping || this.#gone) return;
    this.#pumping = true;
    while (this.#nextWaiting < this.#waiting.length && this.#hasRoom()) {
      const request = this.#waiting[this.#nextWaiting];
      this.#nextWaiting += 1;
      if (request !== undefined) this.#begin(request);
    }
    this.#pumping = false;
    this.#count();
    this.#afterPump();
  }

  #afterPump(): void {
    if (this.#gone) return;
    const isIdle = this.#nextWaiting === this.#waiting.length;
    if (isIdle) {
      this.#waiting = [];
      this.#nextWaiting = 0;
      if (this.#ending && this.#running + this.#postponed.count === 0) {
        this.#host.finished();
        return;
      }
    }
    this.#setPaused(!isIdle || this.#decoder.isWaiting);
  }

  #setPaused(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#host.pause();
    else this.#host.resume();
  }

  #hasRoom(): boolean {
    if (this.#gone) return false;
    const { output } = this.#host;
    if (!output.hasRoom()) return false;
    const next = this.#waiting[this.#nextWaiting];
    if (next === undefined) return false;
    const weight = this.#weight(next);
    const inFlight = this.#running + this.#postponed.count;
    if (inFlight > 0) {
      if (inFlight >= this.#options.maxInFlight) return false;
      if (this.#runningBytes + this.#postponed.bytes + weight > this.#options.maxInFlightBytes) return false;
    }
    // Memory for a payload was requested when it arrived; memory for a reply is requested now.
    if (next.type !== c.NBD_CMD_READ || weight === 0) return true;
    const ahead = this.#readingBytes + output.waiting;
    if (ahead > 0 && ahead + weight > this.#window) return false;
    return weight <= SMALL_PAYLOAD || this.#account.mayTake(weight);
  }

  /** Bytes that a request holds while it runs. */
  #weight(request: Request): number {
    if (request.type !== c.NBD_CMD_READ) return request.payload?.length ?? 0;
    return request.count <= this.#session.export.maxPayload ? Number(request.count) : 0;
  }

  #begin(request: Request): void {
    this.#waitingBytes -= request.payload?.length ?? 0;
    this.#dispatcher.begin(request);
  }

  #perform(request: Request, way: Way): void {
    if (this.#performNow(request, way)) way.done?.();
  }

  /** Returns whether the request is done; if not, it calls `done` of the way later. */
  #performNow(request: Request, { handler, sink, done }: Way): boolean {
    if (request.type === c.NBD_CMD_DISC) {
      this.#ending = true;
      return true;
    }
    if (this.#shuttingDown) {
      this.#refuse(request, c.NBD_ESHUTDOWN, 'the server is shutting down', sink);
      return true;
    }
    const refusal = validate(request, this.#session);
    if (refusal !== null) {
      this.#refuse(request, wireError(refusal.code), refusal.message, sink);
      return true;
    }
    const weight = this.#weight(request);
    let pending: Promise<void> | undefined;
    try {
      pending = handler.perform(request);
    } catch (error) {
      this.#fail(request, error, sink);
      return true;
    }
    if (request.type === c.NBD_CMD_WRITE) this.#options.statistics.bytesWritten += request.payloadLength;
    const isRead = request.type === c.NBD_CMD_READ;
    if (isRead) this.#sentInWindow += weight;
    if (pending === undefined) {
      this.#release(request);
      return true;
    }
    this.#running += 1;
    this.#runningBytes += weight;
    if (isRead) this.#readingBytes += weight;
    this.#account.set(this.#account.held + (isRead ? weight : 0));
    const settled = (): void => {
      this.#running -= 1;
      this.#runningBytes -= weight;
      if (isRead) this.#readingBytes -= weight;
      this.#release(request);
      done?.();
      if (this.#gone) this.#count();
      else this.#pump();
    };
    pending.then(settled, (error: unknown) => {
      if (!this.#gone) this.#fail(request, error, sink);
      settled();
    });
    return false;
  }

  #release(request: Request): void {
    const { payload } = request;
    request.payload = null;
    if (payload !== null && this.#session.export.backend.copiesData === true) this.#options.payloads.give(payload);
  }

  #fail(request: Request, error: unknown, sink: ReplySink): void {
    const { number, message } = wireErrorOf(error);
    this.#refuse(request, number, message, sink);
  }

  #refuse(request: Request, error: number, message: string, sink: ReplySink): void {
    this.#options.statistics.errors += 1;
    sink.send(this.#encoder.encodeError(request, error, message));
  }
}
