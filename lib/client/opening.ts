// The way from a target to a handshake that has come to its stage: opens the transport, puts a link and a negotiator
// on it. It ends nothing itself; whoever runs it does, when it rejects.

import { NbdConnectionError, NbdError, NbdOptionError } from '../errors.js';
import { type HandshakeStage, negotiate } from '../protocol/handshake/negotiate.js';
import { encodeAbort } from '../protocol/handshake/opt-simple.js';
import { HandshakeSession } from '../protocol/handshake/session.js';
import { type Transport } from '../transport/transport.js';
import { toConnectionError, withContext } from './connection-errors.js';
import { Link, type LinkOwner } from './link.js';
import { Negotiator } from './negotiator.js';
import { handshakeRequest, type Settings } from './options.js';

/** What is to be connected to. */
export interface Target {
  /** For messages: `127.0.0.1:10809`, a socket's path. */
  readonly description: string;
  /** A TCP connect that fails leaves the connection as it was, so that it can be tried again (libnbd). */
  readonly mayRetry: boolean;
  open(signal: AbortSignal): Promise<Transport>;
}

/** A handshake on a link: what there is of a connection before its transmission phase, and what that builds on. */
export class Opening {
  readonly target: Target;
  readonly session: HandshakeSession;
  #link: Link | null = null;
  #negotiator: Negotiator | null = null;

  constructor(target: Target, settings: Settings) {
    this.target = target;
    this.session = new HandshakeSession(handshakeRequest(settings));
  }

  get link(): Link | null {
    return this.#link;
  }

  get negotiator(): Negotiator | null {
    return this.#negotiator;
  }

  /** Opens the transport. Rejects with the signal's reason, or with the transport's error as ours. */
  async open(signal: AbortSignal): Promise<Transport> {
    try {
      const transport = await this.target.open(signal);
      if (signal.aborted) transport.destroy();
      signal.throwIfAborted();
      return transport;
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      throw toConnectionError(cause, `connect to ${this.target.description}`);
    }
  }

  /**
   * Runs the handshake. `reached` is called synchronously: the bytes behind its last reply belong to the next phase
   * and may be in the same event. Rejects with the signal's reason, or with why the handshake failed.
   */
  negotiate(
    transport: Transport,
    owner: LinkOwner,
    signal: AbortSignal,
    reached: (stage: HandshakeStage) => void,
  ): Promise<void> {
    const negotiator = new Negotiator(transport, () =>
      Promise.reject(new NbdConnectionError('connect: TLS is not available', { code: 'ENOTSUP' })),
    );
    this.#negotiator = negotiator;
    const link = new Link(transport, negotiator, owner);
    this.#link = link;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        negotiator.stop(signal.reason);
      };
      signal.addEventListener('abort', onAbort);
      negotiator.run(
        negotiate(this.session),
        (stage) => {
          signal.removeEventListener('abort', onAbort);
          reached(stage);
          resolve();
        },
        (error) => {
          signal.removeEventListener('abort', onAbort);
          // The server refused in good order: it is told that we leave.
          if (error instanceof NbdOptionError) this.sendAbort();
          if (signal.aborted) reject(signal.reason as Error);
          else if (error instanceof NbdError) reject(withContext(error, this.#what, 'connect'));
          else reject(toConnectionError(error, this.#what));
        },
      );
      link.transport.start(link);
    });
  }

  /** NBD_OPT_ABORT, and no more; the server may close without a reply. */
  sendAbort(): void {
    this.#link?.transport.write([encodeAbort()], () => undefined);
    this.#link?.transport.end();
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
