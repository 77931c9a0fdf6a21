// The TLS options: types, defaults and checks. Files that they name are read when the connection is made.
// Invariant: no message contains a key, a passphrase or any part of one.

import { Buffer } from '../../util/buffer.js';
import * as s from '../../protocol/client-constants.js';
import { environment, nodeModule } from '../../util/platform.js';
import { decodeKey } from '../../util/psk-file.js';
import { checkBoolean, checkName, refuse, shown } from './checks.js';

/** PEM text (or DER, where node:tls accepts it), one or several. */
export type PemInput = string | Uint8Array | readonly (string | Uint8Array)[];

/** A pre-shared key, which client and server use instead of certificates. */
export interface TlsPsk {
  /** The user name that the server looks the key up by. Default `tlsUsername`. */
  readonly identity?: string | undefined;
  /** The key, as bytes or as a hexadecimal string; 1 to 512 bytes. */
  readonly key: string | Uint8Array;
}

/**
 * TLS options, named as in libnbd and, for material in memory, as in node:tls. Without authorities of your own, the
 * server is verified against Node's (see NODE_EXTRA_CA_CERTS). With a pre-shared key, certificates are not used.
 */
export interface NbdTlsOptions {
  /**
   * `TLS_DISABLE`: never use TLS. `TLS_ALLOW`: use TLS if the server supports it, otherwise plaintext. `TLS_REQUIRE`:
   * use TLS or fail. The other TLS options have no effect with `TLS_DISABLE`. Default `TLS_DISABLE`; an `nbds:` URI
   * changes it to `TLS_REQUIRE`.
   */
  tls?: number | undefined;
  /**
   * A folder that contains `ca-cert.pem` (optional with `tlsVerifyPeer: false`) and optionally `client-cert.pem` with
   * `client-key.pem`, `client-cert-0.pem` with `client-key-0.pem` and so on, and `ca-crl.pem`. Default
   * `/etc/pki/libnbd` for root, `~/.pki/libnbd` or `~/.config/pki/libnbd` for other users, if it contains a
   * `ca-cert.pem`.
   */
  tlsCertificates?: string | undefined;
  /** A file of pre-shared keys as psktool writes it: lines of `user:hexkey`. Default `''`, none. */
  tlsPskFile?: string | undefined;
  /** A pre-shared key in memory; takes precedence over `tlsPskFile`. Default none. */
  tlsPsk?: TlsPsk | undefined;
  /**
   * Whether the server's certificate must be signed by a trusted authority and issued for the right name:
   * `tlsHostname`, or else the TCP or ssh host. If there is neither (Unix sockets, vsock, commands, streams), an
   * authority of your own (`ca`, `tlsCertificates`) is enough, as in libnbd; with the system's authorities verification
   * fails. Default true, on every transport.
   */
  tlsVerifyPeer?: boolean | undefined;
  /** The name that the server's certificate must be issued for. Default `''`: the host that was connected to. */
  tlsHostname?: string | undefined;
  /** The user whose pre-shared key is used. Default `$LOGNAME`, or else the system's name for this user. */
  tlsUsername?: string | undefined;
  /** An OpenSSL cipher list, as `ciphers` of node:tls (unlike libnbd, not a GnuTLS priority string). Default Node's. */
  tlsPriority?: string | undefined;
  /**
   * Trusted authorities, as in node:tls. They replace all others, including those in `tlsCertificates`. An intermediate
   * authority is enough, as with GnuTLS. Default: see `tlsCertificates`.
   */
  ca?: PemInput | undefined;
  /** The client's certificate chain, as in node:tls; requires `key`. Replaces those in `tlsCertificates`. */
  cert?: PemInput | undefined;
  /** The client's private key, as in node:tls; requires `cert`. */
  key?: PemInput | undefined;
  /** The passphrase of the private key. Default `''`, none. */
  passphrase?: string | undefined;
  /** Revocation lists, as in node:tls. They replace the one in `tlsCertificates`. */
  crl?: PemInput | undefined;
}

/** A checked pre-shared key. Its bytes are logged by length only. */
export interface SecretPsk {
  /** Null: use `tlsUsername`. */
  readonly identity: string | null;
  readonly key: Buffer;
}

/** All TLS options; null or `''` for those that are not set. */
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

/** PEM in the form that node:tls accepts. */
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
  if (value.includes('\0')) throw refuse(method, 'a path cannot contain a NUL');
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

/** Node's own check accepts any subdomain for a name that begins with a dot. */
function checkHostname(method: string, value: unknown): string {
  const name = checkName(method, value);
  if (!name.startsWith('.')) return name;
  throw refuse(method, `must be a full host name, not ${shown(name)}`);
}

export function checkIdentity(method: string, value: unknown): string {
  const identity = checkName(method, value);
  if (Buffer.byteLength(identity) <= MAX_IDENTITY) return identity;
  throw refuse(method, `a user name is limited to ${MAX_IDENTITY} bytes`, 'ENAMETOOLONG');
}

function checkPsk(method: string, value: unknown): SecretPsk {
  if (typeof value !== 'object' || value === null) {
    throw refuse(method, `must be { identity, key }, not of type ${typeof value}`);
  }
  const { identity, key } = value as Partial<Record<keyof TlsPsk, unknown>>;
  const bytes = typeof key === 'string' ? decodeKey(key) : key instanceof Uint8Array ? Buffer.from(key) : null;
  if (bytes === null || bytes.length === 0 || bytes.length > MAX_KEY) {
    throw refuse(method, `key must be 1 to ${MAX_KEY} bytes, or a hexadecimal string of them`);
  }
  return { identity: identity === undefined ? null : checkIdentity(method, identity), key: bytes };
}

/** A cipher list in which OpenSSL knows at least one cipher. */
export function checkPriority(method: string, value: unknown): string {
  if (typeof value !== 'string') throw refuse(method, `must be a list of ciphers, not ${shown(value)}`);
  if (value === '') return value;
  try {
    // Loaded here rather than imported: most connections never need it.
    nodeModule('node:tls')?.createSecureContext({ ciphers: value, ca: [] });
  } catch {
    throw refuse(method, 'OpenSSL knows none of these ciphers (it takes a cipher list, not a GnuTLS priority string)');
  }
  return value;
}

/** The checks that the constructor and the setters share. */
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

/** The user name that was set, or the system's; `''` if the system has none. */
export function tlsUsernameOf(settings: TlsSettings): string {
  if (settings.tlsUsername !== '') return settings.tlsUsername;
  const name = environment('LOGNAME') ?? '';
  if (name !== '') return name;
  try {
    return nodeModule('node:os')?.userInfo().username ?? '';
  } catch {
    return '';
  }
}
