// Why TLS failed, as a word that a program can test (`tlsProblem` of the error), and the way out in terms of the
// options of this library. The command line, whose users have URIs and no options, has its own words for each.

import { NbdConnectionError, type NbdErrorDetails, NbdStrictError } from '../../errors.js';

export const TLS_ADVICE = {
  // What the server's certificate lacks.
  untrusted: 'give its authority with ca or tlsCertificates',
  name: 'set tlsHostname to its name',
  noName: 'set tlsHostname to its name, or give its authority with ca or tlsCertificates',
  // The message says it all.
  expired: '',
  notYetValid: '',
  revoked: '',
  purpose: "it was issued for another purpose, such as a client's: the server needs one for TLS servers",
  certificate: 'the server needs another certificate',
  crlExpired: 'the revocation list is too old: renew it (crl, or ca-crl.pem in tlsCertificates)',
  crlMissing: 'crl, or ca-crl.pem in tlsCertificates, needs the list of every authority in the chain',
  crlInvalid: 'check the revocation list: crl, or ca-crl.pem in tlsCertificates',
  // What the server thinks of the client.
  clientCertificate: 'the server may not know its authority, or it may have expired or not be for clients: see cert',
  noClientCertificate: 'see cert and key',
  pskRefused: 'check the key and the user name, and that the server uses pre-shared keys',
  pskUnused: 'does the server have the pre-shared keys?',
  // What they have in common.
  cipher: 'the server may want a pre-shared key (see tlsPsk), a certificate (see cert), or other ciphers (tlsPriority)',
  version: 'TLS 1.2 or 1.3 is needed',
  notTls: 'what the server sent after it had agreed to TLS is not TLS',
  handshake: '',
  broken: '',
  // What was given to the client.
  passphrase: 'set passphrase to that of the key',
  keyMismatch: 'cert and key must belong together',
  material: 'ca, cert, key and crl are PEM',
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

/** The way out as it stands in a message. */
export const adviceOf = (problem: TlsProblem): string =>
  TLS_ADVICE[problem] === '' ? '' : ` (${TLS_ADVICE[problem]})`;

const text = (problem: TlsProblem, what: string, why: string): string =>
  `TLS: ${what}${adviceOf(problem)}${why === '' ? '' : `: ${why}`}`;

/** A session that could not be made, or broke; `why` is what Node says of it. */
export const failed = (
  problem: TlsProblem,
  what: string,
  why: string,
  code: string,
  cause?: unknown,
): NbdConnectionError => new NbdConnectionError(text(problem, what, why), details(problem, code, cause));

/** Material that cannot be used: found before anything is opened. */
export const refused = (problem: TlsProblem, what: string, code = 'EINVAL', cause?: unknown): NbdStrictError =>
  new NbdStrictError(text(problem, what, ''), details(problem, code, cause));
