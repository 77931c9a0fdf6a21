// Turns Node's TLS errors into errors that describe the way out. The code is EACCES if one side did not accept the
// other (certificates, keys, names), EPROTO if TLS itself failed (versions, ciphers, garbage), and ENOTCONN if the
// connection was merely lost. Node's error is the cause.

import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { printable } from '../../protocol/names.js';
import type { TlsMoment } from '../../transport/tls.js';
import { failed, type TlsProblem } from './problems.js';

/** How the session was set up: decides the likely reason of a failure. */
export interface TlsFacts {
  /** The user whose pre-shared key was used; null with certificates. */
  readonly pskIdentity: string | null;
  /** The name that the certificate must be issued for; `''` if unknown. */
  readonly name: string;
  readonly hasCertificate: boolean;
}

/** Codes of node:tls for a server certificate that this client rejected: X509_V_ERR_* and Node's own. */
const VERIFICATION =
  /^(CERT_|CRL_|UNABLE_TO_|ERROR_IN_C|DEPTH_ZERO|SELF_SIGNED|INVALID_|PATH_LENGTH|HOSTNAME_|ERR_TLS_CERT_|OUT_OF_MEM$|UNSPECIFIED$)/;

/** Problems of a server certificate that this client rejected; the first match counts. */
const VERIFICATION_PROBLEMS: readonly (readonly [RegExp, TlsProblem])[] = [
  [/^UNABLE_TO_GET_CRL/, 'crlMissing'],
  [/^CRL_HAS_EXPIRED/, 'crlExpired'],
  [/CRL/, 'crlInvalid'],
  [/^CERT_HAS_EXPIRED/, 'expired'],
  [/^CERT_NOT_YET_VALID/, 'notYetValid'],
  [/^CERT_REVOKED/, 'revoked'],
  [/^INVALID_PURPOSE/, 'purpose'],
  [/ALTNAME|^HOSTNAME/, 'name'],
  [/^(UNABLE_TO_(GET_ISSUER|VERIFY)|DEPTH_ZERO|SELF_SIGNED|CERT_(UNTRUSTED|SIGNATURE))/, 'untrusted'],
];

/** Alerts with which a server rejects the client. */
const REFUSED =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_|UNKNOWN_CA|ACCESS_DENIED|UNKNOWN_PSK|DECRYPT_ERROR|NO_CERTIFICATE)|ALERT_CERTIFICATE/;

/** The errors that a wrong key or an unknown user causes, which depend on the TLS version and on the server. */
const WRONG_KEY = /BAD_RECORD_MAC|DECRYPT|PSK|ILLEGAL_PARAMETER|HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY|BINDER|DIGEST/;

/** Failures of the handshake itself. */
const HANDSHAKE_PROBLEMS: readonly (readonly [RegExp, TlsProblem])[] = [
  [/HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY|CIPHER|SIGALG|SIGNATURE_ALGORITHM|NO_SUITABLE|CERTIFICATE_TYPE/, 'cipher'],
  [/WRONG_VERSION_NUMBER|HTTP|PACKET_LENGTH|RECORD_LENGTH|BAD_RECORD_TYPE|UNEXPECTED_MESSAGE|BAD_LENGTH/, 'notTls'],
  [/PROTOCOL|VERSION/, 'version'],
];

const problemOf = (code: string, table: typeof HANDSHAKE_PROBLEMS): TlsProblem | undefined =>
  table.find(([pattern]) => pattern.test(code))?.[1];

/** The error to report in place of Node's; null if the stream has ended normally. */
export function explainTls(cause: Error | null, moment: TlsMoment, facts: TlsFacts): Error | null {
  const { code = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  const { pskIdentity } = facts;
  if (VERIFICATION.test(code)) {
    if (pskIdentity === null) return explainVerification(cause as Error, code, facts);
    const what = `the server showed a certificate in place of the pre-shared key of user "${shownUser(pskIdentity)}"`;
    return failed('pskUnused', what, textOf(cause), 'EACCES', cause);
  }
  const isTls = code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_') || code === 'EPROTO';
  if (moment === 'later') return isTls ? failed('broken', 'the session failed', textOf(cause), 'EPROTO', cause) : cause;
  if (pskIdentity !== null && (!isTls || WRONG_KEY.test(code))) {
    const what = `the server did not accept the pre-shared key of user "${shownUser(pskIdentity)}"`;
    return failed('pskRefused', what, textOf(cause), 'EACCES', cause);
  }
  const shown = facts.hasCertificate ? 'the client certificate' : 'a client without a certificate';
  const problem = facts.hasCertificate ? 'clientCertificate' : 'noClientCertificate';
  if (REFUSED.test(code)) {
    return failed(problem, `the server did not accept ${shown}`, textOf(cause), 'EACCES', cause);
  }
  if (isTls) {
    const why = problemOf(code, HANDSHAKE_PROBLEMS) ?? 'handshake';
    return failed(why, `the handshake failed: ${textOf(cause)}`, '', 'EPROTO', cause);
  }
  // Servers that use GnuTLS close the connection without an alert.
  const isAfter = moment === 'beginning';
  const what = `the server hung up ${isAfter ? 'after' : 'during'} the handshake: it may not accept ${shown}`;
  return failed(problem, what, textOf(cause), isAfter ? 'EACCES' : 'ENOTCONN', cause);
}

/** What a certificate's names are checked against once its chain is verified. */
export interface IdentityCheck {
  /** The name that the certificate must be issued for; `''` if unknown. */
  readonly name: string;
  /** The authority was given by the caller: if no name is known that is enough, as in libnbd. */
  readonly hasOwnAuthority: boolean;
}

/** The error if a certificate with a trusted chain is issued for another name. */
export function checkCertificateName(certificate: PeerCertificate, check: IdentityCheck): Error | undefined {
  if (check.name === '') {
    if (check.hasOwnAuthority) return undefined;
    return wrongName('no host name to verify the certificate against', certificate);
  }
  const address = addressIn(check.name);
  if (address === null) {
    // For a name that begins with a dot, Node and OpenSSL accept any subdomain.
    if (check.name.startsWith('.')) return wrongName(`${check.name} is not a full host name`, certificate);
    return checkServerIdentity(check.name, certificate);
  }
  // Not checkServerIdentity(): since Node 22.23 and 24.17 it rejects an IPv6 address that is not spelled as in the
  // certificate (nodejs/node#64144). checkIP() compares bytes.
  const isThere =
    (certificate.raw as Buffer | undefined) !== undefined &&
    new X509Certificate(certificate.raw).checkIP(address) !== undefined;
  return isThere ? undefined : wrongName(`IP: ${address} is not in the cert's list`, certificate);
}

/** The IP address in a name, without the brackets of a URI and without a zone, which certificates cannot contain. */
function addressIn(name: string): string | null {
  const address = name.replace(/^\[(.*)\]$/, '$1').replace(/%.*$/, '');
  return isIP(address) === 0 ? null : address;
}

const wrongName = (message: string, certificate: PeerCertificate): Error =>
  Object.assign(new Error(message), { code: 'ERR_TLS_CERT_ALTNAME_INVALID', cert: certificate });

function explainVerification(cause: Error, code: string, facts: TlsFacts): Error {
  const known = problemOf(code, VERIFICATION_PROBLEMS) ?? 'certificate';
  const problem = known === 'name' && facts.name === '' ? 'noName' : known;
  let what = `the server's certificate was not accepted: ${textOf(cause)}`;
  if (known === 'name') {
    const { subjectaltname, subject } = (cause as { cert?: Partial<PeerCertificate> }).cert ?? {};
    const names = subjectaltname ?? (typeof subject?.CN === 'string' ? `CN:${subject.CN}` : undefined);
    what = what.replace(/ is not in the cert's altnames: .*$/, '');
    if (names !== undefined) what += `; it is for ${printable(Buffer.from(names), 200)}`;
  }
  return failed(problem, what, '', 'EACCES', cause);
}

const shownUser = (identity: string): string => printable(Buffer.from(identity), 64);

/** OpenSSL's reason if there is one: its full text contains thread numbers and file names. */
function textOf(cause: Error | null): string {
  const { reason, code } = (cause ?? {}) as { reason?: unknown; code?: unknown };
  const text =
    typeof reason === 'string' && code !== 'ERR_TLS_CERT_ALTNAME_INVALID' ? reason : (cause?.message ?? 'it ended');
  // Node appends advice about its own options, which the user of a program cannot set.
  return printable(Buffer.from(text.replace(/; if the root CA is installed locally.*$/, '')), 300);
}
