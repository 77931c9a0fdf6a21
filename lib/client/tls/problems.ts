// Why TLS failed, as a word that a program can test (`tlsProblem` of the error), and the way out in terms of this
// library's options. The command line, whose users write URIs instead of options, has its own text for each.

import { NbdConnectionError, type NbdErrorDetails, NbdStrictError } from '../../errors.js';

export const TLS_ADVICE = {
  // Problems of the server's certificate.
  untrusted: 'set ca or tlsCertificates to its authority',
  name: 'set tlsHostname to its name',
  noName: 'set tlsHostname to its name, or set ca or tlsCertificates to its authority',
  // The message needs no advice.
  expired: '',
  notYetValid: '',
  revoked: '',
  purpose: "it was issued for another purpose, such as a client's: the server needs one for TLS servers",
  certificate: 'the server needs another certificate',
  crlExpired: 'the revocation list is too old: renew it (crl, or ca-crl.pem in tlsCertificates)',
  crlMissing: 'crl, or ca-crl.pem in tlsCertificates, must contain a list for every authority in the chain',
  crlInvalid: 'check the revocation list: crl, or ca-crl.pem in tlsCertificates',
  // Reasons of the server to reject the client.
  clientCertificate: 'the server may not know its authority, or it may have expired or not be for clients: see cert',
  noClientCertificate: 'see cert and key',
  pskRefused: 'check the key and the user name, and that the server uses pre-shared keys',
  pskUnused: 'does the server have the pre-shared keys?',
  // Problems of the session itself.
  cipher: 'the server may want a pre-shared key (see tlsPsk), a certificate (see cert), or other ciphers (tlsPriority)',
  version: 'TLS 1.2 or 1.3 is needed',
  notTls: 'the server agreed to TLS, but what it sent then is not TLS',
  handshake: '',
  broken: '',
  // Problems of the client's own material.
  passphrase: 'set passphrase to the passphrase of the key',
  keyMismatch: 'cert and key must belong together',
  material: 'ca, cert, key and crl must be PEM',
  incomplete: 'cert and key go together',
  file: 'see tlsCertificates and tlsPskFile',
  pskUser: 'see tlsUsername',
  pskFile: 'see tlsPskFile',
  runtime: 'use certificates, or Node.js',
} as const;

export type TlsProblem = keyof typeof TLS_ADVICE;

const details = (problem: TlsProblem, code: string, cause: unknown): NbdErrorDetails => ({
  code,
  tlsProblem: problem,
  ...(cause == null ? {} : { cause }),
});

/** The advice as it appears in a message. */
export const adviceOf = (problem: TlsProblem): string =>
  TLS_ADVICE[problem] === '' ? '' : ` (${TLS_ADVICE[problem]})`;

const text = (problem: TlsProblem, what: string, why: string): string =>
  `TLS: ${what}${adviceOf(problem)}${why === '' ? '' : `: ${why}`}`;

/** An error for a session that could not be established, or that broke; `why` is Node's reason. */
export const failed = (
  problem: TlsProblem,
  what: string,
  why: string,
  code: string,
  cause?: unknown,
): NbdConnectionError => new NbdConnectionError(text(problem, what, why), details(problem, code, cause));

/** An error for unusable material, thrown before anything is opened. */
export const refused = (problem: TlsProblem, what: string, code = 'EINVAL', cause?: unknown): NbdStrictError =>
  new NbdStrictError(text(problem, what, ''), details(problem, code, cause));
