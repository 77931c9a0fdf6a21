// Turns the TLS options into options of node:tls. Files that they name are read once per connection and before anything
// is opened, so that a missing file leaves the connection in its initial state.

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

/** The material that was read. The secure context is created when it is needed. */
export interface TlsMaterial {
  readonly psk: { readonly identity: string; readonly key: Buffer } | null;
  /** Whether the client can present a certificate. */
  readonly hasCertificate: boolean;
  /** Whether the authorities were given by the caller rather than the system. */
  readonly hasOwnAuthority: boolean;
  readonly options: SecureContextOptions;
}

/** Longest file that is read; a bundle of all public authorities takes 220 KiB. */
const MAX_FILE = 4 * 1024 * 1024;
/** Maximum number of client-cert-N.pem files. */
const MAX_IDENTITIES = 100;

/** Rejects with NbdStrictError: the errno of reading a file, or EINVAL for unusable content. */
export async function loadTls(settings: TlsSettings): Promise<TlsMaterial> {
  const psk = await loadPsk(settings);
  const common: SecureContextOptions = { minVersion: 'TLSv1.2' };
  const { tlsPriority } = settings;
  if (psk !== null) {
    // No authorities at all: a server that presents a certificate instead of using the key is rejected.
    const options = { ...common, ca: [], ciphers: tlsPriority || PSK_CIPHERS };
    return { psk, hasCertificate: false, hasOwnAuthority: false, options };
  }
  const { ca, cert, key, crl } = await loadCertificates(settings);
  if ((cert === null) !== (key === null)) {
    throw refused(
      'incomplete',
      cert === null ? 'option "key" is set without "cert"' : 'option "cert" is set without "key"',
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
      // As in GnuTLS, an authority that was given is trusted even if another one has signed it.
      ...(ca !== null && hasIntermediate(ca) ? { allowPartialTrustChain: true } : {}),
      ...(cert === null || key === null ? {} : { cert, key }),
      ...(crl === null ? {} : { crl }),
      ...(settings.passphrase === '' ? {} : { passphrase: settings.passphrase }),
    },
  };
}

/** Throws NbdStrictError EINVAL for certificates and keys that OpenSSL rejects. */
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
  if (runtime !== null) throw refused('runtime', `${runtime} does not support pre-shared keys`, 'ENOTSUP');
  const identity = tlsPsk?.identity ?? tlsUsernameOf(settings);
  if (identity === '') throw refused('pskUser', 'a pre-shared key requires a user name');
  checkIdentity('TLS', identity);
  if (tlsPsk !== null) return { identity, key: tlsPsk.key };
  const { entries } = parsePskFile(String(await readRequired(tlsPskFile)));
  const [user, path] = [quoted(identity), printableText(tlsPskFile)];
  const found = entries.find((entry) => entry.user === identity);
  if (found === undefined) throw refused('pskUser', `user ${user} not found in the pre-shared key file ${path}`);
  if (found.key === null) throw refused('pskFile', `the key of user ${user} in ${path} is not hexadecimal`);
  return { identity, key: found.key };
}

interface Certificates {
  readonly ca: Pem | null;
  readonly cert: Pem | null;
  readonly key: Pem | null;
  readonly crl: Pem | null;
}

/** For each piece, material in memory takes precedence over the folder. */
async function loadCertificates(settings: TlsSettings): Promise<Certificates> {
  const { ca, cert, key, crl, tlsCertificates, tlsVerifyPeer } = settings;
  const isInMemory = ca !== null || cert !== null || key !== null || crl !== null;
  let found: Certificates | null = null;
  if (tlsCertificates !== '') {
    // Without verification no authority is needed, but a missing folder is still a mistake.
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

/** `authority`: ca-cert.pem is required, optional, or the sign that this is a folder of ours (without it: null). */
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
    // As in libnbd, a certificate without its key is ignored.
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

/** Null if the file does not exist or access is denied; any other failure is an error. */
async function readOptional(path: string): Promise<Buffer | null> {
  try {
    return await readRequired(path);
  } catch (error) {
    if (error instanceof NbdStrictError && /^(ENOENT|ENOTDIR|EACCES)$/.test(error.code)) return null;
    throw error;
  }
}
