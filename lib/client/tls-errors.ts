// What goes wrong with TLS, in words that say what to do. The code is EACCES where one side did not accept the other
// (certificates, keys, names), EPROTO where TLS itself failed (versions, ciphers, garbage), and ENOTCONN where the
// connection was merely lost. Node's error is the cause.

import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { NbdConnectionError } from '../errors.js';
import { printable } from '../protocol/names.js';
import type { TlsMoment } from '../transport/tls.js';

/** What a session was meant to be: decides what the likely reason of a failure is. */
export interface TlsFacts {
  /** The user whose pre-shared key was used; null with certificates. */
  readonly pskIdentity: string | null;
  /** The name that the certificate must have; `''` where nothing says. */
  readonly name: string;
  readonly hasCertificate: boolean;
}

/** Codes of node:tls for a certificate that was not accepted here: X509_V_ERR_* and Node's own. */
const VERIFICATION =
  /^(CERT_|CRL_|UNABLE_TO_|ERROR_IN_C|DEPTH_ZERO|SELF_SIGNED|INVALID_|PATH_LENGTH|HOSTNAME_|ERR_TLS_CERT_|OUT_OF_MEM$|UNSPECIFIED$)/;

/** Alerts by which a server says that it does not accept the client. */
const REFUSED =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_|UNKNOWN_CA|ACCESS_DENIED|UNKNOWN_PSK|DECRYPT_ERROR|NO_CERTIFICATE)|ALERT_CERTIFICATE/;

/** What a wrong key, or an unknown user, looks like: it depends on the version of TLS and on the server. */
const WRONG_KEY = /BAD_RECORD_MAC|DECRYPT|PSK|ILLEGAL_PARAMETER|HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY|BINDER|DIGEST/;

const WAYS_TO_TRUST = 'give its authority with ca or tlsCertificates';

/** The error to report for Node's, or null where nothing is wrong: the stream has ended in good order. */
export function explainTls(cause: Error | null, moment: TlsMoment, facts: TlsFacts): Error | null {
  const { code = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  if (VERIFICATION.test(code)) return failed(describeVerification(cause as Error, code), 'EACCES', cause);
  const isTls = code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_') || code === 'EPROTO';
  if (moment === 'later') return isTls ? failed(`the session broke: ${said(cause)}`, 'EPROTO', cause) : cause;
  const { pskIdentity } = facts;
  if (pskIdentity !== null && (!isTls || WRONG_KEY.test(code))) {
    const user = printable(Buffer.from(pskIdentity), 64);
    return failed(
      `the server did not accept the pre-shared key of user "${user}" (check the key and the user name, and that ` +
        `the server uses pre-shared keys): ${said(cause)}`,
      'EACCES',
      cause,
    );
  }
  const shown = facts.hasCertificate ? 'the client certificate' : 'a client without a certificate (see cert and key)';
  if (REFUSED.test(code)) return failed(`the server did not accept ${shown}: ${said(cause)}`, 'EACCES', cause);
  if (isTls) return failed(`the handshake failed: ${said(cause)}`, 'EPROTO', cause);
  if (moment === 'beginning') {
    // GnuTLS's servers hang up without an alert.
    return failed(
      `the server hung up after the handshake: it may not accept ${shown}: ${said(cause)}`,
      'EACCES',
      cause,
    );
  }
  const what = `the server hung up during the handshake: it may not accept ${shown}`;
  return failed(`${what}: ${said(cause)}`, 'ENOTCONN', cause);
}

/** What is wrong with the names of a certificate that is trusted otherwise. */
export function checkCertificateName(certificate: PeerCertificate, name: string): Error | undefined {
  if (name !== '') return checkServerIdentity(name.replace(/%.*$/, ''), certificate);
  const message = 'nothing says which name the certificate must have';
  return Object.assign(new Error(message), { code: 'ERR_TLS_CERT_ALTNAME_INVALID', cert: certificate });
}

function describeVerification(cause: Error, code: string): string {
  const what = "the server's certificate was not accepted";
  switch (code) {
    case 'ERR_TLS_CERT_ALTNAME_INVALID': {
      const { subjectaltname } = (cause as { cert?: Partial<PeerCertificate> }).cert ?? {};
      const names = subjectaltname === undefined ? '' : `; it is for ${printable(Buffer.from(subjectaltname), 200)}`;
      return `${what}: ${said(cause).replace(/ is not in the cert's altnames: .*$/, '')}${names} (set tlsHostname to its name)`;
    }
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
    case 'CERT_REVOKED':
      return `${what}: ${said(cause)}`;
    default:
      return `${what}: ${said(cause)} (${WAYS_TO_TRUST})`;
  }
}

const failed = (what: string, code: string, cause: Error | null): NbdConnectionError =>
  new NbdConnectionError(`TLS: ${what}`, { code, ...(cause === null ? {} : { cause }) });

/** OpenSSL's reason where there is one: its whole text has thread numbers and file names in it. */
function said(cause: Error | null): string {
  const { reason, code } = (cause ?? {}) as { reason?: unknown; code?: unknown };
  const text =
    typeof reason === 'string' && code !== 'ERR_TLS_CERT_ALTNAME_INVALID' ? reason : (cause?.message ?? 'it ended');
  return printable(Buffer.from(text), 300);
}
