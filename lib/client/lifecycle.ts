// The states of one connection and the transitions between them: connect, negotiate, transmit, end.
// Invariant: ending is done once, by #end(), and leaves no timer, listener, socket or pending promise.

import { NbdError, NbdProtocolError, NbdStateError, NbdStrictError } from '../errors.js';
import type { HandshakeSession } from '../protocol/handshake/session.js';
import type { StrictContext } from '../protocol/strict.js';
import { Completions } from './transmission/completions.js';
import { CLOSED, endedEarly, endOfCommands, isFatal, toConnectionError } from './connection-errors.js';
import { withDeadline } from './connect/deadline.js';
import { type DebugEmit, DebugLog } from './debug.js';
import type { LinkOwner } from './link.js';
import { Opening } from './connect/opening.js';
import type { Target } from './connect/target.js';
import { optGo, type OptionRun } from './connect/option-runs.js';
import { checkBits, type Settings } from './options/options.js';
import type { ClientPlatform } from './platform.js';
import { endOfProgram } from './connect/program-end.js';
import { asEvent, checkState, type ConnectionState, type Phase, WHEN_CREATED, WHEN_NEGOTIATING } from './state.js';
import { inNextTurn } from '../util/timers.js';
import { type Statistics, statisticsOf } from './statistics.js';
import { traceClose, traceOpen } from './tracing.js';
import { Transmission, type TransmissionOwner } from './transmission/transmission.js';

/** Callbacks of a Lifecycle. Never called from within a constructor. */
export interface LifecycleEvents {
  stateChange(state: ConnectionState, previous: ConnectionState): void;
  close(error: NbdError | undefined): void;
  drain(): void;
  readonly debug: DebugEmit;
}

export class Lifecycle implements LinkOwner, TransmissionOwner {
  readonly settings: Settings;
  readonly platform: ClientPlatform;
  readonly completions = new Completions();
  readonly debug: DebugLog;
  readonly #handle: object;
  readonly #events: LifecycleEvents;
  #phase: Phase = 'created';
  #opening: Opening | null = null;
  #transmission: Transmission | null = null;
  #strict: (StrictContext & { strictMode: number }) | null = null;
  /** The error that ended the connection; null after an ordinary end. */
  #error: NbdError | null = null;
  /** A command that changes the export was accepted. */
  hasWritten = false;
  /** Commands have been rejected with the error that ended the connection. */
  #deathWasSeen = false;
  #lastCookie = 0;
  #connecting: AbortController | null = null;
  #shutdown: Promise<void> | null = null;
  #unreferenced = false;
  /** Ended, and every command has been settled. */
  #isOver = false;
  readonly #whenOver: (() => void)[] = [];
  #closeTimer: ReturnType<typeof setTimeout> | null = null;

  constructor(handle: object, settings: Settings, platform: ClientPlatform, events: LifecycleEvents) {
    this.#handle = handle;
    this.settings = settings;
    this.platform = platform;
    this.debug = new DebugLog(settings.debug, () => settings.handleName, events.debug);
    this.#events = events;
  }

  /** Decides which calls are permitted. While an option is pending, other options and handshake settings are not. */
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

  /** The facts that commands are checked against; null until the export is open. */
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
    // The caller has checked the state, but reading the target may have changed it since (a getter, a Proxy).
    if (this.#phase !== 'created') {
      target.discard?.();
      checkState('connect', this.#phase, WHEN_CREATED, this.#error);
    }
    const opening = new Opening(target, this.settings, this.platform);
    this.#opening = opening;
    this.#move('connecting');
    if (this.#isIn('connecting')) this.debug.log('connect', target.description);
    // A listener may have ended the connection by now: do not open the target then.
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
        // The signal's reason is rethrown as it is, and so is the error that ended the connection meanwhile.
        throw error;
      } finally {
        // Keep the controller of a next attempt that a listener has started.
        if (this.#connecting === controller) this.#connecting = null;
      }
    });
  }

  /** A method, because TypeScript does not know that listeners change the phase. */
  #isIn(phase: Phase): boolean {
    return this.#phase === phase;
  }

  /** Called before a call succeeds: a listener of the new state may have ended the connection. */
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
    link.consumer = transmission;
    if (this.#unreferenced) link.transport.unref();
    this.#move('connected');
    if (this.#isIn('connected')) traceOpen(this.#handle);
    for (const bytes of handshake.takeRest()) transmission.push(bytes);
  }

  // Option mode.

  /** Throws while an option is pending: only one may be pending at a time. */
  checkNoOption(method: string): void {
    if (this.#isOptionPending) this.#opening?.checkNoOption(method);
  }

  /** Runs one option. A refusal rejects and leaves the connection negotiating; a protocol violation ends it. */
  async runOption<Result>(method: string, run: OptionRun<Result>, signal?: AbortSignal): Promise<Result> {
    const opening = this.#opening;
    if (opening === null) throw new Error(`${method}: no negotiation`);
    this.debug.log(method, 'enter');
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

  /** LinkOwner: the handshake or the transmission threw. */
  failed(thrown: unknown): void {
    if (this.#transmission?.expectsEnd === true) {
      // Every command has been answered and NBD_CMD_DISC sent: what the server sends now does not matter.
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
      if (transmission.expectsEnd || (transmission.unfinished === 0 && !transmission.isProcessing)) {
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
    else if (this.#transmission?.expectsEnd === true) this.#end('closed', null);
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
    // In the next turn, so that the command whose reply announced the shutdown settles first.
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

  /** Ends at once; pending commands reject with ENOTCONN. */
  close(): void {
    if (this.#phase === 'closed' || this.#phase === 'dead') return;
    this.#end('closed', null);
  }

  /**
   * Ends gracefully: waits for the commands in flight, sends NBD_CMD_DISC and ends the stream. It resolves even if the
   * connection fails meanwhile, and rejects only if a program that was started, and written to, has failed.
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
    if (this.#phase !== 'closed' && this.#phase !== 'dead') await this.#endGracefully();
    if (!this.#isOver) await new Promise<void>((resolve) => this.#whenOver.push(resolve));
    const subprocess = this.target?.subprocess;
    if (subprocess == null) return;
    const { closeTimeout } = this.settings;
    await endOfProgram(subprocess, closeTimeout > 0 ? begun + closeTimeout : Infinity, !this.#deathWasSeen);
  }

  async #endGracefully(): Promise<void> {
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

  /** nbd_aio_disconnect: throws when the user has called it before. */
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
    // Before commands are settled, so that their buffers are not in use any more.
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
    this.debug.log(
      'state',
      `${previous} -> ${asEvent(phase)}${this.#error === null ? '' : `: ${this.#error.message}`}`,
    );
    // The debug function may have ended the connection: that has been reported, and no event may follow it.
    if (this.#isIn(phase)) this.#events.stateChange(asEvent(phase), previous);
  }
}
