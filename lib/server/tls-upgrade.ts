// TLS over a connected stream, the server's side.

import type { Duplex } from 'node:stream';
import { Socket } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { PSK_CIPHERS } from '../transport/psk.js';
import {
  aBoolean,
  checkOptions,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
} from '../util/option-checks.js';

/** Keys by user name, as raw bytes. */
export type PskKeys = Readonly<Record<string, Uint8Array>>;

/** What a server identifies itself with, and what it asks of clients. Strings and buffers hold PEM. */
export interface NbdServerTlsOptions {
  /** The certificate chain and its key. Not needed with `psk`. */
  readonly cert?: string | Buffer;
  /** The private key of `cert`. */
  readonly key?: string | Buffer;
  /** Authorities that sign clients' certificates. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[];
  /** Revocation lists of the authorities: certificates that they name are refused. Needs `verifyPeer`. */
  readonly crl?: string | Buffer | readonly (string | Buffer)[];
  /** Demands a certificate that `ca`, which it needs, has signed. Default false. */
  readonly verifyPeer?: boolean;
  /** Pre-shared keys by user name, in place of certificates. */
  readonly psk?: PskKeys;
  /** Lowest version of TLS. Default `TLSv1.2`. */
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3';
  /** Highest version of TLS. Default: the highest that Node.js supports. */
  readonly maxVersion?: 'TLSv1.2' | 'TLSv1.3';
}

type Pem = string | Buffer;

/** Of whichever realm. */
const isBytes = (value: unknown): value is Uint8Array => ArrayBuffer.isView(value) && 'length' in value;

const aPem: OptionCheck<Pem> = (where, value) => {
  if ((typeof value === 'string' || isBytes(value)) && value.length > 0) return value as Pem;
  throw refuse(where, `must be PEM in a string or Buffer, not ${value === '' ? 'an empty string' : shown(value)}`);
};

const somePems: OptionCheck<Pem | Pem[]> = (where, value) => {
  if (!Array.isArray(value)) return aPem(where, value);
  if (value.length === 0) throw refuse(where, 'must not be an empty array');
  return value.map((each) => aPem(where, each));
};

/** Copied, so that what is added later to the caller's object does not get in. */
const somePskKeys: OptionCheck<PskKeys> = (where, value) => {
  if (typeof value !== 'object' || value === null) throw refuse(where, `must be an object, not ${shown(value)}`);
  const keys = Object.entries(value);
  if (keys.length === 0) throw refuse(where, 'contains no keys');
  for (const [, key] of keys) {
    // The key itself is in no message.
    if (!isBytes(key) || key.length === 0) throw refuse(where, 'each key must be bytes, at least one');
  }
  return Object.fromEntries(keys);
};

const aVersion = oneOf('TLSv1.2', 'TLSv1.3');

const OPTIONS: OptionTable<NbdServerTlsOptions> = {
  cert: aPem,
  key: aPem,
  ca: somePems,
  crl: somePems,
  verifyPeer: aBoolean,
  psk: somePskKeys,
  minVersion: aVersion,
  maxVersion: aVersion,
};

function nodeOptions(options: NbdServerTlsOptions): TlsOptions {
  const { cert, key, ca, crl, psk, minVersion, maxVersion } = options;
  const result: TlsOptions = {
    minVersion: minVersion ?? 'TLSv1.2',
    requestCert: options.verifyPeer === true,
    rejectUnauthorized: options.verifyPeer === true,
  };
  if (maxVersion !== undefined) result.maxVersion = maxVersion;
  if (cert !== undefined) result.cert = cert;
  if (key !== undefined) result.key = key;
  if (ca !== undefined) result.ca = ca as Pem | Pem[];
  if (crl !== undefined) result.crl = crl as Pem | Pem[];
  if (psk !== undefined) {
    result.ciphers = PSK_CIPHERS;
    // Without parameters OpenSSL leaves out the suites with DHE.
    result.dhparam = 'auto';
    result.pskCallback = (_socket, identity) => (Object.hasOwn(psk, identity) ? (psk[identity] ?? null) : null);
  }
  return result;
}

/**
 * The options, checked. What cannot be used is found here, not by the first client: an unknown key, a certificate
 * without its key, verification without an authority, or what Node reports about any of them.
 */
export const someTlsOptions: OptionCheck<NbdServerTlsOptions> = (where, value) => {
  const options: NbdServerTlsOptions = checkOptions(where, value, OPTIONS);
  const { cert, key, ca, crl, verifyPeer, psk, minVersion, maxVersion } = options;
  if ((cert === undefined) !== (key === undefined)) throw refuse(where, 'cert and key need each other');
  if (cert === undefined && psk === undefined) throw refuse(where, 'needs cert and key, or psk');
  if (verifyPeer === true && ca === undefined) {
    throw refuse(where, 'verifyPeer needs ca: without it the authorities of the system would vouch for clients');
  }
  if (verifyPeer === true && psk !== undefined) throw refuse(where, 'verifyPeer and psk exclude each other');
  if (crl !== undefined && verifyPeer !== true) throw refuse(where, 'crl needs verifyPeer');
  if (minVersion === 'TLSv1.3' && maxVersion === 'TLSv1.2') throw refuse(where, 'minVersion is above maxVersion');
  try {
    createServer(nodeOptions(options));
  } catch (cause) {
    throw Object.assign(refuse(where, `cannot be used: ${(cause as Error).message}`), { cause });
  }
  return options;
};

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
  const allowsHalfOpen = stream.allowHalfOpen;
  // A client that leaves during the handshake ends it: nothing is due to it yet, and Node would wait for our half.
  if (stream instanceof Socket) stream.allowHalfOpen = false;
  try {
    // A server of its own for every connection: it checks clients' certificates, and its events can only be ours.
    const server = createServer(nodeOptions(options));
    server.once('secureConnection', (secure) => {
      secure.allowHalfOpen = allowsHalfOpen;
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
