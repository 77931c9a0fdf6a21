// One client: its transport, its deadline, and which of the two phases it is in. Invariants: no exception leaves a
// stream callback; once the stream has closed, no timer, listener or pending write of this connection is left.

import { asBuffer, type Buffer } from '../util/buffer.js';
import { clearTimeout, setTimeout, unrefTimer } from '../util/timers.js';
import { NbdConnectionError, NbdProtocolError } from '../errors.js';
import { HandshakeDriver } from '../protocol/handshake/driver.js';
import { serve } from '../protocol/handshake/serve.js';
import type { ServedSession, ServerOffer } from '../protocol/handshake/serve-offer.js';
import type { ChunkReceiver, PausableTransport } from '../transport/transport.js';
import type { ServedExport } from './served-export.js';
import { ReplyOutput } from './transmission/reply-output.js';
import { Transmission, type TransmissionOptions } from './transmission/transmission.js';

/** A stream that a client is connected by, and what can be done with it beyond moving bytes. */
export interface ServedStream {
  readonly transport: PausableTransport;
  /** The stream had ended before it was passed on: nothing more will happen on it. */
  readonly isDestroyed: boolean;
  /** Takes the stream away at once, and resolves with the encrypted one. Absent if TLS is not possible. */
  startTls?(): Promise<PausableTransport>;
  /** Called before the first byte. */
  prepare?(): void;
  /** Ends it abruptly, as a failing network does; streams without this method are destroyed. */
  reset?(): void;
}

export interface ConnectionOptions extends TransmissionOptions {
  readonly offer: ServerOffer<ServedExport>;
  /** Milliseconds for the whole handshake; 0 for no limit. */
  readonly handshakeTimeout: number;
  /** Milliseconds that the client has to read the last replies. */
  readonly closeTimeout: number;
  /** The stream has closed; `error` describes what went wrong, null for an ordinary end. */
  readonly closed: (connection: ServerConnection, error: Error | null) => void;
}

const PLAINTEXT = 'plaintext after NBD_OPT_STARTTLS';

export class ServerConnection {
  readonly number: number;
  readonly #options: ConnectionOptions;
  readonly #output: ReplyOutput;
  #transport: PausableTransport;
  readonly #served: ServedStream;
  /** Null when the handshake has ended. */
  #handshake: HandshakeDriver | null;
  #transmission: Transmission | null = null;
  // The deadline of the handshake, later that of the end.
  #timer: ReturnType<typeof setTimeout> | null = null;
  #error: Error | null = null;
  /** The handshake waits until the client has read its replies. */
  #isHeld = false;
  #isSecuring = false;
  #ending = false;
  #isCut = false;
  #isDestroyed = false;
  #closed = false;

  constructor(served: ServedStream, options: ConnectionOptions) {
    this.number = options.connection;
    this.#options = options;
    this.#served = served;
    this.#transport = served.transport;
    this.#output = new ReplyOutput(this.#transport, {
      limit: options.maxReplyBytes,
      written: () => {
        this.#written();
      },
      sent: (bytes) => {
        options.statistics.bytesSent += bytes;
      },
      fault: () => options.faults.bytesFault(options.connection),
      cut: (how) => {
        this.#cut(how);
      },
    });
    this.#handshake = new HandshakeDriver({
      write: (bytes) => {
        this.#output.send(bytes);
      },
      isBlocked: () => !this.#output.hasRoom(),
      plaintextBeforeTls: () => new NbdProtocolError(`the client broke the protocol: ${PLAINTEXT}`, { code: 'EPROTO' }),
      startTls: () => {
        this.#startTls();
      },
    });
  }

  start(): void {
    this.#setTimer(this.#options.handshakeTimeout, 'the handshake took too long');
    this.#served.prepare?.();
    this.#transport.start(this.#receiver);
    this.#handshake?.run(
      serve(this.#options.offer),
      (session) => {
        this.#handshakeDone(session);
      },
      (error) => {
        this.destroy(error as Error);
      },
    );
    this.#output.flush();
  }

  /** Ends when the requests that run have finished, and at once in the handshake. The server sets the deadline. */
  shutdown(): void {
    if (this.#transmission === null || this.#isCut) this.destroy(null);
    else this.#transmission.shutdown();
  }

  /** Ends at once. */
  destroy(error: Error | null): void {
    if (this.#closed) return;
    this.#error ??= error;
    this.#isDestroyed = true;
    this.#output.close();
    this.#transmission?.destroy();
    this.#handshake?.stop();
    this.#transport.destroy();
  }

  readonly #receiver: ChunkReceiver = {
    push: (chunk) => {
      this.#data(asBuffer(chunk));
    },
    end: () => {
      this.#peerEnded();
    },
    close: (error) => {
      if (error !== null) this.#error ??= asConnectionError(error);
      this.#closedByStream();
    },
  };

  #data(chunk: Buffer): void {
    try {
      if (this.#transmission !== null) this.#transmission.push(chunk);
      else this.#handshake?.push(chunk);
    } catch (error) {
      this.destroy(error as Error);
    }
    // Replies that are ready are sent at once; others at the end of the turn.
    this.#output.flush();
    this.#holdIfBlocked();
  }

  /** A client that does not read the replies to its options is not read from either. */
  #holdIfBlocked(): void {
    if (this.#handshake === null || this.#isSecuring || this.#output.hasRoom()) return;
    this.#isHeld = true;
    this.#transport.pause();
  }

  /** The stream has taken what was written. */
  #written(): void {
    this.#transmission?.written();
    if (!this.#isHeld || !this.#output.hasRoom()) return;
    this.#isHeld = false;
    this.#transport.resume();
    this.#handshake?.resume();
    this.#holdIfBlocked();
  }

  #peerEnded(): void {
    if (this.#isCut) this.destroy(null);
    else if (this.#transmission !== null) this.#noMoreRequests(this.#transmission);
    else this.#end();
  }

  /**
   * The client may have closed one direction, or be gone: both look the same. Its requests are answered for as long as
   * a connection may take to end; then the remaining ones are dropped, unless it has sent NBD_CMD_DISC, after which
   * "the server MUST handle all outstanding requests".
   */
  #noMoreRequests(transmission: Transmission): void {
    transmission.end();
    if (this.#ending || this.#closed || transmission.isDisconnected) return;
    this.#setTimer(Math.max(1, this.#options.closeTimeout), 'the client closed the connection before its replies');
  }

  #handshakeDone(session: ServedSession<ServedExport> | null): void {
    const rest = this.#handshake?.takeRest() ?? [];
    this.#handshake = null;
    this.#clearTimer();
    if (session === null) {
      this.#end();
      return;
    }
    this.#options.statistics.sessions += 1;
    this.#transmission = new Transmission(
      {
        output: this.#output,
        pause: () => {
          this.#transport.pause();
        },
        resume: () => {
          this.#transport.resume();
        },
        finished: () => {
          this.#end();
        },
        cut: (how) => {
          this.#cut(how);
        },
        failed: (error) => {
          this.destroy(error);
        },
      },
      session,
      this.#options,
    );
    for (const bytes of rest) this.#transmission.push(bytes);
  }

  #startTls(): void {
    this.#output.flush();
    const served = this.#served;
    const secured = this.#transport.undelivered > 0 ? undefined : served.startTls?.();
    if (secured === undefined) {
      const reason = !('startTls' in served) ? 'there is no certificate' : PLAINTEXT;
      this.destroy(new NbdProtocolError(`TLS cannot begin: ${reason}`, { code: 'EPROTO' }));
      return;
    }
    this.#isSecuring = true;
    secured.then(
      (transport) => {
        this.#secured(transport);
      },
      (cause: unknown) => {
        const code = (cause as { readonly code?: unknown }).code === 'ECONNRESET' ? 'ENOTCONN' : 'EPROTO';
        if (!this.#isDestroyed) this.#error = new NbdConnectionError('the TLS handshake failed', { code, cause });
        this.#closedByStream();
      },
    );
  }

  #secured(secure: PausableTransport): void {
    this.#isSecuring = false;
    this.#transport = secure;
    this.#output.attach(secure);
    // The connection may have been destroyed after the session was established.
    if (this.#isDestroyed) secure.destroy();
    secure.start(this.#receiver);
    this.#handshake?.secured();
    this.#output.flush();
  }

  /** Sends what waits, ends the stream, and destroys it when everything has been sent. */
  #end(): void {
    if (this.#ending || this.#closed) return;
    this.#ending = true;
    this.#output.flush();
    this.#setTimer(Math.max(1, this.#options.closeTimeout), 'the client did not take the last replies');
    const transport = this.#transport;
    transport.end(() => {
      transport.destroy();
    });
  }

  /**
   * Ends the connection as a fault requires. To close, it keeps reading: with unread input the system would send a
   * reset.
   */
  #cut(how: 'close' | 'reset'): void {
    if (this.#isCut || this.#closed) return;
    this.#isCut = true;
    this.#output.flush();
    this.#output.close();
    this.#transmission?.destroy();
    this.#handshake?.stop();
    if (how === 'reset') {
      this.#reset();
      return;
    }
    this.#setTimer(Math.max(1, this.#options.closeTimeout), 'the client did not close');
    this.#transport.resume();
    this.#transport.end();
  }

  /** A reset with TCP; other streams are just destroyed. */
  #reset(): void {
    this.#served.reset?.();
    this.#transport.destroy();
  }

  #setTimer(milliseconds: number, reason: string): void {
    this.#clearTimer();
    if (milliseconds === 0) return;
    this.#timer = setTimeout(() => {
      this.destroy(new NbdConnectionError(reason, { code: 'ETIMEDOUT' }));
    }, milliseconds);
    // A socket keeps the process alive by itself; an unused stream in memory should not.
    unrefTimer(this.#timer);
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #closedByStream(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#clearTimer();
    this.#output.close();
    this.#transmission?.destroy();
    this.#handshake?.stop();
    this.#options.closed(this, this.#error);
  }
}

function asConnectionError(error: Error): NbdConnectionError {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : 'ENOTCONN';
  return new NbdConnectionError(`the connection broke: ${error.message}`, { code, cause: error });
}
