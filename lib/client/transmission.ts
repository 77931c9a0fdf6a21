// The transmission phase: from an accepted command to its settlement. It joins the strict checks, the window, the
// writer and the decoder. Invariant: every accepted command settles exactly once, whatever the peer does.

import { NbdError } from '../errors.js';
import { Command, describeCall, STAGE_FINISHED, STAGE_GRANTED, STAGE_ISSUED } from '../protocol/command.js';
import { DISCONNECT } from '../protocol/commands.js';
import { NBD_CMD_DISC } from '../protocol/constants.js';
import type { ReplyContext } from '../protocol/chunk.js';
import { ReplyDecoder, type ReplySink } from '../protocol/reply-decoder.js';
import type { Transport } from '../transport/transport.js';
import { AbortRegistry } from './abort-registry.js';
import { BusyPoll } from './busy-poll.js';
import { afterDisconnect, payloadSpoiled, payloadTorn, wrapThrown } from './call-errors.js';
import type { Completions } from './completions.js';
import type { DebugLog } from './debug.js';
import { InFlightCommands } from './in-flight-commands.js';
import { InFlightWindow, type WindowLimits } from './in-flight-window.js';
import type { Phase } from './link.js';
import { RequestTimer } from './request-timer.js';
import { type RequestSource, RequestWriter } from './request-writer.js';
import { endTrace, startTrace } from './tracing.js';

/** What a transmission tells its connection. */
export interface TransmissionOwner {
  /** The transmission cannot go on. */
  failed(error: NbdError): void;
  /** The last waiting command has gone out. */
  drained(): void;
  /** The number of unfinished commands became 0, or 1. */
  busyChanged(busy: boolean): void;
  /** The server announced its end (ESHUTDOWN): a soft disconnect is due. */
  shutdownAnnounced(): void;
  /** Cookies of this connection, shared by all of its phases. */
  nextCookie(): number;
}

/** How a command went that went well. */
const SUCCESS = Symbol('success');

/** Payload per command in flight from which a read of its own for each reply's header pays: at 64 KiB it does not. */
const LARGE_AVERAGE = 96 * 1024;

export class Transmission implements Phase, ReplySink, RequestSource {
  readonly #handle: object;
  readonly #owner: TransmissionOwner;
  readonly #debug: DebugLog;
  readonly #decoder: ReplyDecoder;
  readonly #writer: RequestWriter;
  readonly #window: InFlightWindow;
  readonly #aborts: AbortRegistry;
  readonly #completions: Completions;
  readonly #inFlight = new InFlightCommands();
  /** Replied to while their payload is still leaving: neither in flight nor settled. */
  readonly #answered = new Set<Command>();
  /** Commands accepted and not finished, wherever they are: libnbd's nbd_aio_in_flight. */
  #unfinished = 0;
  #onFinished: (() => void) | null = null;
  #disconnecting = false;
  #disconnectIssued = false;
  #disconnectLeft: () => void = () => undefined;
  /** A read that was aborted while the transport may be reading into its buffer. */
  #abortedRead: Command | null = null;
  #ended = false;
  readonly #timer: RequestTimer;
  readonly #busyPoll: BusyPoll;

  constructor(
    handle: object,
    owner: TransmissionOwner,
    transport: Transport,
    context: ReplyContext,
    limits: WindowLimits & { readonly requestTimeout: number; readonly busyPoll: number },
    completions: Completions,
    debug: DebugLog,
  ) {
    this.#debug = debug;
    this.#handle = handle;
    this.#owner = owner;
    this.#completions = completions;
    this.#timer = new RequestTimer(limits.requestTimeout, this.#inFlight, (error) => {
      this.#owner.failed(error);
    });
    this.#busyPoll = new BusyPoll(limits.busyPoll);
    this.#decoder = new ReplyDecoder(this, context);
    this.#writer = new RequestWriter(transport, context.extendedHeaders, this);
    this.#window = new InFlightWindow(
      limits,
      (command) => {
        this.#writer.push(command);
      },
      () => {
        this.#owner.drained();
      },
    );
    this.#aborts = new AbortRegistry((command, reason) => {
      this.#abort(command, reason);
    });
  }

  get unfinished(): number {
    return this.#unfinished;
  }

  get bytesSent(): number {
    return this.#writer.bytes;
  }

  get chunksSent(): number {
    return this.#writer.chunks;
  }

  get chunksReceived(): number {
    return this.#decoder.chunks;
  }

  get isProcessing(): boolean {
    return !this.#decoder.isAtBoundary || (this.#unfinished > 0 && this.#writer.isWriting);
  }

  get position(): string {
    return this.#decoder.position;
  }

  /** Takes a command that has passed all checks. Throws when the line is full or a disconnect has been asked for. */
  accept(command: Command, signal?: AbortSignal): void {
    if (this.#disconnecting) throw afterDisconnect(command);
    this.#window.checkRoom(command);
    this.#enter(command);
    startTrace(command, this.#handle);
    if (this.#debug.enabled)
      this.#debug.say(
        command.spec.method,
        `enter: ${describeCall(command.spec, command.count, command.offset)}, cookie ${command.cookie}`,
      );
    if (signal !== undefined) this.#aborts.watch(command, signal);
    this.#window.admit(command);
  }

  #enter(command: Command): void {
    command.cookie = this.#owner.nextCookie();
    if (++this.#unfinished === 1) this.#owner.busyChanged(true);
    this.#timer.start();
  }

  get expectsLarge(): boolean {
    return this.#window.averageWeight >= LARGE_AVERAGE;
  }

  // Bytes from the server.

  target(): Uint8Array {
    return this.#decoder.target();
  }

  advance(length: number): void {
    this.#writer.beginReceiving();
    try {
      this.#decoder.advance(length);
    } finally {
      this.#writer.endReceiving();
    }
    this.#received();
    const read = this.#abortedRead;
    if (read === null) return;
    this.#abortedRead = null;
    if (!read.settled && read.aborted !== null) this.#settleIssued(read, read.aborted.reason);
  }

  push(chunk: Uint8Array): void {
    this.#writer.beginReceiving();
    try {
      this.#decoder.push(chunk);
    } finally {
      this.#writer.endReceiving();
    }
    this.#received();
  }

  #received(): void {
    // Bytes of a payload are progress, however long the whole of it takes.
    this.#timer.touch(this.#decoder.current);
    this.#busyPoll.received(this.#window.inFlight);
  }

  find(cookie: number): Command | undefined {
    const command = this.#inFlight.get(cookie);
    if (command !== undefined) this.#timer.touch(command);
    return command;
  }

  finished(command: Command): void {
    // False when a callback of the user's closed the connection half-way through this very reply.
    if (!this.#inFlight.delete(command)) return;
    this.#timer.passed(command);
    command.stage = STAGE_FINISHED;
    this.#window.release(command);
    // Until its bytes have left, the caller may not have its buffer back.
    if (command.flushed) this.#finish(command);
    else this.#answered.add(command);
    if (command.error?.code === 'ESHUTDOWN') this.#owner.shutdownAnnounced();
  }

  issued(command: Command): void {
    this.#timer.touch(command);
    this.#inFlight.add(command);
    this.#busyPoll.sent(this.#window.inFlight, this.#window.averageWeight);
    if (command.spec !== DISCONNECT) return;
    this.#disconnectIssued = true;
    this.#writer.whenIdle(this.#disconnectLeft);
  }

  leaving(command: Command): void {
    this.#timer.touch(command);
    this.#timer.passed(command);
  }

  left(command: Command): void {
    this.leaving(command);
    if (this.#answered.delete(command)) this.#finish(command);
    else if (command.aborted !== null) this.#settle(command, command.aborted.reason);
  }

  spoiled(command: Command): void {
    this.#endUnsent(command, payloadSpoiled(command));
    this.#window.release(command);
  }

  torn(command: Command): void {
    this.#owner.failed(payloadTorn(command));
  }

  #finish(command: Command): void {
    const failure = command.thrown !== null ? command.thrown.value : (command.error ?? SUCCESS);
    if (!command.settled) {
      if (command.aborted !== null) this.#settle(command, command.aborted.reason);
      else this.#settle(command, failure);
    }
    this.#leave();
  }

  #leave(): void {
    // A callback that closed the connection has had everything counted off.
    if (this.#ended || --this.#unfinished > 0) return;
    this.#timer.stop();
    this.#owner.busyChanged(false);
    const callback = this.#onFinished;
    this.#onFinished = null;
    callback?.();
  }

  /** `failure` is SUCCESS or whatever it failed with: users abort with, and throw, anything. */
  #settle(command: Command, failure: unknown): void {
    command.settled = true;
    if (command.signal !== null) this.#aborts.forget(command);
    const { resolve, reject, result } = command;
    // Whoever still holds the command, be it a dead object of V8's old generation, does not hold what it moved.
    command.result = undefined;
    command.buffer = null;
    command.payload = null;
    endTrace(command, failure !== SUCCESS, failure);
    if (this.#debug.enabled)
      this.#debug.say(
        command.spec.method,
        `leave: cookie ${command.cookie}${failure === SUCCESS ? '' : `: ${String(failure)}`}`,
      );
    if (reject !== null && resolve !== null) {
      command.resolve = null;
      command.reject = null;
      if (failure === SUCCESS) resolve(result);
      else reject(failure);
    } else {
      this.#complete(command, failure);
    }
  }

  #complete(command: Command, failure: unknown): void {
    let kept: unknown = failure === SUCCESS ? null : (failure ?? wrapThrown(command, failure));
    const { completion } = command;
    command.completion = null;
    if (completion !== null) {
      try {
        const error = kept === null || kept instanceof NbdError ? kept : wrapThrown(command, kept);
        if (completion(error, BigInt(command.cookie)) === true) return;
      } catch (thrown) {
        // As in libnbd's Python binding: what the callback throws is how the command went.
        kept = thrown ?? wrapThrown(command, thrown);
      }
    }
    if (command.spec !== DISCONNECT) this.#completions.add(command.cookie, kept);
  }

  // Aborts.

  #abort(command: Command, reason: unknown): void {
    if (command.settled) return;
    if (this.#ended) {
      // A callback of an earlier command aborts this one while the end goes through them all.
      this.#settle(command, reason);
    } else if (command.stage === STAGE_FINISHED) {
      // Replied to; its payload is still leaving.
      command.aborted = { reason };
    } else if (command.stage === STAGE_ISSUED) {
      const reading = this.#decoder.isReadingInto(command);
      if (reading) this.#abortedRead = command;
      if (reading || !command.flushed) command.aborted = { reason };
      else this.#settleIssued(command, reason);
    } else {
      const granted = command.stage === STAGE_GRANTED;
      this.#endUnsent(command, reason);
      if (granted) this.#window.release(command);
      else this.#window.cancel();
    }
  }

  /** The promise rejects; the cookie and the credit stay taken until the reply, whose bytes are dropped. */
  #settleIssued(command: Command, reason: unknown): void {
    command.allocate = null;
    command.onChunk = null;
    command.onExtent = null;
    this.#settle(command, reason);
  }

  // The end.

  /** Calls back when no command is unfinished. */
  whenFinished(callback: () => void): void {
    if (this.#unfinished === 0) callback();
    else this.#onFinished = callback;
  }

  /** NBD_CMD_DISC is out and nothing else is unfinished: an end of the stream is what was asked for. */
  get isLeaving(): boolean {
    return this.#disconnectIssued && this.#unfinished <= 1;
  }

  get isRefusing(): boolean {
    return this.#disconnecting;
  }

  /** No new commands; those accepted go on. */
  refuseNew(): void {
    this.#disconnecting = true;
  }

  /** Every command of which no byte has been sent ends now. */
  abandon(makeError: (command: Command) => unknown): void {
    const waiting = this.#window.takeWaiting();
    const granted = this.#writer.takeGranted();
    for (const command of waiting) this.#endUnsent(command, makeError(command));
    for (const command of granted) {
      this.#endUnsent(command, makeError(command));
      this.#window.release(command);
    }
  }

  #endUnsent(command: Command, failure: unknown): void {
    command.stage = STAGE_FINISHED;
    this.#settle(command, failure);
    this.#leave();
  }

  /** Sends NBD_CMD_DISC after everything that was accepted; `gone` when it has left. */
  disconnect(gone: () => void): void {
    this.#disconnecting = true;
    const command = new Command(DISCONNECT, 0, 0, 0);
    this.#disconnectLeft = gone;
    this.#enter(command);
    command.completion = () => true;
    this.#window.admit(command);
  }

  /** The connection is over: every command that is still here gets `cause`, waiting ones first. */
  end(makeError: (command: Command) => unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#disconnecting = true;
    this.#decoder.stop();
    this.#timer.stop();
    this.#busyPoll.stop();
    const waiting = this.#window.takeWaiting();
    const granted = this.#writer.stop();
    const issued = this.#inFlight.list();
    // Answered before all of it had left: whatever the answer was, it is not known to be written.
    const answered = [...this.#answered];
    for (const command of answered) command.stage = STAGE_ISSUED;
    this.#inFlight.clear();
    this.#answered.clear();
    for (const command of [...waiting, ...granted, ...answered, ...issued]) {
      const failure = command.aborted !== null ? command.aborted.reason : (command.error ?? makeError(command));
      command.stage = STAGE_FINISHED;
      this.#unfinished--;
      if (!command.settled) this.#settle(command, command.spec.type === NBD_CMD_DISC ? SUCCESS : failure);
    }
    this.#unfinished = 0;
    this.#owner.busyChanged(false);
    const callback = this.#onFinished;
    this.#onFinished = null;
    callback?.();
  }
}
