// TLS over a connected stream, the server's side.

import type { Duplex } from 'node:stream';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { PSK_CIPHERS } from '../transport/psk.js';

/** Keys by user name, as raw bytes. */
export type PskKeys = Readonly<Record<string, Uint8Array>>;

/** What a server identifies itself with, and what it asks of clients. Strings and buffers hold PEM. */
export interface NbdServerTlsOptions {
  /** The certificate chain and its key. Not needed with `psk`. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** Authorities that sign clients' certificates. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[];
  /** Demands a certificate that `ca` has signed; false unless set. */
  readonly verifyPeer?: boolean;
  /** Pre-shared keys by user name, in place of certificates. */
  readonly psk?: PskKeys;
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3';
  readonly maxVersion?: 'TLSv1.2' | 'TLSv1.3';
}

function nodeOptions(options: NbdServerTlsOptions): TlsOptions {
  const { cert, key, ca, psk, minVersion, maxVersion } = options;
  const result: TlsOptions = {
    minVersion: minVersion ?? 'TLSv1.2',
    requestCert: options.verifyPeer === true,
    rejectUnauthorized: options.verifyPeer === true,
  };
  if (maxVersion !== undefined) result.maxVersion = maxVersion;
  if (cert !== undefined) result.cert = cert;
  if (key !== undefined) result.key = key;
  if (ca !== undefined) result.ca = typeof ca === 'string' || Buffer.isBuffer(ca) ? ca : [...ca];
  if (psk !== undefined) {
    result.ciphers = PSK_CIPHERS;
    // Without parameters OpenSSL leaves out the suites with DHE.
    result.dhparam = 'auto';
    result.pskCallback = (_socket, identity) => (Object.hasOwn(psk, identity) ? (psk[identity] ?? null) : null);
  }
  return result;
}

/** Throws what Node says about a certificate or key that cannot be used, before a client has to find out. */
export function checkTlsOptions(options: NbdServerTlsOptions): void {
  createServer(nodeOptions(options));
}

/**
 * Performs the TLS handshake on `stream`, whose listeners must have been taken off. Calls back once: with the stream
 * to go on with, or with what went wrong; then the stream is to be destroyed.
 */
export function upgrade(
  stream: Duplex,
  options: NbdServerTlsOptions,
  callback: (error: Error | null, secure: TLSSocket | null) => void,
): void {
  let settled = false;
  const settle = (error: Error | null, secure: TLSSocket | null): void => {
    if (settled) return;
    settled = true;
    callback(error, secure);
  };
  try {
    // A server of its own for every connection: it checks clients' certificates, and its events can only be ours.
    const server = createServer(nodeOptions(options));
    server.once('secureConnection', (secure) => {
      settle(null, secure);
    });
    server.on('tlsClientError', (error) => {
      settle(error, null);
    });
    server.emit('connection', stream);
  } catch (error) {
    settle(error as Error, null);
  }
}
