// Checks certificates and keys: finds those that OpenSSL accepts silently but never uses, and which of the pieces
// OpenSSL rejects. Invariant: no message quotes their content.

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { NbdStrictError } from '../../errors.js';
import { refused } from './problems.js';

type Piece = 'ca' | 'cert' | 'key' | 'crl';
const WHAT: Readonly<Record<Piece, string>> = {
  ca: "the authority's certificate",
  cert: "the client's certificate",
  key: "the client's key",
  crl: 'the revocation list',
};

/** Throws for material that OpenSSL accepts but that would later make the handshake fail with a misleading reason. */
export function checkMaterial({ ca, cert, key, passphrase }: SecureContextOptions): void {
  const authorities = listOf(ca);
  for (const authority of authorities) {
    if (!isCertificate(authority)) throw refused('material', `${WHAT.ca} cannot be used: it is not in PEM`);
  }
  const [certificates, keys] = [listOf(cert), listOf(key)];
  if (certificates.length !== keys.length) return;
  for (const [at, certificate] of certificates.entries()) {
    // OpenSSL accepts a pair of different types (RSA, EC); the client would then present no certificate.
    if (!belongTogether(certificate, keys[at] ?? '', passphrase)) throw mismatch();
  }
}

/** Explains why createSecureContext() has rejected the material. */
export function explainMaterial(options: SecureContextOptions, cause: Error): NbdStrictError {
  if (cause instanceof NbdStrictError) return cause;
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH' || cause.message.includes('values mismatch')) return mismatch(cause);
  for (const piece of ['ca', 'crl', 'cert', 'key'] as const) {
    for (const value of listOf(options[piece])) {
      const failure = tryPiece(piece, value, options.passphrase);
      if (failure === null) continue;
      if (piece === 'key' && String(value).includes('ENCRYPTED')) {
        const why = options.passphrase === undefined ? 'is encrypted' : 'is encrypted with another passphrase';
        return refused('passphrase', `the key cannot be used: it ${why}`, 'EINVAL', cause);
      }
      // OpenSSL's text contains a routine and a reason, never the material.
      return refused('material', `${WHAT[piece]} cannot be used: ${failure.message}`, 'EINVAL', cause);
    }
  }
  return refused('material', `the certificates or keys cannot be used: ${cause.message}`, 'EINVAL', cause);
}

const mismatch = (cause?: Error): NbdStrictError =>
  refused('keyMismatch', "the client's key does not match its certificate", 'EINVAL', cause);

const CERTIFICATE = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^]*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;

/** Whether one of the authorities is not a root, so that chains must be allowed to end there. */
export function hasIntermediate(ca: readonly (string | Buffer)[]): boolean {
  return ca.some((text) =>
    (String(text).match(CERTIFICATE) ?? []).some((pem) => {
      try {
        const { subject, issuer } = new X509Certificate(pem);
        return subject !== issuer;
      } catch {
        return false;
      }
    }),
  );
}

function tryPiece(piece: Piece, value: string | Buffer, passphrase: string | undefined): Error | null {
  try {
    createSecureContext({ [piece]: value, ...(passphrase === undefined ? {} : { passphrase }) });
    return null;
  } catch (error) {
    return error as Error;
  }
}

/** PEM only: node:tls ignores anything else, and the server would then be reported as untrusted. */
function isCertificate(value: string | Buffer): boolean {
  if (!/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/.test(String(value))) return false;
  try {
    return new X509Certificate(value).raw.length > 0;
  } catch {
    return false;
  }
}

/** Also true if either cannot be parsed: that is reported on its own. */
function belongTogether(cert: string | Buffer, key: string | Buffer, passphrase: string | undefined): boolean {
  try {
    const secret = createPrivateKey({ key, ...(passphrase === undefined ? {} : { passphrase }) });
    return new X509Certificate(cert).checkPrivateKey(secret);
  } catch {
    return true;
  }
}

function listOf(value: SecureContextOptions[Piece]): (string | Buffer)[] {
  if (value === undefined) return [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  return list as (string | Buffer)[];
}
