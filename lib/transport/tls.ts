// TLS over a transport that has been used in plaintext before. Invariant: from the moment startTls() is called no
// byte of the transport is read as plaintext.

import type { Duplex } from 'node:stream';
import { connect, type PeerCertificate, type SecureContext, type TLSSocket } from 'node:tls';
import { type EndExplainer, StreamTransport } from './stream.js';

/** When something went wrong: before the peer had shown who it is, before its first word after that, or later. */
export type TlsMoment = 'handshake' | 'beginning' | 'later';

export interface TlsOptions {
  readonly context: SecureContext;
  /** What the peer is told that it was called by (SNI); `''` for nothing. */
  readonly serverName: string;
  /** Whether the peer's certificate must be trusted and its name the right one. */
  readonly verify: boolean;
  /** What is wrong with the names in the certificate; asked once its chain is found to be good. */
  checkIdentity(certificate: PeerCertificate): Error | undefined;
  /** A key that both sides have, in place of certificates. */
  readonly psk?: { readonly identity: string; readonly key: Uint8Array } | undefined;
  /** What went wrong, in words for whoever has to do something about it; `null` for an end without an error. */
  explain(error: Error | null, moment: TlsMoment): Error | null;
}

/**
 * Takes the stream out of `raw` and makes it a TLS session. Rejects with what `explain` makes of the failure; then,
 * and also when `raw` is destroyed meanwhile, the stream is destroyed.
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
    // With TLS 1.3 a client has finished its handshake before the server has looked at the client's certificate: the
    // refusal comes as the first thing after it, as an alert or, from GnuTLS's servers, as the end of the stream.
    this.explainEnd = async (error) => options.explain(await explainLoss(below, error), this.#moment);
  }

  protected override listen(): void {
    this.stream.once('data', () => {
      this.#moment = 'later';
    });
    super.listen();
  }
}

/** What the layer below knows about a lost connection, if that is what happened. */
async function explainLoss(below: EndExplainer | null, error: Error | null): Promise<Error | null> {
  const { code = '' } = (error ?? {}) as NodeJS.ErrnoException;
  const isLost = error === null || /^E(?!PROTO$|RR_)[A-Z0-9]+$/.test(code);
  return below !== null && isLost ? below(error) : error;
}
