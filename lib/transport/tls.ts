// TLS over a transport that has been used in plaintext before. Invariant: once startTls() has been called, no byte of
// the transport is read as plaintext.

import type { Duplex } from 'node:stream';
import { connect, type PeerCertificate, type SecureContext, type TLSSocket } from 'node:tls';
import { type EndExplainer, StreamTransport } from './stream.js';

/** When a failure happened: during the handshake, before the first data after it, or later. */
export type TlsMoment = 'handshake' | 'beginning' | 'later';

export interface TlsOptions {
  readonly context: SecureContext;
  /** The host name to send to the peer (SNI); `''` to send none. */
  readonly serverName: string;
  /** Whether the peer's certificate must be trusted and issued for the right name. */
  readonly verify: boolean;
  /** Checks the names in a certificate whose chain has been verified; returns an error if they are wrong. */
  checkIdentity(certificate: PeerCertificate): Error | undefined;
  /** A pre-shared key, used instead of certificates. */
  readonly psk?: { readonly identity: string; readonly key: Uint8Array } | undefined;
  /** The error to report, with advice for the user; called with `null`, and may return it, for an end without error. */
  explain(error: Error | null, moment: TlsMoment): Error | null;
}

/**
 * Detaches the stream from `raw` and starts a TLS session on it. Rejects with the error that `explain` returns. On
 * failure, or if `raw` is destroyed meanwhile, the stream is destroyed.
 */
export function startTls(raw: StreamTransport, options: TlsOptions): Promise<TlsTransport> {
  const { explainEnd } = raw;
  const stream = raw.detach();
  // An 'error' without a listener would end the process; the TLS socket reports what matters.
  stream.on('error', () => undefined);
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      settle();
      stream.destroy();
      void explainLoss(explainEnd, error).then((reason) => {
        reject(options.explain(reason, 'handshake') ?? error);
      });
    };
    let socket: TLSSocket;
    try {
      socket = open(stream, options);
    } catch (error) {
      stream.destroy();
      reject(options.explain(error as Error, 'handshake') ?? (error as Error));
      return;
    }
    const onSecure = (): void => {
      settle();
      resolve(new TlsTransport(socket, raw.description, options, explainEnd));
    };
    const onClose = (): void => {
      fail(Object.assign(new Error('the stream was closed'), { code: 'ECONNRESET' }));
    };
    const settle = (): void => {
      socket.off('secureConnect', onSecure);
      socket.off('error', fail);
      socket.off('close', onClose);
      socket.on('error', () => undefined);
    };
    socket.on('secureConnect', onSecure);
    socket.on('error', fail);
    socket.on('close', onClose);
  });
}

function open(stream: Duplex, options: TlsOptions): TLSSocket {
  const { psk } = options;
  return connect({
    socket: stream,
    secureContext: options.context,
    servername: options.serverName,
    rejectUnauthorized: options.verify,
    checkServerIdentity: (_name, certificate) => options.checkIdentity(certificate),
    ...(psk === undefined ? {} : { pskCallback: () => ({ identity: psk.identity, psk: Buffer.from(psk.key) }) }),
  });
}

export class TlsTransport extends StreamTransport {
  #moment: TlsMoment = 'beginning';

  constructor(socket: TLSSocket, description: string, options: TlsOptions, below: EndExplainer | null) {
    super(socket, description);
    // With TLS 1.3 a client finishes its handshake before the server has checked the client's certificate: a refusal
    // arrives right after it, as an alert or, from servers that use GnuTLS, as the end of the stream.
    this.explainEnd = async (error) => options.explain(await explainLoss(below, error), this.#moment);
  }

  protected override listen(): void {
    this.stream.once('data', () => {
      this.#moment = 'later';
    });
    super.listen();
  }
}

/** If the connection was lost, asks the layer below for a more specific error. */
async function explainLoss(below: EndExplainer | null, error: Error | null): Promise<Error | null> {
  const { code = '' } = (error ?? {}) as NodeJS.ErrnoException;
  const isLost = error === null || /^E(?!PROTO$|RR_)[A-Z0-9]+$/.test(code);
  return below !== null && isLost ? below(error) : error;
}
