// The states of one connection and the ways between them: connect, negotiate, transmit, end.
// Invariant: ending is done once, by #end(), and leaves no timer, listener, socket or pending promise.

import { NbdConnectionError, NbdError, NbdProtocolError, NbdStateError, NbdStrictError } from '../errors.js';
import type { HandshakeSession } from '../protocol/handshake/session.js';
import type { StrictContext } from '../protocol/strict.js';
import { Completions } from './completions.js';
import { endOfCommand, isFatal, toConnectionError } from './connection-errors.js';
import { withDeadline } from './deadline.js';
import { type DebugEmit, DebugLog } from './debug.js';
import type { LinkOwner } from './link.js';
import { Opening, type Target } from './opening.js';
import { optGo, type OptionRun } from './option-mode.js';
import { checkBits, type Settings, shownExportName } from './options.js';
import type { ConnectionState, Phase } from './state.js';
import { traceClose, traceOpen } from './tracing.js';
import { Transmission, type TransmissionOwner } from './transmission.js';

/** What a lifecycle tells the public face. Never called from within a constructor. */
export interface LifecycleEvents {
  stateChange(state: ConnectionState, previous: ConnectionState): void;
  close(error: NbdError | undefined): void;
  drain(): void;
  readonly debug: DebugEmit;
}

/** The reason where nobody did anything wrong; shared, so it has no stack of its own. */
const CLOSED = new NbdConnectionError('the connection was closed', { code: 'ENOTCONN', transient: false });

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
  #lastCookie = 0;
  #connecting: AbortController | null = null;
  #shutdown: Promise<void> | null = null;
  #unreferenced = false;
  #afterEnd: (() => void) | null = null;
  #closeTimer: NodeJS.Timeout | null = null;

  constructor(handle: object, settings: Settings, events: LifecycleEvents) {
    this.#handle = handle;
    this.settings = settings;
    this.debug = new DebugLog(settings.debug, () => settings.handleName, events.debug);
    this.#events = events;
  }

  get phase(): Phase {
    return this.#phase;
  }

  get state(): ConnectionState {
    if (this.#phase !== 'connected') return this.#phase;
    return this.inFlight === 0 ? 'ready' : 'processing';
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

  // Statistics, as libnbd counts them: plaintext bytes; a chunk is a message that begins with a magic.

  get bytesSent(): number {
    return (this.#opening?.negotiator?.bytesSent ?? 0) + (this.#transmission?.bytesSent ?? 0);
  }

  get chunksSent(): number {
    return (this.#opening?.session.optionsSent ?? 0) + (this.#transmission?.chunksSent ?? 0);
  }

  get bytesReceived(): number {
    return this.#opening?.link?.bytesReceived ?? 0;
  }

  get chunksReceived(): number {
    return (this.#opening?.session.protocol == null ? 0 : 1) + (this.#transmission?.chunksReceived ?? 0);
  }

  nextCookie(): number {
    return ++this.#lastCookie;
  }

  // Connecting.

  /** From created to negotiating or connected. The caller has checked the state. */
  async connect(target: Target, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const opening = new Opening(target, this.settings);
    this.#opening = opening;
    this.debug.say('connect', target.description);
    this.#move('connecting');
    const { connectTimeout } = this.settings;
    const makeError = (): Error => opening.timeoutError(connectTimeout);
    await withDeadline(signal, connectTimeout, makeError, async (controller) => {
      this.#connecting = controller;
      try {
        const transport = await opening.open(controller.signal);
        await opening.negotiate(transport, this, controller.signal, (stage) => {
          if (stage === 'transmission') this.#enterTransmission();
          else this.#move('negotiating');
        });
      } catch (error) {
        const isUntouched = target.mayRetry || error instanceof NbdStrictError;
        if (!controller.signal.aborted && opening.link === null && isUntouched) {
          this.#opening = null;
          this.#move('created');
        } else {
          this.#end('dead', toConnectionError(error, `connect to ${target.description}`));
        }
        // The signal's reason goes out untouched; so does what ended the connection meanwhile.
        throw error;
      } finally {
        this.#connecting = null;
      }
    });
  }

  #enterTransmission(): void {
    const { session, link, negotiator } = this.#opening ?? {};
    if (link == null || negotiator == null || session?.info == null) return;
    const { negotiated, info } = session;
    const contexts = negotiated.contexts ?? new Map<number, string>();
    this.#strict = {
      strictMode: this.settings.strictMode,
      info,
      structuredReplies: negotiated.structuredReplies,
      extendedHeaders: negotiated.extendedHeaders,
      hasContexts: contexts.size > 0,
    };
    const transmission = new Transmission(
      this.#handle,
      this,
      link.transport,
      {
        structuredReplies: negotiated.structuredReplies,
        extendedHeaders: negotiated.extendedHeaders,
        exportSize: info.size,
        contexts,
        ...(this.settings.maskExportName ? { secret: this.settings.exportName } : {}),
      },
      this.settings,
      this.completions,
      this.debug,
    );
    this.#transmission = transmission;
    link.phase = transmission;
    if (this.#unreferenced) link.transport.unref();
    this.#move('connected');
    traceOpen(this.#handle);
    for (const bytes of negotiator.takeRest()) transmission.push(bytes);
  }

  // Option mode.

  /** Throws when an option is pending: there is one at a time. */
  checkNoOption(method: string): void {
    this.#opening?.checkNoOption(method);
  }

  /** Runs one option. A refusal rejects and leaves the connection negotiating; a broken rule ends it. */
  async runOption<Result>(method: string, run: OptionRun<Result>, signal?: AbortSignal): Promise<Result> {
    const opening = this.#opening;
    if (opening === null) throw new Error(`${method}: no negotiation`);
    this.debug.say(method, 'enter');
    try {
      return await opening.runOption(method, run, signal, () => {
        if (run === (optGo as unknown)) this.#enterTransmission();
      });
    } catch (error) {
      if (signal?.aborted === true) throw error;
      if (isFatal(error)) {
        this.failed(error);
        throw this.#error ?? error;
      }
      if ((error as NbdError).code === 'ESHUTDOWN') void this.shutdown();
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
      if (transmission.isLeaving || (transmission.isAtBoundary && transmission.unfinished === 0)) {
        this.#end('closed', null);
        return;
      }
      const lost = transmission.unfinished;
      this.#end(
        'dead',
        new NbdConnectionError(
          `the server closed the connection ${transmission.position}, with ${lost} command${lost === 1 ? '' : 's'} unanswered`,
          { code: 'ENOTCONN' },
        ),
      );
      return;
    }
    const opening =
      this.#opening?.session.protocol === 'newstyle'
        ? ` (it may not have export ${JSON.stringify(shownExportName(this.settings))})`
        : '';
    this.#end(
      'dead',
      new NbdConnectionError(`the server closed the connection during the handshake${opening}`, { code: 'ENOTCONN' }),
    );
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
    setImmediate(() => {
      if (this.#phase === 'connected') void this.shutdown();
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

  /** Graceful: what is in flight settles, the server is told, the stream ends; resolves in any case. */
  shutdown(abandonPending = false): Promise<void> {
    if (abandonPending) this.#transmission?.abandon((command) => endOfCommand(command, CLOSED));
    this.#shutdown ??= this.#runShutdown();
    return this.#shutdown;
  }

  async #runShutdown(): Promise<void> {
    const begun = Date.now();
    if (this.#phase !== 'closed' && this.#phase !== 'dead') await this.#leave();
    const { closeTimeout } = this.settings;
    const left = closeTimeout > 0 ? Math.max(0, begun + closeTimeout - Date.now()) : Infinity;
    await this.target?.subprocess?.endedWithin(left);
  }

  async #leave(): Promise<void> {
    const { closeTimeout } = this.settings;
    const transmission = this.#transmission;
    if (transmission === null || this.#phase !== 'connected') {
      if (this.#phase === 'negotiating' && this.#opening?.negotiator?.isBusy === false) this.#opening.sendAbort();
      this.close();
      return;
    }
    await new Promise<void>((resolve) => {
      this.#afterEnd = resolve;
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
    this.#opening?.negotiator?.stop(reason);
    this.#transmission?.end((command) => endOfCommand(command, reason));
    this.#opening?.link?.transport.destroy();
    traceClose(this.#handle, error ?? undefined);
    this.#events.close(error ?? undefined);
    this.#afterEnd?.();
  }

  #move(phase: Phase): void {
    const previous = asEvent(this.#phase);
    this.#phase = phase;
    this.debug.say(
      'state',
      `${previous} -> ${asEvent(phase)}${this.#error === null ? '' : `: ${this.#error.message}`}`,
    );
    this.#events.stateChange(asEvent(phase), previous);
  }
}

/** Commands come and go too often to be events: connected is `ready`, whatever is in flight. */
const asEvent = (phase: Phase): ConnectionState => (phase === 'connected' ? 'ready' : phase);
