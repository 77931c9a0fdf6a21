// Certificates for TLS specs, made with openssl in a temporary folder: a CA, a server for localhost, an expired one,
// a client's, and a pre-shared key. The file names are those that nbdkit, qemu-nbd and libnbd look for. Besides, lists
// of revoked certificates, and one of a stranger.

import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { runTool } from './tools.js';

/** A certificate and its key, as PEM text. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

export interface Certificates extends AsyncDisposable {
  /** ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem and client-key.pem; what servers are given. */
  readonly folder: string;
  /** The same CA with a server certificate that ran out in 2020. */
  readonly expiredFolder: string;
  /** A folder with a CA that signed no other certificate: a client that trusts it trusts no server here. */
  readonly strangerFolder: string;
  /** The CA's certificate, as PEM text. */
  readonly ca: string;
  /** For `localhost`, 127.0.0.1 and ::1. */
  readonly server: KeyPair;
  readonly expired: KeyPair;
  readonly client: KeyPair;
  /** A file with one line `alice:<hex>`; its folder is what qemu-nbd is given. */
  readonly pskFile: string;
  readonly pskFolder: string;
  readonly pskUser: string;
  /** The key in hexadecimal. */
  readonly pskKey: string;
  /** Removes everything. */
  remove(): Promise<void>;
}

const NAMES = 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1';
const PSK_USER = 'alice';
const PSK_KEY = '7d2a0f3c5b6e819445d7c1a2b3e4f5068192a3b4c5d6e7f8091a2b3c4d5e6f70';

/** Makes all of them; takes about a third of a second. */
export async function makeCertificates(): Promise<Certificates> {
  const root = await mkdtemp(join(tmpdir(), 'nbd-certificates-'));
  const folder = join(root, 'pki');
  const expiredFolder = join(root, 'expired');
  const strangerFolder = join(root, 'stranger');
  const pskFolder = join(root, 'psk');
  await Promise.all([folder, expiredFolder, strangerFolder, pskFolder].map((path) => mkdir(path)));

  await Promise.all([makeAuthority(folder, 'nbd-sdk test CA'), makeAuthority(strangerFolder, 'a stranger')]);
  await copyFile(join(folder, 'ca-cert.pem'), join(expiredFolder, 'ca-cert.pem'));
  const [server, expired, client] = await Promise.all([
    issue(folder, folder, 'server', 'localhost', 'serverAuth'),
    issue(folder, expiredFolder, 'server', 'localhost', 'serverAuth', true),
    issue(folder, folder, 'client', PSK_USER, 'clientAuth'),
  ]);
  const pskFile = join(pskFolder, 'keys.psk');
  await writeFile(pskFile, `${PSK_USER}:${PSK_KEY}\n`);

  const remove = (): Promise<void> => rm(root, { recursive: true, force: true });
  return {
    folder,
    expiredFolder,
    strangerFolder,
    ca: await readFile(join(folder, 'ca-cert.pem'), 'utf8'),
    server,
    expired,
    client,
    pskFile,
    pskFolder,
    pskUser: PSK_USER,
    pskKey: PSK_KEY,
    remove,
    [Symbol.asyncDispose]: remove,
  };
}

/** A list of revoked certificates by the CA whose folder is given. */
export async function revocationList(authorityFolder: string, revoked: readonly string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'spec-'));
  const config = ['[ca]', 'default_ca=this', '[this]', 'database=index.txt', 'default_md=sha256', 'default_crl_days=2'];
  await writeFile(join(folder, 'ca.conf'), config.join('\n'));
  await writeFile(join(folder, 'index.txt'), '');
  const authority = [
    ...['-config', 'ca.conf', '-cert', join(authorityFolder, 'ca-cert.pem')],
    ...['-keyfile', join(authorityFolder, 'ca-key.pem')],
  ];
  for (const certificate of revoked) {
    await writeFile(join(folder, 'revoked.pem'), certificate);
    await runTool('openssl', ['ca', ...authority, '-revoke', 'revoked.pem'], { cwd: folder });
  }
  const { code, stdout, stderr } = await runTool('openssl', ['ca', ...authority, '-gencrl'], { cwd: folder });
  if (code !== 0) throw new Error(stderr);
  await rm(folder, { recursive: true });
  return stdout;
}

/** A client's certificate that it has signed itself. */
export async function issueStranger(): Promise<KeyPair> {
  const { stdout, code, stderr } = await runTool('openssl', [
    ...['req', '-x509', '-subj', '/CN=mallory', '-days', '2', '-newkey', 'ec', '-nodes', '-keyout', '-'],
    ...['-pkeyopt', 'ec_paramgen_curve:prime256v1'],
  ]);
  if (code !== 0) throw new Error(stderr);
  const [key = ''] = /-----BEGIN PRIVATE KEY-----[^]*?-----END PRIVATE KEY-----/.exec(stdout) ?? [];
  const [cert = ''] = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/.exec(stdout) ?? [];
  return { cert, key };
}

async function makeAuthority(folder: string, name: string): Promise<void> {
  await openssl(folder, [
    ...['req', '-x509', '-subj', `/CN=${name}`, '-days', '2', ...newKey('ca-key.pem')],
    ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    ...['-out', 'ca-cert.pem'],
  ]);
}

async function issue(
  authority: string,
  folder: string,
  role: 'server' | 'client',
  name: string,
  usage: string,
  isExpired = false,
): Promise<KeyPair> {
  const [key, request, cert] = [`${role}-key.pem`, `${role}.csr`, `${role}-cert.pem`];
  await openssl(folder, ['req', '-new', '-subj', `/CN=${name}`, ...newKey(key), '-out', request]);
  const extensions = join(folder, `${role}.ext`);
  const lines = ['basicConstraints=CA:FALSE', `extendedKeyUsage=${usage}`, 'keyUsage=critical,digitalSignature'];
  await writeFile(extensions, [...lines, ...(role === 'server' ? [NAMES] : [])].join('\n'));
  const ca = [join(authority, 'ca-cert.pem'), join(authority, 'ca-key.pem')] as const;
  if (isExpired) {
    await issueExpired(folder, { request, cert, extensions, ca });
  } else {
    const signing = ['-CA', ca[0], '-CAkey', ca[1], '-set_serial', String(Date.now()), '-days', '2'];
    await openssl(folder, ['x509', '-req', '-in', request, '-extfile', extensions, ...signing, '-out', cert]);
  }
  return { cert: await readFile(join(folder, cert), 'utf8'), key: await readFile(join(folder, key), 'utf8') };
}

// Only `openssl ca` can choose both dates on every openssl that distributions carry.
async function issueExpired(
  folder: string,
  files: { request: string; cert: string; extensions: string; ca: readonly [string, string] },
): Promise<void> {
  await writeFile(join(folder, 'index.txt'), '');
  await writeFile(join(folder, 'serial'), '01\n');
  const config = [
    '[ca]',
    'default_ca=this',
    '[this]',
    'database=index.txt',
    'serial=serial',
    'new_certs_dir=.',
    'default_md=sha256',
    'policy=any',
    '[any]',
    'commonName=supplied',
  ];
  await writeFile(join(folder, 'ca.conf'), config.join('\n'));
  await openssl(folder, [
    ...['ca', '-batch', '-notext', '-config', 'ca.conf', '-cert', files.ca[0], '-keyfile', files.ca[1]],
    ...['-startdate', '20200101000000Z', '-enddate', '20200201000000Z'],
    ...['-extfile', files.extensions, '-in', files.request, '-out', files.cert],
  ]);
}

// Elliptic keys: an RSA key takes seconds on a small machine.
function newKey(path: string): string[] {
  return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', path];
}

async function openssl(cwd: string, args: string[]): Promise<void> {
  const { code, stderr } = await runTool('openssl', args, { cwd });
  if (code !== 0) throw new Error(`openssl ${args.join(' ')}: ${stderr}`);
}
