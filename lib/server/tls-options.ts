// The TLS options of a server: checked, and as node:tls takes them.

import { createServer, type TlsOptions } from 'node:tls';
import type { NbdServerTlsOptions, PskKeys } from './options.js';
import { PSK_CIPHERS, runtimeWithoutPsk } from '../transport/psk.js';
import {
  aBoolean,
  checkOptions,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
} from '../util/option-checks.js';

type Pem = string | Buffer;

/** A Uint8Array of any realm. */
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

/** Copied, so that later changes of the caller's object have no effect. */
const somePskKeys: OptionCheck<PskKeys> = (where, value) => {
  if (typeof value !== 'object' || value === null) throw refuse(where, `must be an object, not ${shown(value)}`);
  const keys = Object.entries(value);
  if (keys.length === 0) throw refuse(where, 'contains no keys');
  for (const [, key] of keys) {
    // Messages never contain a key.
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

/** The options of node:tls's server. */
export function nodeTlsOptions(options: NbdServerTlsOptions): TlsOptions {
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
    // Without parameters OpenSSL disables the suites with DHE.
    result.dhparam = 'auto';
    result.pskCallback = (_socket, identity) => (Object.hasOwn(psk, identity) ? (psk[identity] ?? null) : null);
  }
  return result;
}

/**
 * Checks the options, so that unusable ones are reported here and not by the first client: an unknown option, a
 * certificate without its key, verification without an authority, or anything that Node rejects.
 */
export const someTlsOptions: OptionCheck<NbdServerTlsOptions> = (where, value) => {
  const options: NbdServerTlsOptions = checkOptions(where, value, OPTIONS);
  const { cert, key, ca, crl, verifyPeer, psk, minVersion, maxVersion } = options;
  if ((cert === undefined) !== (key === undefined)) throw refuse(where, 'cert and key need each other');
  const lacking = psk === undefined ? null : runtimeWithoutPsk();
  if (lacking !== null) {
    throw refuse(`${where}: psk`, `${lacking} has no pre-shared keys for TLS: use certificates, or Node.js`, 'ENOTSUP');
  }
  if (cert === undefined && psk === undefined) throw refuse(where, 'needs cert and key, or psk');
  if (verifyPeer === true && ca === undefined) {
    throw refuse(where, 'verifyPeer needs ca: without it the authorities of the system would vouch for clients');
  }
  if (verifyPeer === true && psk !== undefined) throw refuse(where, 'verifyPeer and psk exclude each other');
  if (crl !== undefined && verifyPeer !== true) throw refuse(where, 'crl needs verifyPeer');
  if (minVersion === 'TLSv1.3' && maxVersion === 'TLSv1.2') throw refuse(where, 'minVersion is above maxVersion');
  try {
    createServer(nodeTlsOptions(options));
  } catch (cause) {
    throw Object.assign(refuse(where, `cannot be used: ${(cause as Error).message}`), { cause });
  }
  return options;
};
