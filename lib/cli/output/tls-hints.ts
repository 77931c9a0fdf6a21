// Hints for TLS failures in terms of the command line: users have a URI and files, not the options of the library.

import { adviceOf, TLS_ADVICE, type TlsProblem } from '../../client/tls/problems.js';
import { NbdError } from '../sdk.js';

const FOLDER = 'the folder given by tls-certificates in the URI';

const HINTS: Readonly<Record<TlsProblem, string | undefined>> = {
  untrusted: 'add a folder with the ca-cert.pem of its authority to the URI: tls-certificates=DIR',
  name: 'if this is the right server, add a name from its certificate to the URI: tls-hostname=NAME',
  noName: 'add its name to the URI: tls-hostname=NAME, or a folder with its ca-cert.pem: tls-certificates=DIR',
  expired: 'the server needs a new certificate, unless the clock of this machine is wrong',
  notYetValid: 'check the clocks of the server and of this machine',
  revoked: `the server needs another certificate: this one is revoked by ca-crl.pem in ${FOLDER}`,
  purpose: 'the certificate is for another purpose, such as TLS clients: the server needs one for TLS servers',
  certificate: 'the server needs another certificate',
  crlExpired: `renew the revocation list ca-crl.pem in ${FOLDER}`,
  crlMissing: `ca-crl.pem must contain the list of every authority in the chain, in ${FOLDER}`,
  crlInvalid: `check the revocation list ca-crl.pem in ${FOLDER}`,
  clientCertificate: `check client-cert.pem in ${FOLDER}; the server may require a pre-shared key (tls-psk-file=FILE)`,
  noClientCertificate:
    'the server may require client-cert.pem and client-key.pem (tls-certificates=DIR in the URI), or a pre-shared ' +
    'key (tls-psk-file=FILE)',
  pskRefused:
    'check the key and the user (tls-psk-file=FILE and tls-username=USER in the URI), and that the server uses ' +
    'pre-shared keys',
  pskUnused: 'the server may have no pre-shared keys: try the URI without tls-psk-file',
  cipher:
    'the server may require a pre-shared key (tls-psk-file=FILE in the URI) or a certificate (tls-certificates=DIR)',
  version: 'the server must support TLS 1.2 or 1.3',
  notTls: 'the server agreed to TLS and then sent other data: check for something in between that alters the stream',
  handshake: undefined,
  broken: undefined,
  passphrase: 'decrypt the key first: openssl pkey -in client-key.pem -out PLAIN.pem',
  keyMismatch: `client-cert.pem and client-key.pem must belong together, in ${FOLDER}`,
  material: `certificates and keys must be in PEM format, in ${FOLDER}`,
  incomplete: `client-cert.pem and client-key.pem are needed together, in ${FOLDER}`,
  file: 'check the paths in the URI: tls-certificates=DIR, tls-psk-file=FILE',
  pskUser: 'add the user of the key to the URI: tls-username=USER',
  pskFile: 'the file given by tls-psk-file must contain one USER:HEXKEY per line',
  runtime: 'use Node.js, or certificates: tls-certificates=DIR in the URI',
};

/** The TLS problem of an error or of one of its causes. */
function problemOf(error: unknown): TlsProblem | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const problem = at instanceof NbdError ? at.tlsProblem : undefined;
    if (problem !== undefined && Object.hasOwn(TLS_ADVICE, problem)) return problem as TlsProblem;
  }
  return undefined;
}

export function tlsHint(error: unknown): string | undefined {
  const problem = problemOf(error);
  return problem === undefined ? undefined : HINTS[problem];
}

/** The message of an error without the library's advice, which refers to options of the library. */
export function withoutTlsAdvice(error: Error): string {
  const problem = problemOf(error);
  return problem === undefined ? error.message : error.message.replace(adviceOf(problem), '');
}
