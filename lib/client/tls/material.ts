// From the options of TLS to what node:tls is given: reads the files that they name, once per connection and before
// anything is opened, so that a missing file leaves the connection as it was.

import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { NbdStrictError } from '../../errors.js';
import { printableText } from '../../protocol/names.js';
import { PSK_CIPHERS, runtimeWithoutPsk } from '../../transport/psk.js';
import { parsePskFile } from '../../util/psk-file.js';
import { checkMaterial, explainMaterial, hasIntermediate } from './pem.js';
import { checkIdentity, type Pem, type TlsSettings, tlsUsernameOf } from '../options/tls-options.js';
import { refused } from './problems.js';
import { quoted } from '../../util/visible.js';

/** What was read. The context is made when it is needed. */
export interface TlsMaterial {
  readonly psk: { readonly identity: string; readonly key: Buffer } | null;
  /** Whether the client can show a certificate. */
  readonly hasCertificate: boolean;
  /** The authorities are the caller's, not the system's. */
  readonly hasOwnAuthority: boolean;
  readonly options: SecureContextOptions;
}

/** Longest file that is read; a bundle of every public authority has 220 KiB. */
const MAX_FILE = 4 * 1024 * 1024;
/** client-cert-0.pem and so on. */
const MAX_IDENTITIES = 100;

/** Rejects with NbdStrictError: the file's errno, or EINVAL for what is in it. */
export async function loadTls(settings: TlsSettings): Promise<TlsMaterial> {
  const psk = await loadPsk(settings);
  const common: SecureContextOptions = { minVersion: 'TLSv1.2' };
  const { tlsPriority } = settings;
  if (psk !== null) {
    // Trusting nobody: a server that shows a certificate in place of the key is refused.
    const options = { ...common, ca: [], ciphers: tlsPriority || PSK_CIPHERS };
    return { psk, hasCertificate: false, hasOwnAuthority: false, options };
  }
  const { ca, cert, key, crl } = await loadCertificates(settings);
  if ((cert === null) !== (key === null)) {
    throw refused(
      'incomplete',
      cert === null ? 'there is a key (option key) without cert' : 'there is a cert (option cert) without key',
    );
  }
  return {
    psk: null,
    hasCertificate: cert !== null,
    hasOwnAuthority: ca !== null,
    options: {
      ...common,
      ...(tlsPriority === '' ? {} : { ciphers: tlsPriority }),
      ...(ca === null ? {} : { ca }),
      // As GnuTLS does: an authority that was given is trusted, whoever has signed it.
      ...(ca !== null && hasIntermediate(ca) ? { allowPartialTrustChain: true } : {}),
      ...(cert === null || key === null ? {} : { cert, key }),
      ...(crl === null ? {} : { crl }),
      ...(settings.passphrase === '' ? {} : { passphrase: settings.passphrase }),
    },
  };
}

/** Throws NbdStrictError EINVAL for certificates and keys that OpenSSL does not take. */
export function makeContext({ options }: TlsMaterial): SecureContext {
  try {
    checkMaterial(options);
    return createSecureContext(options);
  } catch (cause) {
    throw explainMaterial(options, cause as Error);
  }
}

async function loadPsk(settings: TlsSettings): Promise<TlsMaterial['psk']> {
  const { tlsPsk, tlsPskFile } = settings;
  if (tlsPsk === null && tlsPskFile === '') return null;
  const runtime = runtimeWithoutPsk();
  if (runtime !== null) throw refused('runtime', `${runtime} has no pre-shared keys`, 'ENOTSUP');
  const identity = tlsPsk?.identity ?? tlsUsernameOf(settings);
  if (identity === '') throw refused('pskUser', 'a pre-shared key needs a user name');
  checkIdentity('TLS', identity);
  if (tlsPsk !== null) return { identity, key: tlsPsk.key };
  const { entries } = parsePskFile(String(await readRequired(tlsPskFile)));
  const [user, path] = [quoted(identity), printableText(tlsPskFile)];
  const found = entries.find((entry) => entry.user === identity);
  if (found === undefined) throw refused('pskUser', `the user ${user} is not in the pre-shared key file ${path}`);
  if (found.key === null) throw refused('pskFile', `the key of user ${user} in ${path} is not in hexadecimal`);
  return { identity, key: found.key };
}

interface Certificates {
  readonly ca: Pem | null;
  readonly cert: Pem | null;
  readonly key: Pem | null;
  readonly crl: Pem | null;
}

/** What is in memory goes before what is in the folder, piece by piece. */
async function loadCertificates(settings: TlsSettings): Promise<Certificates> {
  const { ca, cert, key, crl, tlsCertificates, tlsVerifyPeer } = settings;
  const isInMemory = ca !== null || cert !== null || key !== null || crl !== null;
  let found: Certificates | null = null;
  if (tlsCertificates !== '') {
    // Nothing is verified without an authority; a folder that is not there is a mistake all the same.
    if (!tlsVerifyPeer) await checkFolder(tlsCertificates);
    found = await readFolder(tlsCertificates, tlsVerifyPeer ? 'required' : 'optional');
  } else if (!isInMemory) {
    for (const folder of defaultFolders()) found ??= await readFolder(folder, 'sign');
  }
  const hasOwn = cert !== null || key !== null;
  return {
    ca: ca ?? found?.ca ?? null,
    cert: hasOwn ? cert : (found?.cert ?? null),
    key: hasOwn ? key : (found?.key ?? null),
    crl: crl ?? found?.crl ?? null,
  };
}

function defaultFolders(): string[] {
  if (process.getuid?.() === 0) return ['/etc/pki/libnbd'];
  return [join(homedir(), '.pki', 'libnbd'), join(homedir(), '.config', 'pki', 'libnbd')];
}

/** `authority`: must there be a ca-cert.pem, need there be none, or is it the sign that the folder is one of ours (else null)? */
async function readFolder(folder: string, authority: 'required' | 'optional' | 'sign'): Promise<Certificates | null> {
  const path = join(folder, 'ca-cert.pem');
  const ca = authority === 'required' ? await readRequired(path) : await readOptional(path);
  if (ca === null && authority === 'sign') return null;
  const certificates: Buffer[] = [];
  const keys: Buffer[] = [];
  for (let i = -1; i < MAX_IDENTITIES; i++) {
    const suffix = i < 0 ? '' : `-${i}`;
    const cert = await readOptional(join(folder, `client-cert${suffix}.pem`));
    const key = await readOptional(join(folder, `client-key${suffix}.pem`));
    // As in libnbd, a certificate without its key is as good as none.
    if (cert !== null && key !== null) {
      certificates.push(cert);
      keys.push(key);
    } else if (i >= 0) {
      break;
    }
  }
  const crl = await readOptional(join(folder, 'ca-crl.pem'));
  const hasOwn = certificates.length > 0;
  return {
    ca: ca === null ? null : [ca],
    cert: hasOwn ? certificates : null,
    key: hasOwn ? keys : null,
    crl: crl === null ? null : [crl],
  };
}

async function checkFolder(path: string): Promise<void> {
  try {
    if ((await stat(path)).isDirectory()) return;
  } catch (cause) {
    throw unreadable(path, cause);
  }
  throw refused('file', `${printableText(path)} is not a folder`, 'ENOTDIR');
}

function unreadable(path: string, cause: unknown): NbdStrictError {
  const { code = 'EINVAL', message } = cause as NodeJS.ErrnoException;
  return refused('file', `cannot read ${printableText(path)}: ${printableText(message)}`, code, cause);
}

async function readRequired(path: string): Promise<Buffer> {
  try {
    const bytes = await readFile(path);
    if (bytes.length <= MAX_FILE) return bytes;
  } catch (cause) {
    throw unreadable(path, cause);
  }
  throw refused('file', `${printableText(path)} is too long`);
}

/** Null where there is no such file; one that is there and cannot be read is an error. */
async function readOptional(path: string): Promise<Buffer | null> {
  try {
    return await readRequired(path);
  } catch (error) {
    if (error instanceof NbdStrictError && /^(ENOENT|ENOTDIR|EACCES)$/.test(error.code)) return null;
    throw error;
  }
}
