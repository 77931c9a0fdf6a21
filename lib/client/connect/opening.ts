// Connects to a target and runs the handshake on it. Cleans up nothing on failure: the lifecycle does.

import { Buffer } from '../../util/buffer.js';
import { NbdConnectionError, NbdError, NbdOptionError, NbdStateError } from '../../errors.js';
import type { ReplyContext } from '../../protocol/reply-rules.js';
import { TLS_DISABLE } from '../../protocol/client-constants.js';
import { NBD_OPT_EXPORT_NAME, NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_STARTTLS } from '../../protocol/constants.js';
import { greetingOf, notNbd } from '../../protocol/handshake/greeting.js';
import { type HandshakeStage, negotiate } from '../../protocol/handshake/negotiate.js';
import { encodeAbort } from '../../protocol/handshake/opt-simple.js';
import { HandshakeSession } from '../../protocol/handshake/session.js';
import { optionName } from '../../protocol/names.js';
import type { ExportInfo } from '../../protocol/export-info.js';
import type { StrictContext } from '../../protocol/strict.js';
import type { Transport } from '../../transport/transport.js';
import type { U64 } from '../../util/u64.js';
import { isFatal, optionTimeout, toConnectionError, withContext } from '../connection-errors.js';
import { withDeadline } from './deadline.js';
import { Link, type LinkOwner } from '../link.js';
import { HandshakePhase } from './handshake-phase.js';
import type { OptionRun } from './option-runs.js';
import type { Target } from './target.js';
import { handshakeRequest, type Settings } from '../options/options.js';
import type { ClientPlatform, TlsStarter } from '../platform.js';
import { refuse } from '../options/checks.js';
import { quoted } from '../../util/visible.js';

/** Options that some servers refuse by hanging up. */
const OPENING_OPTIONS: ReadonlySet<number> = new Set([NBD_OPT_EXPORT_NAME, NBD_OPT_GO, NBD_OPT_INFO]);

const TRY_EXPORT_NAME = '; if it is an old server that does not know this option, try exportNameOnly';

/** A connection up to its transmission phase: the target, the link and the handshake. */
export class Opening {
  readonly target: Target;
  readonly session: HandshakeSession;
  #link: Link | null = null;
  #handshake: HandshakePhase | null = null;
  readonly #settings: Settings;
  /** Loaded before anything is opened, so that a failure has no effect on the server. */
  #tls: TlsStarter | null = null;
  readonly #platform: ClientPlatform;

  constructor(target: Target, settings: Settings, platform: ClientPlatform) {
    this.target = target;
    this.#settings = settings;
    this.#platform = platform;
    this.session = new HandshakeSession(handshakeRequest(settings));
  }

  get link(): Link | null {
    return this.#link;
  }

  get handshake(): HandshakePhase | null {
    return this.#handshake;
  }

  /**
   * Opens the transport. Rejects with the signal's reason, with NbdStrictError when the TLS options name something
   * that cannot be used, or with the transport's error as ours.
   */
  async open(signal: AbortSignal): Promise<Transport> {
    try {
      await this.#prepareTls();
      signal.throwIfAborted();
      const transport = await this.target.open(signal);
      if (signal.aborted) transport.destroy();
      signal.throwIfAborted();
      return transport;
    } catch (cause) {
      this.target.discard?.();
      if (signal.aborted) throw signal.reason;
      if (cause instanceof NbdError) throw withContext(cause, this.#what, 'connect');
      throw toConnectionError(cause, this.#what);
    }
  }

  async #prepareTls(): Promise<void> {
    const settings = this.#settings;
    // In option mode TLS may be asked for later.
    if (settings.tls === TLS_DISABLE && !settings.optMode) return;
    const { noTls } = this.target;
    if (noTls !== undefined) {
      if (settings.tls === TLS_DISABLE) return;
      throw refuse('connect', `TLS is not supported here: ${noTls}`, 'ENOTSUP');
    }
    this.#tls = await this.#platform.loadTls(settings);
    if (settings.tls !== TLS_DISABLE) this.#tls?.check();
  }

  /** Takes the transport away from the link at once, and gives it back encrypted. */
  async #startTls(): Promise<Transport> {
    const link = this.#link;
    const raw = link?.transport;
    if (link === null || raw === undefined || this.#tls === null) {
      throw new NbdConnectionError('TLS is not possible on this transport', { code: 'ENOTSUP' });
    }
    const secure = await this.#tls.start(raw, this.target);
    link.transport = secure;
    secure.start(link);
    return secure;
  }

  /**
   * Runs the handshake. `reached` is called synchronously: the bytes behind the last reply belong to the next phase and
   * may arrive in the same event. Rejects with the signal's reason, or with the error of the handshake.
   */
  negotiate(
    transport: Transport,
    owner: LinkOwner,
    signal: AbortSignal,
    reached: (stage: HandshakeStage) => void,
  ): Promise<void> {
    if (signal.aborted) {
      // The connection was ended between the opening of the transport and now.
      transport.destroy();
      return Promise.reject(signal.reason as Error);
    }
    const handshake = new HandshakePhase(transport, () => this.#startTls());
    this.#handshake = handshake;
    const link = new Link(transport, handshake, owner);
    this.#link = link;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        handshake.stop(signal.reason);
      };
      signal.addEventListener('abort', onAbort);
      handshake.run(
        negotiate(this.session),
        (stage) => {
          signal.removeEventListener('abort', onAbort);
          reached(stage);
          resolve();
        },
        (thrown) => {
          signal.removeEventListener('abort', onAbort);
          const greeting = greetingOf(thrown);
          const error = greeting === undefined ? thrown : notNbd(Buffer.concat([greeting, ...handshake.takeRest()]));
          // The server refused an option in good order: end the handshake in good order as well.
          if (error instanceof NbdOptionError) this.sendAbort();
          if (signal.aborted) reject(signal.reason as Error);
          else if (error instanceof NbdError) reject(withContext(error, this.#what, 'connect'));
          else reject(toConnectionError(error, this.#what));
        },
      );
      link.transport.start(link);
    });
  }

  /** The facts that commands are checked against, once the export is open. */
  strictContext(info: ExportInfo): StrictContext & { strictMode: number } {
    const { structuredReplies, extendedHeaders, contexts } = this.session.negotiated;
    const { strictMode } = this.#settings;
    return { strictMode, info, structuredReplies, extendedHeaders, hasContexts: (contexts?.size ?? 0) > 0 };
  }

  /** The facts that replies are decoded with, once the export is open. */
  replyContext(exportSize: U64): ReplyContext {
    const { structuredReplies, extendedHeaders, contexts } = this.session.negotiated;
    return {
      ...{ structuredReplies, extendedHeaders, exportSize, contexts: contexts ?? new Map<number, string>() },
      ...(this.#settings.maskExportName ? { secret: this.#settings.exportName } : {}),
    };
  }

  /** Wraps the error of a stream that ended during the handshake. */
  explain(error: Error): NbdError {
    if (error instanceof NbdError) return withContext(error, this.#what, 'connect');
    const explained = toConnectionError(error, this.#what, 'ENOTCONN');
    // The server hung up before it had read everything: the stream is reset then.
    if ((error as { readonly code?: unknown }).code === 'ECONNRESET') explained.message += this.#whyHungUp();
    return explained;
  }

  /** The error for a stream that the server ended in the middle of the handshake. */
  ended(): NbdConnectionError {
    const why = this.#whyHungUp();
    return new NbdConnectionError(`the server closed the connection during the handshake${why}`, { code: 'ENOTCONN' });
  }

  /** The likely reason for which a server has hung up, judging by when it did: the protocol has no message for it. */
  #whyHungUp(): string {
    const { lastOption, protocol, shownName } = this.session;
    if (protocol === null) {
      const received = Buffer.concat(this.#handshake?.takeRest() ?? []);
      if (received.length > 0) return `: ${notNbd(received).message}`;
      return ', before it had greeted: it may not accept connections from this address, or no more of them';
    }
    if (lastOption === null || this.#handshake?.isBusy !== true) return '';
    const at = `, at ${optionName(lastOption)}`;
    if (!OPENING_OPTIONS.has(lastOption)) return `${at}${lastOption === NBD_OPT_STARTTLS ? '' : TRY_EXPORT_NAME}`;
    return (
      `${at}: it probably has no export ${quoted(shownName)}, or does not accept connections from this address` +
      (lastOption === NBD_OPT_EXPORT_NAME ? '' : TRY_EXPORT_NAME)
    );
  }

  /** Throws while an option is pending: only one may be pending at a time. */
  checkNoOption(method: string): void {
    if (this.#handshake?.isBusy !== true) return;
    throw new NbdStateError(`${method}: another option is pending: there is one at a time`, {
      code: 'EINVAL',
      syscall: method,
    });
  }

  /** Runs one option; `reached` is called synchronously, as in {@link negotiate}. */
  async runOption<Result>(
    method: string,
    run: OptionRun<Result>,
    signal: AbortSignal | undefined,
    reached: () => void,
  ): Promise<Result> {
    this.checkNoOption(method);
    const handshake = this.#handshake;
    const timeout = this.#settings.connectTimeout;
    const makeError = (): Error => optionTimeout(method, timeout);
    return withDeadline(signal, timeout, makeError, (controller) => {
      controller.signal.throwIfAborted();
      return new Promise<Result>((resolve, reject) => {
        // A later answer is ignored. After a timeout the connection ends, because the answer may never arrive.
        controller.signal.addEventListener('abort', () => {
          reject(controller.signal.reason as Error);
        });
        handshake?.run(
          run(this.session),
          (result) => {
            reached();
            resolve(result);
          },
          (error) => {
            reject(isFatal(error) ? (error as Error) : withContext(error as NbdError, method, method));
          },
        );
      });
    });
  }

  /** Sends NBD_OPT_ABORT and ends our side; the server may close without a reply. */
  sendAbort(): void {
    const link = this.#link;
    const handshake = this.#handshake;
    if (link === null || handshake === null) return;
    const bytes = encodeAbort();
    this.session.optionsSent++;
    handshake.bytesSent += bytes.length;
    link.transport.write([bytes], () => undefined);
    link.transport.end();
  }

  timeoutError(timeout: number): NbdConnectionError {
    const doing = this.#link === null ? 'no connection' : 'the handshake did not end';
    return new NbdConnectionError(`${this.#what}: ${doing} within ${timeout} ms (connectTimeout)`, {
      code: 'ETIMEDOUT',
      syscall: 'connect',
    });
  }

  get #what(): string {
    return `connect to ${this.target.description}`;
  }
}
