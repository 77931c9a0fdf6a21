// The states of one connection and the ways between them: connect, negotiate, transmit, end.
// Invariant: ending is done once, by #end(), and leaves no timer, listener, socket or pending promise.

import { NbdError, NbdProtocolError, NbdStateError, NbdStrictError } from '../errors.js';
import type { HandshakeSession } from '../protocol/handshake/session.js';
import type { StrictContext } from '../protocol/strict.js';
import { Completions } from './transmission/completions.js';
import { CLOSED, endedEarly, endOfCommands, isFatal, toConnectionError } from './connection-errors.js';
import { withDeadline } from './connect/deadline.js';
import { type DebugEmit, DebugLog } from './debug.js';
import type { LinkOwner } from './link.js';
import { Opening, type Target } from './connect/opening.js';
import { optGo, type OptionRun } from './connect/option-runs.js';
import { checkBits, type Settings } from './options/options.js';
import { endOfProgram } from './connect/program-end.js';
import { asEvent, checkState, type ConnectionState, type Phase, WHEN_CREATED, WHEN_NEGOTIATING } from './state.js';
import { inNextTurn } from '../util/timers.js';
import { type Statistics, statisticsOf } from './statistics.js';
import { traceClose, traceOpen } from './tracing.js';
import { Transmission, type TransmissionOwner } from './transmission/transmission.js';

/** What a lifecycle tells the public face. Never called from within a constructor. */
export interface LifecycleEvents {
  stateChange(state: ConnectionState, previous: ConnectionState): void;
  close(error: NbdError | undefined): void;
  drain(): void;
  readonly debug: DebugEmit;
}

export class Lifecycle implements LinkOwner, TransmissionOwner {
  readonly settings: Settings;
  readonly completions = new Completions();
  readonly debug: DebugLog;
  readonly #handle: object;
  readonly #events: LifecycleEvents;
  #phase: Phase = 'created';
  #opening: Opening | null = null;
  #transmission: Transmission | null = null;
  #strict: (StrictContext & { strictMode: number }) | null = null;
  /** Why it ended, where it did not by itself. */
  #error: NbdError | null = null;
  /** A command that changes the export was accepted. */
  hasWritten = false;
  /** Commands have failed with why the connection died. */
  #deathWasSeen = false;
  #lastCookie = 0;
  #connecting: AbortController | null = null;
  #shutdown: Promise<void> | null = null;
  #unreferenced = false;
  /** Ended, and every command has been settled. */
  #isOver = false;
  readonly #whenOver: (() => void)[] = [];
  #closeTimer: NodeJS.Timeout | null = null;

  constructor(handle: object, settings: Settings, events: LifecycleEvents) {
    this.#handle = handle;
    this.settings = settings;
    this.debug = new DebugLog(settings.debug, () => settings.handleName, events.debug);
    this.#events = events;
  }

  /** What calls are permitted by: while an option is pending no other is, and the handshake's settings are fixed. */
  get phase(): Phase {
    return this.#isOptionPending ? 'connecting' : this.#phase;
  }

  get state(): ConnectionState {
    const { phase } = this;
    if (phase !== 'connected') return phase;
    return this.#transmission?.isProcessing === true ? 'processing' : 'ready';
  }

  get #isOptionPending(): boolean {
    return this.#phase === 'negotiating' && this.#opening?.handshake?.isBusy === true;
  }

  get error(): NbdError | null {
    return this.#error;
  }

  get session(): HandshakeSession | null {
    return this.#opening?.session ?? null;
  }

  get target(): Target | null {
    return this.#opening?.target ?? null;
  }

  get inFlight(): number {
    return this.#transmission?.unfinished ?? 0;
  }

  /** What commands are checked against; null until the export is open. */
  get strict(): StrictContext | null {
    return this.#strict;
  }

  get transmission(): Transmission | null {
    return this.#transmission;
  }

  setStrictMode(strictMode: number): void {
    this.settings.strictMode = strictMode;
    if (this.#strict !== null) this.#strict.strictMode = strictMode;
  }

  get statistics(): Statistics {
    return statisticsOf(this.#opening, this.#transmission);
  }

  nextCookie(): number {
    return ++this.#lastCookie;
  }

  // Connecting.

  /** From created to negotiating or connected. */
  async connect(target: Target, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    // The caller has checked the state, and then looked at a target that may have changed it (a getter, a Proxy).
    if (this.#phase !== 'created') {
      target.discard?.();
      checkState('connect', this.#phase, WHEN_CREATED, this.#error);
    }
    const opening = new Opening(target, this.settings);
    this.#opening = opening;
    this.#move('connecting');
    if (this.#isIn('connecting')) this.debug.say('connect', target.description);
    // Listeners may have ended it by now, and what has ended does not begin.
    if (!this.#isIn('connecting')) {
      target.discard?.();
      throw this.#error ?? CLOSED;
    }
    const { connectTimeout } = this.settings;
    const makeError = (): Error => opening.timeoutError(connectTimeout);
    await withDeadline(signal, connectTimeout, makeError, async (controller) => {
      this.#connecting = controller;
      try {
        const transport = await opening.open(controller.signal);
        await opening.negotiate(transport, this, controller.signal, (stage) => {
          if (stage === 'transmission') this.#enterTransmission();
          else this.#move('negotiating');
          this.#throwIfEnded();
        });
      } catch (error) {
        const isUntouched = target.mayRetry || error instanceof NbdStrictError;
        if (!controller.signal.aborted && opening.link === null && isUntouched) {
          this.#opening = null;
          this.#connecting = null;
          this.#move('created');
        } else {
          this.#end('dead', toConnectionError(error, `connect to ${target.description}`));
        }
        // The signal's reason goes out untouched; so does what ended the connection meanwhile.
        throw error;
      } finally {
        // Not that of a listener's next attempt.
        if (this.#connecting === controller) this.#connecting = null;
      }
    });
  }

  /** A method, because listeners change the phase behind the compiler's back. */
  #isIn(phase: Phase): boolean {
    return this.#phase === phase;
  }

  /** For a call that is about to succeed: a listener may have ended the connection when it heard of its new state. */
  #throwIfEnded(): void {
    if (this.#isIn('closed') || this.#isIn('dead')) throw this.#error ?? CLOSED;
  }

  #enterTransmission(): void {
    const opening = this.#opening;
    const { session, link, handshake } = opening ?? {};
    if (opening === null || link == null || handshake == null || session?.info == null) return;
    this.#strict = opening.strictContext(session.info);
    const transmission = new Transmission(
      this.#handle,
      this,
      link.transport,
      opening.replyContext(session.info.size),
      this.settings,
      this.completions,
      this.debug,
    );
    this.#transmission = transmission;
    const subprocess = this.target?.subprocess;
    if (subprocess != null) subprocess.tookData = () => this.hasWritten;
    link.phase = transmission;
    if (this.#unreferenced) link.transport.unref();
    this.#move('connected');
    if (this.#isIn('connected')) traceOpen(this.#handle);
    for (const bytes of handshake.takeRest()) transmission.push(bytes);
  }

  // Option mode.

  /** Throws when an option is pending: there is one at a time. */
  checkNoOption(method: string): void {
    if (this.#isOptionPending) this.#opening?.checkNoOption(method);
  }

  /** Runs one option. A refusal rejects and leaves the connection negotiating; a broken rule ends it. */
  async runOption<Result>(method: string, run: OptionRun<Result>, signal?: AbortSignal): Promise<Result> {
    const opening = this.#opening;
    if (opening === null) throw new Error(`${method}: no negotiation`);
    this.debug.say(method, 'enter');
    checkState(method, this.#phase, WHEN_NEGOTIATING, this.#error);
    try {
      return await opening.runOption(method, run, signal, () => {
        if (run !== (optGo as unknown)) return;
        this.#enterTransmission();
        this.#throwIfEnded();
      });
    } catch (error) {
      if (signal?.aborted === true) throw error;
      if (isFatal(error)) {
        this.failed(error);
        throw this.#error ?? error;
      }
      if ((error as NbdError).code === 'ESHUTDOWN') this.#shutdownSoon();
      throw error;
    }
  }

  // Ending.

  /** LinkOwner: a phase threw. */
  failed(thrown: unknown): void {
    if (this.#transmission?.isLeaving === true) {
      // Nothing is unanswered: what a server says after our goodbye costs nobody anything.
      this.#end('closed', null);
      return;
    }
    const error =
      thrown instanceof NbdError
        ? thrown
        : new NbdProtocolError(`connection: unexpected failure: ${String(thrown)}`, { code: 'EPROTO', cause: thrown });
    this.#end('dead', error);
  }

  ended(): void {
    const transmission = this.#transmission;
    if (this.#phase === 'connected' && transmission !== null) {
      if (transmission.isLeaving || (transmission.unfinished === 0 && !transmission.isProcessing)) {
        this.#end('closed', null);
        return;
      }
      this.#end('dead', endedEarly(transmission.position, transmission.unfinished));
      return;
    }
    const opening = this.#opening;
    this.#end('dead', opening === null ? CLOSED : opening.ended());
  }

  closed(error: Error | null): void {
    if (error === null) this.ended();
    else if (this.#transmission?.isLeaving === true) this.#end('closed', null);
    else if (this.#connecting !== null && this.#opening !== null) this.#end('dead', this.#opening.explain(error));
    else this.#end('dead', toConnectionError(error, 'connection', 'ENOTCONN'));
  }

  drained(): void {
    this.#events.drain();
  }

  busyChanged(busy: boolean): void {
    if (!this.#unreferenced) return;
    if (busy) this.#opening?.link?.transport.ref();
    else this.#opening?.link?.transport.unref();
  }

  shutdownAnnounced(): void {
    this.#transmission?.refuseNew();
    // On the next turn, so that the command that brought the news settles first.
    inNextTurn(() => {
      if (this.#phase === 'connected') this.#shutdownSoon();
    });
  }

  ref(): void {
    this.#unreferenced = false;
    this.#opening?.link?.transport.ref();
  }

  unref(): void {
    this.#unreferenced = true;
    if (this.inFlight === 0) this.#opening?.link?.transport.unref();
  }

  /** Immediate; pending commands reject with ENOTCONN. */
  close(): void {
    if (this.#phase === 'closed' || this.#phase === 'dead') return;
    this.#end('closed', null);
  }

  /**
   * Graceful: what is in flight settles, the server is told, the stream ends. Resolves whatever became of the
   * connection; rejects only when a program that was started, and written to, has failed in the end.
   */
  shutdown(abandonPending = false): Promise<void> {
    if (abandonPending) this.#transmission?.abandon(endOfCommands(CLOSED));
    this.#shutdown ??= this.#runShutdown();
    return this.#shutdown;
  }

  #shutdownSoon(): void {
    this.shutdown().catch(() => undefined);
  }

  async #runShutdown(): Promise<void> {
    const begun = Date.now();
    if (this.#phase !== 'closed' && this.#phase !== 'dead') await this.#leave();
    if (!this.#isOver) await new Promise<void>((resolve) => this.#whenOver.push(resolve));
    const subprocess = this.target?.subprocess;
    if (subprocess == null) return;
    const { closeTimeout } = this.settings;
    await endOfProgram(subprocess, closeTimeout > 0 ? begun + closeTimeout : Infinity, !this.#deathWasSeen);
  }

  async #leave(): Promise<void> {
    const { closeTimeout } = this.settings;
    const transmission = this.#transmission;
    if (transmission === null || this.#phase !== 'connected') {
      if (this.#phase === 'negotiating' && this.#opening?.handshake?.isBusy === false) this.#opening.sendAbort();
      this.close();
      return;
    }
    await new Promise<void>((resolve) => {
      this.#whenOver.push(resolve);
      const timer =
        closeTimeout > 0
          ? setTimeout(() => {
              this.close();
            }, closeTimeout)
          : null;
      this.#closeTimer = timer;
      transmission.refuseNew();
      transmission.whenFinished(() => {
        this.disconnect();
      });
    });
  }

  /** nbd_aio_disconnect: once, at the user's own call. */
  disconnectNow(method: string, flags: unknown): void {
    checkBits(method, flags, 0);
    if (this.#transmission?.isRefusing === true) {
      throw new NbdStateError(`${method}: a disconnect was requested already`, { code: 'EINVAL', syscall: method });
    }
    this.disconnect();
  }

  /** Sends NBD_CMD_DISC behind everything that was accepted, then half-closes. */
  disconnect(): void {
    const transmission = this.#transmission;
    if (transmission === null || this.#phase !== 'connected') return;
    transmission.disconnect(() => {
      this.#opening?.link?.transport.end();
    });
  }

  #end(phase: 'closed' | 'dead', error: NbdError | null): void {
    if (this.#phase === 'closed' || this.#phase === 'dead') return;
    this.#error = error;
    if (this.#closeTimer !== null) clearTimeout(this.#closeTimer);
    const reason = error ?? CLOSED;
    this.#connecting?.abort(reason);
    this.#move(phase);
    this.#opening?.handshake?.stop(reason);
    this.#deathWasSeen = error !== null && this.inFlight > 0;
    // First, so that a buffer is not in use any more when its command is settled.
    this.#opening?.link?.transport.destroy();
    const over = (): void => {
      this.#isOver = true;
      traceClose(this.#handle, error ?? undefined);
      this.#events.close(error ?? undefined);
      for (const resolve of this.#whenOver.splice(0)) resolve();
    };
    if (this.#transmission === null) over();
    else this.#transmission.end(endOfCommands(reason), over);
  }

  #move(phase: Phase): void {
    const previous = asEvent(this.#phase);
    this.#phase = phase;
    this.debug.say(
      'state',
      `${previous} -> ${asEvent(phase)}${this.#error === null ? '' : `: ${this.#error.message}`}`,
    );
    // The debug function may have ended it: that has been reported, and nothing may follow.
    if (this.#isIn(phase)) this.#events.stateChange(asEvent(phase), previous);
  }
}
