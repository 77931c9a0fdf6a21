// The server's side of TLS, over a transport that has been used in plaintext before. Invariant: from the moment
// acceptTls() is called no byte of the transport is read as plaintext.

import { Socket } from 'node:net';
import { createServer, type TlsOptions } from 'node:tls';
import { StreamTransport } from './stream.js';

/**
 * Takes the stream out of `raw` and performs the TLS handshake on it. Rejects with node:tls's error, or with
 * ECONNRESET when the stream closes meanwhile, as soon as the stream has closed.
 */
export function acceptTls(raw: StreamTransport, options: TlsOptions): Promise<StreamTransport> {
  const stream = raw.detach();
  stream.pause();
  // An 'error' without a listener would end the process; the TLS socket reports what matters.
  stream.on('error', () => undefined);
  const allowsHalfOpen = stream.allowHalfOpen;
  // A client that closes its half during the handshake ends it: Node would wait for our half otherwise.
  if (stream instanceof Socket) stream.allowHalfOpen = false;
  return new Promise((resolve, reject) => {
    let failure: Error | null = null;
    const fail = (error: Error): void => {
      failure ??= error;
      if (stream.closed) reject(failure);
      else stream.destroy();
    };
    const onClose = (): void => {
      fail(Object.assign(new Error('the stream was closed'), { code: 'ECONNRESET' }));
    };
    stream.once('close', onClose);
    try {
      // A server of its own for every connection: it checks clients' certificates, and its events can only be ours.
      const server = createServer(options);
      server.once('secureConnection', (secure) => {
        stream.off('close', onClose);
        secure.allowHalfOpen = allowsHalfOpen;
        resolve(new StreamTransport(secure, raw.description));
      });
      server.on('tlsClientError', fail);
      server.emit('connection', stream);
    } catch (error) {
      fail(error as Error);
    }
  });
}
