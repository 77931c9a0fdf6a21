// From the options of TLS to what node:tls is given: reads the files that they name, once per connection and before
// anything is opened, so that a missing file leaves the connection as it was.

import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { NbdStrictError } from '../errors.js';
import { checkIdentity, decodeKey, type Pem, type TlsSettings, tlsUsernameOf } from './tls-options.js';

/** What was read. The context is made when it is needed. */
export interface TlsMaterial {
  readonly psk: { readonly identity: string; readonly key: Buffer } | null;
  /** Whether the client can show a certificate. */
  readonly hasCertificate: boolean;
  readonly options: SecureContextOptions;
}

// OpenSSL has PSK suites for TLS 1.2 only when they are named. Those with forward secrecy go first.
const PSK_CIPHERS = [
  ...['TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256'],
  ...['ECDHE-PSK-CHACHA20-POLY1305', 'DHE-PSK-AES256-GCM-SHA384', 'DHE-PSK-CHACHA20-POLY1305'],
  ...['DHE-PSK-AES128-GCM-SHA256', 'ECDHE-PSK-AES256-CBC-SHA384', 'ECDHE-PSK-AES128-CBC-SHA256'],
  ...['PSK-AES256-GCM-SHA384', 'PSK-CHACHA20-POLY1305', 'PSK-AES128-GCM-SHA256'],
].join(':');

/** Longest file that is read; a bundle of every public authority has 220 KiB. */
const MAX_FILE = 4 * 1024 * 1024;
/** client-cert-0.pem and so on. */
const MAX_IDENTITIES = 100;

const refuse = (why: string, code = 'EINVAL', cause?: unknown): NbdStrictError =>
  new NbdStrictError(`TLS: ${why}`, { code, ...(cause === undefined ? {} : { cause }) });

/** Rejects with NbdStrictError: the file's errno, or EINVAL for what is in it. */
export async function loadTls(settings: TlsSettings): Promise<TlsMaterial> {
  const psk = await loadPsk(settings);
  const common: SecureContextOptions = { minVersion: 'TLSv1.2' };
  const { tlsPriority } = settings;
  if (psk !== null) {
    // Trusting nobody: a server that shows a certificate in place of the key is refused.
    return { psk, hasCertificate: false, options: { ...common, ca: [], ciphers: tlsPriority || PSK_CIPHERS } };
  }
  const { ca, cert, key, crl } = await loadCertificates(settings);
  if ((cert === null) !== (key === null)) {
    throw refuse(
      cert === null ? 'there is a key (option key) without cert' : 'there is a cert (option cert) without key',
    );
  }
  return {
    psk: null,
    hasCertificate: cert !== null,
    options: {
      ...common,
      ...(tlsPriority === '' ? {} : { ciphers: tlsPriority }),
      ...(ca === null ? {} : { ca }),
      ...(cert === null || key === null ? {} : { cert, key }),
      ...(crl === null ? {} : { crl }),
      ...(settings.passphrase === '' ? {} : { passphrase: settings.passphrase }),
    },
  };
}

/** Throws NbdStrictError EINVAL for certificates and keys that OpenSSL does not take. */
export function makeContext({ options }: TlsMaterial): SecureContext {
  try {
    return createSecureContext(options);
  } catch (cause) {
    // OpenSSL's text names a routine and a reason, and quotes nothing.
    throw refuse(`the certificates or keys cannot be used: ${(cause as Error).message}`, 'EINVAL', cause);
  }
}

async function loadPsk(settings: TlsSettings): Promise<TlsMaterial['psk']> {
  const { tlsPsk, tlsPskFile } = settings;
  if (tlsPsk === null && tlsPskFile === '') return null;
  const identity = tlsPsk?.identity ?? tlsUsernameOf(settings);
  if (identity === '') throw refuse('a pre-shared key needs a user name (tlsUsername)');
  checkIdentity('TLS', identity);
  if (tlsPsk !== null) return { identity, key: tlsPsk.key };
  const lines = String(await readRequired(tlsPskFile)).split(/\r?\n/);
  const line = lines.find((text) => text.startsWith(`${identity}:`));
  if (line === undefined) {
    throw refuse(`the user ${JSON.stringify(identity)} is not in the pre-shared key file ${tlsPskFile} (tlsUsername)`);
  }
  const key = decodeKey(line.slice(identity.length + 1).trim());
  if (key === null) {
    throw refuse(`the key of user ${JSON.stringify(identity)} in ${tlsPskFile} is not in hexadecimal`);
  }
  return { identity, key };
}

interface Certificates {
  readonly ca: Pem | null;
  readonly cert: Pem | null;
  readonly key: Pem | null;
  readonly crl: Pem | null;
}

/** What is in memory goes before what is in the folder, piece by piece. */
async function loadCertificates(settings: TlsSettings): Promise<Certificates> {
  const { ca, cert, key, crl, tlsCertificates } = settings;
  const isInMemory = ca !== null || cert !== null || key !== null || crl !== null;
  let found: Certificates | null = null;
  if (tlsCertificates !== '') {
    found = await readFolder(tlsCertificates, true);
  } else if (!isInMemory) {
    for (const folder of defaultFolders()) found ??= await readFolder(folder, false);
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

/** Null where the folder has no ca-cert.pem and need not have one. */
async function readFolder(folder: string, isRequired: boolean): Promise<Certificates | null> {
  const authority = join(folder, 'ca-cert.pem');
  const ca = isRequired ? await readRequired(authority) : await readOptional(authority);
  if (ca === null) return null;
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
  return { ca: [ca], cert: hasOwn ? certificates : null, key: hasOwn ? keys : null, crl: crl === null ? null : [crl] };
}

async function readRequired(path: string): Promise<Buffer> {
  try {
    const bytes = await readFile(path);
    if (bytes.length <= MAX_FILE) return bytes;
  } catch (cause) {
    const { code = 'EINVAL', message } = cause as NodeJS.ErrnoException;
    throw refuse(`cannot read ${path}: ${message}`, code, cause);
  }
  throw refuse(`${path} is too long`);
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
