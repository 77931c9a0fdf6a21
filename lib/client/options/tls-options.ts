// The options of TLS: their types, defaults and checks. What they name is read when the connection is made.
// Invariant: no message holds a key, a passphrase or any part of one.

import { userInfo } from 'node:os';
import * as s from '../../protocol/client-constants.js';
import { decodeKey } from '../../util/psk-file.js';
import { checkBoolean, checkName, refuse, shown } from './checks.js';

/** PEM text (or DER, where node:tls takes it), one or several. */
export type PemInput = string | Uint8Array | readonly (string | Uint8Array)[];

/** A key that client and server have in common, in place of certificates. */
export interface TlsPsk {
  /** The name under which the server knows the key. Default: `tlsUsername`. */
  readonly identity?: string;
  /** The key, as bytes or in hexadecimal. */
  readonly key: string | Uint8Array;
}

/**
 * TLS, in libnbd's terms and, for what is in memory, in node:tls's. Without certificates of the user's own the server
 * is verified against Node's (see NODE_EXTRA_CA_CERTS). With a pre-shared key certificates play no part.
 */
export interface NbdTlsOptions {
  /**
   * `TLS_DISABLE` (the default; `nbds:` URIs change it to `TLS_REQUIRE`), `TLS_ALLOW`: use TLS where the server has
   * it and go on in plaintext where it has not, or `TLS_REQUIRE`. The other TLS options have no effect with
   * `TLS_DISABLE`.
   */
  tls?: number;
  /**
   * A folder with `ca-cert.pem` and, if there are any, `client-cert.pem` with `client-key.pem`, `client-cert-0.pem`
   * with `client-key-0.pem` and so on, and `ca-crl.pem`; with `tlsVerifyPeer: false` there need be no `ca-cert.pem`.
   * Default: `/etc/pki/libnbd` for root, `~/.pki/libnbd` or `~/.config/pki/libnbd` for others, where that has a
   * `ca-cert.pem`.
   */
  tlsCertificates?: string;
  /** A file of pre-shared keys, a line `user:hexkey` each, as psktool writes it. */
  tlsPskFile?: string;
  /** A pre-shared key in memory; goes before `tlsPskFile`. */
  tlsPsk?: TlsPsk;
  /**
   * Whether the server's certificate must be signed by a known authority and bear the right name: `tlsHostname`, else
   * the TCP or ssh host. Where there is neither (Unix sockets, vsock, commands, streams) an authority of the caller's
   * own (`ca`, `tlsCertificates`) is enough, as in libnbd; against the system's authorities verification fails.
   * Default true, on every transport.
   */
  tlsVerifyPeer?: boolean;
  /** The name that the server's certificate must have, if it is not the host's. */
  tlsHostname?: string;
  /** The user whose pre-shared key is used. Default `$LOGNAME`, else the name that the system has for this user. */
  tlsUsername?: string;
  /** OpenSSL's cipher list, as `ciphers` of node:tls (not one of GnuTLS's priority strings, as in libnbd). */
  tlsPriority?: string;
  /**
   * Authorities to trust, as in node:tls: in place of all others, those in `tlsCertificates` too. An intermediate one
   * is enough, as with GnuTLS.
   */
  ca?: PemInput;
  /** The client's certificate chain, as in node:tls; goes with `key`. In place of those in `tlsCertificates`. */
  cert?: PemInput;
  /** The client's key, as in node:tls. */
  key?: PemInput;
  /** The passphrase of the key. */
  passphrase?: string;
  /** Revocation lists, as in node:tls. In place of the one in `tlsCertificates`. */
  crl?: PemInput;
}

/** Bytes that are shown by length only, wherever they are logged. */
export interface SecretPsk {
  readonly identity: string | null;
  readonly key: Buffer;
}

/** The same, complete; null or `''` where nothing is set. */
export interface TlsSettings {
  tls: number;
  tlsCertificates: string;
  tlsPskFile: string;
  tlsPsk: SecretPsk | null;
  tlsVerifyPeer: boolean;
  tlsHostname: string;
  tlsUsername: string;
  tlsPriority: string;
  ca: Pem | null;
  cert: Pem | null;
  key: Pem | null;
  passphrase: string;
  crl: Pem | null;
}

/** What node:tls takes. */
export type Pem = (string | Buffer)[];

// OpenSSL's limits.
const MAX_IDENTITY = 256;
const MAX_KEY = 512;

function checkTls(method: string, value: unknown): number {
  if (value === s.TLS_DISABLE || value === s.TLS_ALLOW || value === s.TLS_REQUIRE) return value;
  throw refuse(method, `must be TLS_DISABLE, TLS_ALLOW or TLS_REQUIRE, not ${shown(value)}`);
}

/** A path, or `''` for none. */
function checkPath(method: string, value: unknown): string {
  if (typeof value !== 'string') throw refuse(method, `must be a path, not ${shown(value)}`);
  if (value.includes('\0')) throw refuse(method, 'a path cannot hold a NUL');
  return value;
}

function checkPem(method: string, value: unknown): Pem {
  const parts: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (parts.length === 0) throw refuse(method, 'must not be empty');
  return parts.map((part) => {
    if (typeof part === 'string' && part !== '') return part;
    // A copy: the caller may wipe its own.
    if (part instanceof Uint8Array && part.length > 0) return Buffer.from(part);
    throw refuse(method, `must be PEM text or bytes, not ${part === '' ? 'empty' : `of type ${typeof part}`}`);
  });
}

function checkPassphrase(method: string, value: unknown): string {
  if (typeof value === 'string') return value;
  throw refuse(method, `must be a string, not of type ${typeof value}`);
}

/** Node's own check takes a name that begins with a dot for any name below it. */
function checkHostname(method: string, value: unknown): string {
  const name = checkName(method, value);
  if (!name.startsWith('.')) return name;
  throw refuse(method, `must be the whole name of a host, not ${shown(name)}`);
}

export function checkIdentity(method: string, value: unknown): string {
  const identity = checkName(method, value);
  if (Buffer.byteLength(identity) <= MAX_IDENTITY) return identity;
  throw refuse(method, `a user name has at most ${MAX_IDENTITY} bytes`, 'ENAMETOOLONG');
}

function checkPsk(method: string, value: unknown): SecretPsk {
  if (typeof value !== 'object' || value === null) {
    throw refuse(method, `must be { identity, key }, not of type ${typeof value}`);
  }
  const { identity, key } = value as Partial<Record<keyof TlsPsk, unknown>>;
  const bytes = typeof key === 'string' ? decodeKey(key) : key instanceof Uint8Array ? Buffer.from(key) : null;
  if (bytes === null || bytes.length === 0 || bytes.length > MAX_KEY) {
    throw refuse(method, `key must be 1 to ${MAX_KEY} bytes, or these in hexadecimal`);
  }
  return { identity: identity === undefined ? null : checkIdentity(method, identity), key: bytes };
}

/** A cipher list that OpenSSL finds something in. */
export function checkPriority(method: string, value: unknown): string {
  if (typeof value !== 'string') throw refuse(method, `must be a list of ciphers, not ${shown(value)}`);
  if (value === '') return value;
  try {
    // Loaded here and not above: most connections never need it.
    process.getBuiltinModule('node:tls').createSecureContext({ ciphers: value, ca: [] });
  } catch {
    throw refuse(method, 'OpenSSL knows none of these ciphers (it takes a cipher list, not a GnuTLS priority string)');
  }
  return value;
}

/** The checks that constructor and setters share. */
export const TLS_CHECKS: {
  readonly [K in keyof Required<NbdTlsOptions>]: (method: string, value: unknown) => TlsSettings[K];
} = {
  tls: checkTls,
  tlsCertificates: checkPath,
  tlsPskFile: checkPath,
  tlsPsk: checkPsk,
  tlsVerifyPeer: checkBoolean,
  tlsHostname: checkHostname,
  tlsUsername: checkIdentity,
  tlsPriority: checkPriority,
  ca: checkPem,
  cert: checkPem,
  key: checkPem,
  passphrase: checkPassphrase,
  crl: checkPem,
};

export const tlsDefaults = (): TlsSettings => ({
  tls: s.TLS_DISABLE,
  tlsCertificates: '',
  tlsPskFile: '',
  tlsPsk: null,
  tlsVerifyPeer: true,
  tlsHostname: '',
  tlsUsername: '',
  tlsPriority: '',
  ca: null,
  cert: null,
  key: null,
  passphrase: '',
  crl: null,
});

/** The user name that was set, or the system's; `''` where the system has none. */
export function tlsUsernameOf(settings: TlsSettings): string {
  if (settings.tlsUsername !== '') return settings.tlsUsername;
  const name = process.env['LOGNAME'] ?? '';
  if (name !== '') return name;
  try {
    return userInfo().username;
  } catch {
    return '';
  }
}
