// The transmission phase: takes a command from acceptance to settlement, through the window, the writer and the
// decoder. Invariant: every accepted command settles exactly once, whatever the peer does.

import type { NbdError } from '../../errors.js';
import { Command, STAGE_FINISHED, STAGE_GRANTED, STAGE_ISSUED, STAGE_WAITING } from './command.js';
import { DISCONNECT } from '../../protocol/commands.js';
import { NBD_CMD_DISC } from '../../protocol/constants.js';
import type { ReplyContext } from '../../protocol/reply-rules.js';
import { ReplyDecoder, type ReplySink } from '../../protocol/reply-decoder.js';
import type { Transport } from '../../transport/transport.js';
import { AbortRegistry } from './abort-registry.js';
import { BusyPoll } from './busy-poll.js';
import { afterDisconnect, payloadSpoiled, payloadTorn } from './call-errors.js';
import type { Completions } from './completions.js';
import type { DebugLog } from '../debug.js';
import { InFlightCommands } from './in-flight-commands.js';
import { InFlightWindow, type WindowLimits } from './in-flight-window.js';
import type { ByteConsumer } from '../link.js';
import { RequestTimer } from './request-timer.js';
import { type RequestSource, RequestWriter } from './request-writer.js';
import { Settlement, SUCCESS } from './settlement.js';
import { Slices } from './slices.js';
import { WriteStall } from './write-stall.js';

/** Callbacks of a Transmission. */
export interface TransmissionOwner {
  /** The connection must end with this error. */
  failed(error: NbdError): void;
  /** The last waiting command has been issued. */
  drained(): void;
  /** The number of unfinished commands became 0, or 1. */
  busyChanged(busy: boolean): void;
  /** The server announced that it shuts down (ESHUTDOWN): the connection should disconnect. */
  shutdownAnnounced(): void;
  /** The next cookie of this connection. */
  nextCookie(): number;
}

/** The limits of a transmission: see the options of a connection. */
export interface TransmissionLimits extends WindowLimits {
  readonly requestTimeout: number;
  readonly busyPoll: number;
  readonly closeTimeout: number;
}

/** Average payload from which reply headers are read on their own, and payloads without a copy. 64 KiB is too small. */
const LARGE_REPLIES = 96 * 1024;

export class Transmission implements ByteConsumer, ReplySink<Command>, RequestSource {
  readonly #owner: TransmissionOwner;
  readonly #decoder: ReplyDecoder<Command>;
  readonly #writer: RequestWriter;
  readonly #window: InFlightWindow;
  readonly #aborts: AbortRegistry;
  readonly #settlement: Settlement;
  readonly #inFlight = new InFlightCommands();
  /** Commands answered while their payload is still being sent: neither in flight nor settled. */
  readonly #answered = new Set<Command>();
  /** Commands accepted and not finished: libnbd's nbd_aio_in_flight. */
  #unfinished = 0;
  #onFinished: (() => void) | null = null;
  #disconnecting = false;
  #disconnectIssued = false;
  #disconnectLeft: () => void = () => undefined;
  #ended = false;
  #lastCookie = 0;
  /** Waiting commands up to this cookie have been taken out of the line. */
  #abandonedUpTo = 0;
  readonly #timer: RequestTimer;
  readonly #busyPoll: BusyPoll;
  readonly #stall: WriteStall;
  /** Commands that end() or abandon() still has to settle. */
  readonly #ending = new Slices<Command>();

  constructor(
    handle: object,
    owner: TransmissionOwner,
    transport: Transport,
    context: ReplyContext,
    limits: TransmissionLimits,
    completions: Completions,
    debug: DebugLog,
  ) {
    this.#owner = owner;
    this.#timer = new RequestTimer(limits.requestTimeout, this.#inFlight, (error) => {
      this.#owner.failed(error);
    });
    this.#busyPoll = new BusyPoll(limits.busyPoll);
    this.#stall = new WriteStall(limits.closeTimeout, transport, (error) => {
      this.#owner.failed(error);
    });
    this.#decoder = new ReplyDecoder(this, context);
    this.#writer = new RequestWriter(transport, context.extendedHeaders, this);
    this.#window = new InFlightWindow(
      limits,
      (command) => {
        this.#writer.enqueue(command);
      },
      () => {
        this.#owner.drained();
      },
    );
    this.#aborts = new AbortRegistry((command, reason) => {
      this.#abort(command, reason);
    });
    this.#settlement = new Settlement(handle, this.#aborts, completions, debug);
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

  /**
   * Accepts a command that has passed all checks. Throws if the line is full, a disconnect was requested, or the signal
   * was aborted meanwhile.
   */
  accept(command: Command, signal?: AbortSignal): void {
    if (this.#disconnecting) throw afterDisconnect(command);
    if (signal?.aborted === true) throw signal.reason;
    this.#window.checkRoom(command);
    this.#enter(command);
    if (signal !== undefined) this.#aborts.watch(command, signal);
    this.#window.admit(command);
    this.#settlement.announce(command);
  }

  #enter(command: Command): void {
    command.cookie = this.#lastCookie = this.#owner.nextCookie();
    if (++this.#unfinished === 1) this.#owner.busyChanged(true);
    this.#timer.start();
  }

  get expectsLarge(): boolean {
    return this.#window.averageWeight >= LARGE_REPLIES;
  }

  // Bytes from the server.

  target(): Uint8Array {
    return this.#decoder.target();
  }

  advance(length: number): void {
    if (this.#ended) return;
    this.#writer.beginReceiving();
    try {
      this.#decoder.advance(length);
    } finally {
      this.#writer.endReceiving();
    }
    this.#received();
  }

  push(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#writer.beginReceiving();
    try {
      this.#decoder.push(chunk);
    } finally {
      this.#writer.endReceiving();
    }
    this.#received();
  }

  #received(): void {
    if (this.#ended) return;
    // Bytes of a payload count as progress, however long the whole payload takes.
    this.#timer.touch(this.#decoder.current);
    this.#busyPoll.received(this.#window.inFlight);
  }

  find(cookie: number): Command | undefined {
    const command = this.#inFlight.get(cookie);
    if (command !== undefined) this.#timer.touch(command);
    return command;
  }

  finished(command: Command): void {
    // False if a callback has closed the connection in the middle of this reply.
    if (!this.#inFlight.delete(command)) return;
    this.#timer.passed(command);
    command.stage = STAGE_FINISHED;
    // The buffer is in use until its bytes have been sent.
    const isSent = command.flushed;
    if (!isSent) this.#answered.add(command);
    this.#window.release(command);
    if (isSent) this.#finish(command);
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

  payloadMoved(command: Command): void {
    this.#stall.moved();
    this.#timer.touch(command);
    this.#timer.passed(command);
  }

  payloadSent(command: Command): void {
    this.payloadMoved(command);
    if (command.aborted !== null) this.#stall.end();
    if (this.#answered.delete(command)) this.#finish(command);
    else if (command.aborted !== null) this.#settlement.settle(command, command.aborted.reason);
  }

  spoiled(command: Command): void {
    // A callback of an earlier command may have aborted it.
    if (command.stage === STAGE_GRANTED) this.#endUnsent(command, payloadSpoiled(command));
  }

  torn(command: Command): void {
    this.#owner.failed(payloadTorn(command));
  }

  #finish(command: Command): void {
    const failure = command.thrown !== null ? command.thrown.value : (command.error ?? SUCCESS);
    if (!command.settled) {
      if (command.aborted !== null) this.#settlement.settle(command, command.aborted.reason);
      else this.#settlement.settle(command, failure);
    }
    this.#countOff();
  }

  #countOff(): void {
    // end() counts everything off by itself.
    if (this.#ended || --this.#unfinished > 0) return;
    this.#timer.stop();
    this.#owner.busyChanged(false);
    const callback = this.#onFinished;
    this.#onFinished = null;
    callback?.();
  }

  // Aborts.

  #abort(command: Command, reason: unknown): void {
    if (command.settled) return;
    if (this.#ended) {
      // A callback of an earlier command aborts this one while end() settles them.
      this.#settlement.settle(command, reason);
    } else if (!command.flushed) {
      // Its payload is still being sent, whether it was answered or not.
      command.aborted = { reason };
      this.#stall.begin();
    } else if (command.stage === STAGE_ISSUED) {
      this.#settleIssued(command, reason);
    } else if (command.stage === STAGE_WAITING && command.cookie <= this.#abandonedUpTo) {
      // Taken out of the line by abandon(), which counts it off.
      this.#settlement.settle(command, reason);
    } else {
      if (command.stage === STAGE_GRANTED) this.#writer.cancelled();
      this.#endUnsent(command, reason);
    }
  }

  /** Rejects the promise. The cookie and the credit stay in use until the reply, whose bytes are dropped. */
  #settleIssued(command: Command, reason: unknown): void {
    command.allocate = null;
    command.onChunk = null;
    command.onExtent = null;
    this.#settlement.settle(command, reason);
  }

  // The end.

  /** Calls back when no command is unfinished. */
  whenFinished(callback: () => void): void {
    if (this.#unfinished === 0) callback();
    else this.#onFinished = callback;
  }

  /** NBD_CMD_DISC was sent and no other command is unfinished: the stream is expected to end. */
  get expectsEnd(): boolean {
    return this.#disconnectIssued && this.#unfinished <= 1;
  }

  get isRefusing(): boolean {
    return this.#disconnecting;
  }

  /** Refuses new commands; accepted ones go on. */
  refuseNew(): void {
    this.#disconnecting = true;
  }

  /** Ends every command that has not been sent: the first thousand before it returns, further ones in later turns. */
  abandon(makeError: (command: Command) => unknown): void {
    if (this.#ended) return;
    const waiting = this.#window.takeWaiting();
    const granted = this.#writer.takeGranted();
    for (const command of granted) command.stage = STAGE_WAITING;
    this.#abandonedUpTo = this.#lastCookie;
    this.#ending.add([...waiting, [...granted]], (command) => {
      if (command.stage === STAGE_FINISHED) return;
      command.stage = STAGE_FINISHED;
      if (!command.settled) this.#settlement.settle(command, makeError(command));
      this.#countOff();
    });
    if (this.#hasEnded()) return;
    for (const command of granted) this.#window.release(command);
  }

  /** Ends a command that waits, or was granted and not sent. */
  #endUnsent(command: Command, failure: unknown): void {
    const isGranted = command.stage === STAGE_GRANTED;
    command.stage = STAGE_FINISHED;
    this.#settlement.settle(command, failure);
    // A listener may have closed the connection, and everything has been counted off then.
    if (this.#hasEnded()) return;
    if (isGranted) this.#window.release(command);
    else this.#window.cancel();
    this.#countOff();
  }

  /** A method, because TypeScript does not know that callbacks change the flag. */
  #hasEnded(): boolean {
    return this.#ended;
  }

  /** Sends NBD_CMD_DISC after everything that was accepted; calls `gone` when it has been sent. */
  disconnect(gone: () => void): void {
    this.#disconnecting = true;
    const command = new Command(DISCONNECT, 0, 0, 0);
    this.#disconnectLeft = gone;
    this.#enter(command);
    command.completion = () => true;
    this.#window.admit(command);
  }

  /**
   * The connection is over: settles every unfinished command with its error, waiting ones first; the first thousand
   * before it returns, further ones in later turns of the event loop. Then it calls `over`.
   */
  end(makeError: (command: Command) => unknown, over: () => void): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#disconnecting = true;
    this.#decoder.stop();
    this.#timer.stop();
    this.#busyPoll.stop();
    this.#stall.stop();
    const waiting = this.#window.stop();
    const granted = this.#writer.stop();
    const issued = this.#inFlight.list();
    // Answered before all of the payload had been sent: it is not known whether the data was written.
    const answered = [...this.#answered];
    for (const command of answered) command.stage = STAGE_ISSUED;
    this.#inFlight.clear();
    this.#answered.clear();
    this.#ending.add(
      [...waiting, granted, answered, issued],
      (command) => {
        if (command.stage === STAGE_FINISHED) return;
        this.#unfinished--;
        if (!command.settled) this.#settlement.settle(command, this.#outcomeOf(command, makeError));
        command.stage = STAGE_FINISHED;
      },
      () => {
        this.#unfinished = 0;
        this.#owner.busyChanged(false);
        const callback = this.#onFinished;
        this.#onFinished = null;
        callback?.();
        over();
      },
    );
  }

  #outcomeOf(command: Command, makeError: (command: Command) => unknown): unknown {
    if (command.spec.type === NBD_CMD_DISC) return SUCCESS;
    return command.aborted !== null ? command.aborted.reason : (command.error ?? makeError(command));
  }
}
