// What to do about a failure of TLS, for people who have a URI and files and none of the library's options.

import { adviceOf, TLS_ADVICE, type TlsProblem } from '../../client/tls/problems.js';
import { NbdError } from '../sdk.js';

const FOLDER = 'the folder that tls-certificates names in the URI';

const HINTS: Readonly<Record<TlsProblem, string | undefined>> = {
  untrusted: "name a folder with its authority's ca-cert.pem in the URI: tls-certificates=DIR",
  name: 'if this is the right server, put a name of its certificate into the URI: tls-hostname=NAME',
  noName: 'put its name into the URI: tls-hostname=NAME, or name a folder with its ca-cert.pem: tls-certificates=DIR',
  expired: 'the server needs a new certificate, unless the clock of this machine is wrong',
  notYetValid: 'check the clocks of the server and of this machine',
  revoked: `the server needs another certificate: ca-crl.pem lists this one, in ${FOLDER}`,
  purpose: "the certificate is for another purpose, such as a client's: the server needs one for TLS servers",
  certificate: 'the server needs another certificate',
  crlExpired: `renew the revocation list ca-crl.pem in ${FOLDER}`,
  crlMissing: `ca-crl.pem needs the list of every authority in the chain, in ${FOLDER}`,
  crlInvalid: `check the revocation list ca-crl.pem in ${FOLDER}`,
  clientCertificate: `check client-cert.pem in ${FOLDER}; or does the server want a pre-shared key (tls-psk-file=FILE)?`,
  noClientCertificate:
    'the server may want client-cert.pem and client-key.pem (tls-certificates=DIR in the URI), or a pre-shared key ' +
    '(tls-psk-file=FILE)',
  pskRefused:
    'check the key and the user (tls-psk-file=FILE and tls-username=USER in the URI), and that the server uses keys',
  pskUnused: 'the server may have no pre-shared keys: try the URI without tls-psk-file',
  cipher: 'the server may want a pre-shared key (tls-psk-file=FILE in the URI) or a certificate (tls-certificates=DIR)',
  version: 'the server needs TLS 1.2 or 1.3',
  notTls: 'what the server sent after it had agreed to TLS is not TLS: does something between change the stream?',
  handshake: undefined,
  broken: undefined,
  passphrase: 'decrypt the key first: openssl pkey -in client-key.pem -out PLAIN.pem',
  keyMismatch: `client-cert.pem and client-key.pem must belong together, in ${FOLDER}`,
  material: `certificates and keys must be in PEM, in ${FOLDER}`,
  incomplete: `client-cert.pem and client-key.pem go together, in ${FOLDER}`,
  file: 'check what the URI names: tls-certificates=DIR, tls-psk-file=FILE',
  pskUser: 'name the user of the key in the URI: tls-username=USER',
  pskFile: 'the file that tls-psk-file names has a line USER:HEXKEY for each user',
  runtime: 'use Node.js, or certificates: tls-certificates=DIR in the URI',
};

/** The problem of an error, or of what it is about. */
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

/** An error's message without the library's way out, which names what the command line does not have. */
export function withoutTlsAdvice(error: Error): string {
  const problem = problemOf(error);
  return problem === undefined ? error.message : error.message.replace(adviceOf(problem), '');
}
