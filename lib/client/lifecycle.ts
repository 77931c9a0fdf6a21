// The states of one connection and the ways between them: connect, negotiate, transmit, end.
// Invariant: ending is done once, by #end(), and leaves no timer, listener, socket or pending promise.

import { NbdConnectionError, NbdError, NbdOptionError, NbdProtocolError, NbdStateError, NbdStrictError } from '../errors.js';
import { type Command, callDetails, describeCall } from '../protocol/command.js';
import { type Handshake } from '../protocol/handshake/effects.js';
import { type HandshakeStage, negotiate } from '../protocol/handshake/negotiate.js';
import { encodeAbort } from '../protocol/handshake/opt-simple.js';
import { type HandshakeRequest, HandshakeSession } from '../protocol/handshake/session.js';
import { type StrictContext, toFlags } from '../protocol/strict.js';
import { type Transport } from '../transport/transport.js';
import { Completions } from './completions.js';
import { Link, type LinkOwner } from './link.js';
import { Negotiator } from './negotiator.js';
import { type Settings } from './options.js';
import { type ConnectionState, type Phase } from './state.js';
import { traceClose, traceOpen } from './tracing.js';
import { Transmission, type TransmissionOwner } from './transmission.js';

/** What a lifecycle tells the public face. Never called from within a constructor. */
export interface LifecycleEvents {
  stateChange(state: ConnectionState, previous: ConnectionState): void;
  close(error: NbdError | undefined): void;
  drain(): void;
}

/** What is to be connected to. */
export interface Target {
  /** For messages: `127.0.0.1:10809`, a socket's path. */
  readonly description: string;
  /** A TCP connect that fails leaves the handle as it was, so that it can be tried again (libnbd). */
  readonly mayRetry: boolean;
  open(signal: AbortSignal): Promise<Transport>;
}

export class Lifecycle implements LinkOwner, TransmissionOwner {
  readonly settings: Settings;
  readonly completions = new Completions();
  readonly #handle: object;
  readonly #events: LifecycleEvents;
  #phase: Phase = 'created';
  #session: HandshakeSession | null = null;
  #link: Link | null = null;
  #negotiator: Negotiator | null = null;
  #transmission: Transmission | null = null;
  #strict: (StrictContext & { strictMode: number }) | null = null;
  /** Why it ended, where it did not by itself. */
  #error: NbdError | null = null;
  #lastCookie = 0;
  #connecting: AbortController | null = null;
  #shutdown: Promise<void> | null = null;
  #disconnectSent = false;
  #unreferenced = false;
  #target: Target | null = null;

  constructor(handle: object, settings: Settings, events: LifecycleEvents) {
    this.#handle = handle;
    this.settings = settings;
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
    return this.#session;
  }

  get target(): Target | null {
    return this.#target;
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
    return (this.#negotiator?.bytesSent ?? 0) + (this.#transmission?.bytesSent ?? 0);
  }

  get chunksSent(): number {
    return (this.#session?.optionsSent ?? 0) + (this.#transmission?.chunksSent ?? 0);
  }

  get bytesReceived(): number {
    return this.#link?.bytesReceived ?? 0;
  }

  get chunksReceived(): number {
    return (this.#session?.protocol == null ? 0 : 1) + (this.#transmission?.chunksReceived ?? 0);
  }

  nextCookie(): number {
    return ++this.#lastCookie;
  }

  // Connecting.

  /** From created to negotiating or connected. The caller has checked the state. */
  async connect(target: Target, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#target = target;
    this.#move('connecting');
    const controller = new AbortController();
    this.#connecting = controller;
    const { connectTimeout } = this.settings;
    const onAbort = (): void => {
      controller.abort(signal?.reason);
    };
    signal?.addEventListener('abort', onAbort);
    const timer =
      connectTimeout > 0
        ? setTimeout(() => {
            controller.abort(this.#timeoutError(target, connectTimeout));
          }, connectTimeout)
        : null;
    try {
      const transport = await this.#open(target, controller.signal);
      const stage = await this.#negotiate(transport, controller.signal);
      if (stage === 'negotiating') this.#move('negotiating');
    } catch (error) {
      // The signal's reason, untouched, where the signal ended it; the timeout's error likewise.
      if (!controller.signal.aborted || this.#phase === 'dead') throw error;
      this.#end('dead', toConnectionError(controller.signal.reason, `connect to ${target.description}`));
      throw controller.signal.reason;
    } finally {
      if (timer !== null) clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      this.#connecting = null;
    }
  }

  async #open(target: Target, signal: AbortSignal): Promise<Transport> {
    try {
      const transport = await target.open(signal);
      if (!signal.aborted) return transport;
      transport.start({ target: () => new Uint8Array(1), advance() {}, push() {}, end() {}, close() {} });
      transport.destroy();
      throw signal.reason;
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      const error = toConnectionError(cause, `connect to ${target.description}`);
      if (target.mayRetry) this.#move('created');
      else this.#end('dead', error);
      throw error;
    }
  }

  #negotiate(transport: Transport, signal: AbortSignal): Promise<HandshakeStage> {
    const session = new HandshakeSession(this.#request());
    this.#session = session;
    const negotiator = new Negotiator(transport, () =>
      Promise.reject(new NbdConnectionError('connect: TLS is not available', { code: 'ENOTSUP' })),
    );
    this.#negotiator = negotiator;
    this.#link = new Link(transport, negotiator, this);
    return new Promise<HandshakeStage>((resolve, reject) => {
      const fail = (error: unknown): void => {
        signal.removeEventListener('abort', onAbort);
        if (error instanceof NbdOptionError) this.#softDisconnect();
        if (!signal.aborted) this.#end('dead', toConnectionError(error, `connect to ${transport.description}`));
        reject(signal.aborted ? (signal.reason as Error) : (this.#error ?? (error as Error)));
      };
      const onAbort = (): void => {
        negotiator.stop(signal.reason);
        transport.destroy();
      };
      signal.addEventListener('abort', onAbort);
      negotiator.run(
        negotiate(session),
        (stage) => {
          signal.removeEventListener('abort', onAbort);
          if (stage === 'transmission') this.#enterTransmission();
          resolve(stage);
        },
        fail,
      );
      this.#link?.transport.start(this.#link);
    });
  }

  #request(): HandshakeRequest {
    const { settings } = this;
    return {
      // Getters: until the export is open the setters still count.
      get exportName() {
        return settings.exportName;
      },
      get fullInfo() {
        return settings.fullInfo;
      },
      get blockSize() {
        return settings.requestBlockSize;
      },
      get metaContext() {
        return settings.requestMetaContext;
      },
      get metaContexts() {
        return settings.metaContexts;
      },
      tls: settings.tls,
      handshakeFlags: settings.handshakeFlags,
      structuredReplies: settings.requestStructuredReplies,
      extendedHeaders: settings.requestExtendedHeaders,
      optMode: settings.optMode,
    };
  }

  #timeoutError(target: Target, timeout: number): NbdConnectionError {
    const doing = this.#link === null ? 'no connection' : 'the handshake did not end';
    return new NbdConnectionError(`connect to ${target.description}: ${doing} within ${timeout} ms (connectTimeout)`, {
      code: 'ETIMEDOUT',
      syscall: 'connect',
    });
  }

  #enterTransmission(): void {
    const { session } = this;
    const link = this.#link;
    const negotiator = this.#negotiator;
    if (link === null || negotiator === null || session?.info == null) return;
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
      },
      this.settings,
      this.completions,
    );
    this.#transmission = transmission;
    link.phase = transmission;
    if (this.#unreferenced) link.transport.unref();
    this.#move('connected');
    traceOpen(this.#handle);
    for (const bytes of negotiator.takeRest()) transmission.push(bytes);
  }

  // Option mode.

  /** Runs one option. A refusal rejects and leaves the connection negotiating; a broken rule ends it. */
  runOption<Result>(method: string, handshake: (session: HandshakeSession) => Handshake<Result>): Promise<Result> {
    const negotiator = this.#negotiator;
    const { session } = this;
    if (negotiator === null || session === null || negotiator.isBusy) {
      return Promise.reject(
        new NbdStateError(`${method}: another option is pending: there is one at a time`, {
          code: 'EINVAL',
          syscall: method,
        }),
      );
    }
    return new Promise<Result>((resolve, reject) => {
      negotiator.run(
        handshake(session),
        (result) => {
          resolve(result);
        },
        (error) => {
          this.failed(error);
          reject(this.#error ?? error);
        },
      );
    });
  }

  /** The export is open: called by the option that opened it, before its promise resolves. */
  opened(): void {
    this.#enterTransmission();
  }

  // Ending.

  /** LinkOwner: a phase threw. */
  failed(thrown: unknown): void {
    const error =
      thrown instanceof NbdError
        ? thrown
        : new NbdProtocolError(`connection: unexpected failure: ${String(thrown)}`, { code: 'EPROTO', cause: thrown });
    this.#end('dead', error);
  }

  ended(): void {
    const transmission = this.#transmission;
    if (this.#phase === 'connected' && transmission !== null) {
      if (transmission.isAtBoundary && (transmission.unfinished === 0 || this.#disconnectSent)) {
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
    const opening = this.#session?.protocol === 'newstyle' ? ` (it may not have export ${JSON.stringify(this.settings.exportName)})` : '';
    this.#end(
      'dead',
      new NbdConnectionError(`the server closed the connection during the handshake${opening}`, { code: 'ENOTCONN' }),
    );
  }

  closed(error: Error | null): void {
    if (error === null) this.ended();
    else if (this.#disconnectSent && this.inFlight <= 1) this.#end('closed', null);
    else this.#end('dead', toConnectionError(error, 'connection', 'ENOTCONN'));
  }

  drained(): void {
    this.#events.drain();
  }

  busyChanged(busy: boolean): void {
    if (!this.#unreferenced) return;
    if (busy) this.#link?.transport.ref();
    else this.#link?.transport.unref();
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
    this.#link?.transport.ref();
  }

  unref(): void {
    this.#unreferenced = true;
    if (this.inFlight === 0) this.#link?.transport.unref();
  }

  /** Immediate; pending commands reject with ENOTCONN. */
  close(): void {
    if (this.#phase === 'closed' || this.#phase === 'dead') return;
    this.#end('closed', null);
  }

  /** Graceful: what is in flight settles, the server is told, the stream ends; resolves in any case. */
  shutdown(): Promise<void> {
    if (this.#phase === 'closed' || this.#phase === 'dead') return Promise.resolve();
    this.#shutdown ??= this.#runShutdown();
    return this.#shutdown;
  }

  async #runShutdown(): Promise<void> {
    const { closeTimeout } = this.settings;
    const transmission = this.#transmission;
    if (transmission === null || this.#phase !== 'connected') {
      if (this.#phase === 'negotiating' && this.#negotiator?.isBusy === false) this.#softDisconnect();
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

  #afterEnd: (() => void) | null = null;
  #closeTimer: NodeJS.Timeout | null = null;

  /** nbd_aio_disconnect: once, at the user's own call. */
  disconnectNow(method: string, flags: unknown): void {
    if (toFlags(flags, method) !== 0) {
      throw new NbdStrictError(`${method}: invalid flag`, { code: 'EINVAL', syscall: method });
    }
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
      this.#disconnectSent = true;
      this.#link?.transport.end();
    });
  }

  #softDisconnect(): void {
    this.#link?.transport.write([encodeAbort()], () => undefined);
    this.#link?.transport.end();
  }

  #end(phase: 'closed' | 'dead', error: NbdError | null): void {
    if (this.#phase === 'closed' || this.#phase === 'dead') return;
    this.#error = error;
    if (this.#closeTimer !== null) clearTimeout(this.#closeTimer);
    const reason = error ?? new NbdConnectionError('the connection was closed', { code: 'ENOTCONN' });
    this.#connecting?.abort(reason);
    this.#move(phase);
    this.#negotiator?.stop(reason);
    this.#transmission?.end((command) => endOf(command, reason));
    this.#link?.transport.destroy();
    traceClose(this.#handle, error ?? undefined);
    this.#events.close(error ?? undefined);
    this.#afterEnd?.();
  }

  #move(phase: Phase): void {
    const previous = this.state;
    this.#phase = phase;
    this.#events.stateChange(this.state, previous);
  }
}

/** How the end of the connection looks to one of its commands. */
function endOf(command: Command, reason: NbdError): NbdError {
  // The command in whose reply the rule was broken, or that had no reply in time, gets that very error.
  if (reason.cookie === BigInt(command.cookie)) return reason;
  const { spec, count, offset } = command;
  return new NbdConnectionError(`${describeCall(spec, count, offset)}: the connection ended: ${reason.message}`, {
    code: 'ENOTCONN',
    cookie: BigInt(command.cookie),
    ...callDetails(spec, count, offset),
    cause: reason,
  });
}

/** A transport's or an unknown error as ours, with its own code where it has one. */
function toConnectionError(cause: unknown, what: string, code?: string): NbdError {
  if (cause instanceof NbdError) return cause;
  const own = (cause as { code?: unknown } | null)?.code;
  const known = code ?? (typeof own === 'string' && /^E[A-Z0-9_]+$/.test(own) ? own : 'ENOTCONN');
  const said = cause instanceof Error ? cause.message : String(cause);
  return new NbdConnectionError(`${what}: ${said}`, { code: known, syscall: 'connect', cause });
}

