// One client: its stream, its deadline, and which of the two phases it is in. Invariants: no exception leaves a stream
// callback; when the stream has closed there is no timer, listener or pending write of this connection left.

import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { clearTimeout, setTimeout } from 'node:timers';
import { NbdConnectionError, NbdProtocolError } from '../errors.js';
import { HandshakeDriver } from '../protocol/handshake/driver.js';
import { serve } from '../protocol/handshake/serve.js';
import type { ServedSession, ServerOffer } from '../protocol/handshake/serve-offer.js';
import { ReplyOutput } from './transmission/reply-output.js';
import type { ServedExport } from './served-export.js';
import { type NbdServerTlsOptions, upgrade } from './tls-upgrade.js';
import { Transmission, type TransmissionOptions } from './transmission/transmission.js';

export interface ConnectionOptions extends TransmissionOptions {
  readonly offer: ServerOffer<ServedExport>;
  readonly tls: NbdServerTlsOptions | undefined;
  /** Milliseconds for the whole handshake; 0 for ever. */
  readonly handshakeTimeout: number;
  /** Milliseconds that the client has to take the last replies. */
  readonly closeTimeout: number;
  /** The stream has closed; `error` tells what the client did wrong, if it did. */
  readonly closed: (connection: ServerConnection, error: Error | null) => void;
}

/** Idle time before the kernel asks whether the client is still there. */
const KEEP_ALIVE_DELAY = 60_000;

const PLAINTEXT = 'plaintext after NBD_OPT_STARTTLS';

export class ServerConnection {
  readonly number: number;
  readonly #options: ConnectionOptions;
  readonly #output: ReplyOutput;
  #stream: Duplex;
  /** The stream below TLS, or the only one. */
  readonly #plain: Duplex;
  /** Null once the handshake has come to its end. */
  #handshake: HandshakeDriver | null;
  #transmission: Transmission | null = null;
  // The handshake's deadline, later that of the end.
  #timer: NodeJS.Timeout | null = null;
  #detach: () => void = () => undefined;
  #error: Error | null = null;
  #ending = false;
  #isCut = false;
  #isDestroyed = false;
  #closed = false;

  constructor(stream: Duplex, options: ConnectionOptions) {
    this.number = options.connection;
    this.#options = options;
    this.#stream = stream;
    this.#plain = stream;
    this.#output = new ReplyOutput(stream, {
      limit: options.maxReplyBytes,
      written: () => {
        this.#transmission?.written();
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
        this.#output.push(bytes);
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
    if (this.#stream instanceof Socket) {
      // A client that has vanished is noticed, and lets go of what is held for it.
      this.#stream.setKeepAlive(true, KEEP_ALIVE_DELAY).setNoDelay(true);
    }
    this.#attach(this.#stream);
    // The caller may have paused it so that nothing is lost; a listener alone does not undo that.
    this.#stream.resume();
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

  /** Ends as soon as what is being done is done: at once in the handshake. The server keeps the deadline. */
  shutdown(): void {
    if (this.#transmission === null || this.#isCut) this.destroy(null);
    else this.#transmission.shutdown();
  }

  /** Ends now. */
  destroy(error: Error | null): void {
    if (this.#closed) return;
    this.#error ??= error;
    this.#isDestroyed = true;
    this.#output.close();
    this.#transmission?.destroy();
    this.#handshake?.stop();
    this.#stream.destroy();
  }

  #attach(stream: Duplex): void {
    this.#stream = stream;
    const onData = (chunk: Buffer | string): void => {
      // A stream with an encoding set gives strings, in which bytes are lost already.
      if (typeof chunk === 'string') this.destroy(new TypeError('the stream must not have an encoding set'));
      else this.#data(chunk);
    };
    const onDrain = (): void => {
      this.#drained();
    };
    const onEnd = (): void => {
      this.#peerEnded();
    };
    const onError = (error: Error): void => {
      this.destroy(asConnectionError(error));
    };
    const onClose = (): void => {
      this.#streamClosed();
    };
    stream.on('data', onData).on('drain', onDrain).on('end', onEnd).on('error', onError).on('close', onClose);
    this.#detach = () => {
      stream.off('data', onData).off('drain', onDrain).off('end', onEnd).off('close', onClose);
      // The listener for errors stays for good: an error without one would end the process.
    };
  }

  #data(chunk: Buffer): void {
    try {
      if (this.#transmission !== null) this.#transmission.push(chunk);
      else this.#handshake?.push(chunk);
    } catch (error) {
      this.destroy(error as Error);
    }
    // What was answered at once goes out at once; the rest waits for the end of the turn.
    this.#output.flush();
    if (this.#handshake !== null && !this.#output.hasRoom()) this.#stream.pause();
  }

  #drained(): void {
    if (this.#handshake !== null) {
      this.#stream.resume();
      this.#handshake.resume();
    }
    this.#transmission?.drained();
  }

  #peerEnded(): void {
    if (this.#isCut) this.destroy(null);
    else if (this.#transmission !== null) this.#noMoreRequests(this.#transmission);
    else this.#end();
  }

  /**
   * The client may have closed one direction, or be gone: that looks the same. It gets its replies as long as anybody
   * waits at the end of a connection; then the rest of the work is given up, unless it has sent NBD_CMD_DISC, after
   * which "the server MUST handle all outstanding requests".
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
          this.#stream.pause();
        },
        resume: () => {
          this.#stream.resume();
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
    const plain = this.#stream;
    const { tls } = this.#options;
    this.#output.flush();
    this.#detach();
    plain.pause();
    const onClose = (): void => {
      if (!this.#isDestroyed) this.#error = new NbdConnectionError('the TLS handshake failed', { code: 'ENOTCONN' });
      this.#streamClosed();
    };
    plain.once('close', onClose);
    if (tls === undefined || plain.readableLength > 0) {
      const reason = tls === undefined ? 'there is no certificate' : PLAINTEXT;
      this.destroy(new NbdProtocolError(`TLS cannot begin: ${reason}`, { code: 'EPROTO' }));
      return;
    }
    upgrade(plain, tls, (error, secure) => {
      if (this.#closed) {
        secure?.destroy();
        return;
      }
      if (secure === null) {
        this.destroy(new NbdConnectionError('the TLS handshake failed', { code: 'EPROTO', cause: error }));
        return;
      }
      plain.off('close', onClose);
      this.#output.attach(secure);
      this.#attach(secure);
      this.#handshake?.secured();
      this.#output.flush();
    });
  }

  /** Sends what waits, then the end of the stream, and lets go of it when that is out. */
  #end(): void {
    if (this.#ending || this.#closed) return;
    this.#ending = true;
    this.#output.flush();
    this.#setTimer(Math.max(1, this.#options.closeTimeout), 'the client did not take the last replies');
    const stream = this.#stream;
    stream.end(() => stream.destroy());
  }

  /** What a fault asks for. Closing is lingering: with input unread, the system would make a reset of it. */
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
    this.#stream.resume();
    this.#stream.end();
  }

  /** A reset where there is such a thing, which is TCP; elsewhere an end without a word. */
  #reset(): void {
    try {
      if (this.#plain instanceof Socket) this.#plain.resetAndDestroy();
    } catch {
      // Only a handle of TCP can.
    }
    this.#plain.destroy();
    this.#stream.destroy();
  }

  #setTimer(milliseconds: number, reason: string): void {
    this.#clearTimer();
    if (milliseconds === 0) return;
    this.#timer = setTimeout(() => {
      this.destroy(new NbdConnectionError(reason, { code: 'ETIMEDOUT' }));
    }, milliseconds);
    // A socket keeps the process alive by itself; a stream in memory that nobody uses any more should not.
    this.#timer.unref();
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #streamClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#clearTimer();
    this.#detach();
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
