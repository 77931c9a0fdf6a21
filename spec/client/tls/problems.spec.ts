// The way out of each failure of TLS: it fits the cause, and it names what the user of that interface can set: options in
// the library, the URI's parameters and the files in the command line.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { hintOf, messageOf, formatFailure } from '../../../lib/cli/output/failure.js';
import { explainTls, type TlsFacts } from '../../../lib/client/tls/errors.js';
import { loadTls, makeContext } from '../../../lib/client/tls/material.js';
import {
  type NbdTlsOptions,
  TLS_CHECKS,
  tlsDefaults,
  type TlsSettings,
} from '../../../lib/client/options/tls-options.js';
import { TLS_ADVICE, type TlsProblem } from '../../../lib/client/tls/problems.js';
import { NbdConnectionError, type NbdError } from '../../../lib/errors.js';
import { rejection } from '../../support/caught.js';
import { type Certificates, makeCertificates } from '../../support/certificates.js';
import { describeWith, runTool } from '../../support/tools.js';

/** What only a program can set. */
const OPTION = /\b(tls[A-Z]\w*|see cert|ca or|cert and key|crl,|passphrase to)/;

const PLAIN: TlsFacts = { pskIdentity: null, name: 'h', hasCertificate: false };
const PSK: TlsFacts = { ...PLAIN, pskIdentity: 'alice' };

describe.each<[string, TlsProblem, Partial<TlsFacts>, RegExp | null]>([
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'untrusted', PLAIN, /tls-certificates=DIR/],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'untrusted', PLAIN, /tls-certificates=DIR/],
  ['UNABLE_TO_GET_ISSUER_CERT', 'untrusted', PLAIN, /tls-certificates=DIR/],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'untrusted', PLAIN, /tls-certificates=DIR/],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'untrusted', PLAIN, /tls-certificates=DIR/],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'name', PLAIN, /tls-hostname=NAME/],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'noName', { name: '' }, /tls-hostname=NAME.*tls-certificates=DIR/],
  ['CERT_HAS_EXPIRED', 'expired', PLAIN, /new certificate.*clock/],
  ['CERT_NOT_YET_VALID', 'notYetValid', PLAIN, /clocks/],
  ['CERT_REVOKED', 'revoked', PLAIN, /another certificate.*ca-crl\.pem/],
  ['INVALID_PURPOSE', 'purpose', PLAIN, /for TLS servers/],
  ['INVALID_CA', 'certificate', PLAIN, /another certificate/],
  ['PATH_LENGTH_EXCEEDED', 'certificate', PLAIN, /another certificate/],
  ['UNSPECIFIED', 'certificate', PLAIN, /another certificate/],
  ['CRL_HAS_EXPIRED', 'crlExpired', PLAIN, /renew .*ca-crl\.pem/],
  ['UNABLE_TO_GET_CRL', 'crlMissing', PLAIN, /every authority/],
  ['CRL_NOT_YET_VALID', 'crlInvalid', PLAIN, /ca-crl\.pem/],
  ['CRL_SIGNATURE_FAILURE', 'crlInvalid', PLAIN, /ca-crl\.pem/],
  ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'noClientCertificate', PLAIN, /client-cert\.pem and client-key\.pem/],
  ['ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE', 'noClientCertificate', PLAIN, /client-cert\.pem and client-key\.pem/],
  ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'clientCertificate', { hasCertificate: true }, /check client-cert\.pem/],
  ['ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED', 'clientCertificate', { hasCertificate: true }, /check client-cert\.pem/],
  ['ECONNRESET', 'clientCertificate', { hasCertificate: true }, /check client-cert\.pem.*tls-psk-file/],
  ['ECONNRESET', 'noClientCertificate', PLAIN, /client-cert\.pem.*tls-psk-file/],
  ['ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE', 'cipher', PLAIN, /tls-psk-file=FILE.*tls-certificates=DIR/],
  ['ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE', 'cipher', PLAIN, /tls-psk-file=FILE/],
  ['ERR_SSL_TLSV1_ALERT_INSUFFICIENT_SECURITY', 'cipher', PLAIN, /tls-psk-file=FILE/],
  ['ERR_SSL_NO_SHARED_CIPHER', 'cipher', PLAIN, /tls-psk-file=FILE/],
  ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'version', PLAIN, /TLS 1\.2 or 1\.3/],
  ['ERR_SSL_UNSUPPORTED_PROTOCOL', 'version', PLAIN, /TLS 1\.2 or 1\.3/],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'notTls', PLAIN, /then sent other data/],
  ['ERR_SSL_PACKET_LENGTH_TOO_LONG', 'notTls', PLAIN, /then sent other data/],
  ['ERR_SSL_INTERNAL_ERROR', 'handshake', PLAIN, null],
  ['ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC', 'pskRefused', PSK, /tls-psk-file=FILE and tls-username=USER/],
  ['ECONNRESET', 'pskRefused', PSK, /tls-psk-file=FILE and tls-username=USER/],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'pskUnused', PSK, /without tls-psk-file/],
])('%s is %s', (code, problem, facts, hint) => {
  const explained = (): NbdError => {
    const cause = Object.assign(new Error('what Node says'), { code });
    return explainTls(cause, 'handshake', { ...PLAIN, ...facts }) as NbdError;
  };

  it('in the library, in terms of its options', () => {
    const error = explained();
    expect(error).toMatchObject({ tlsProblem: problem });
    expect(error.message.endsWith(')') || error.message.includes('): ')).toBe(TLS_ADVICE[problem] !== '');
    expect(error.message).toContain(TLS_ADVICE[problem]);
    expect(error.message).not.toMatch(/tls-[a-z]/);
  });

  it('in the command line, in terms of the URI and of files', () => {
    const lost = new NbdConnectionError(`flush: the connection ended: ${explained().message}`, {
      code: 'ENOTCONN',
      cause: explained(),
    });
    for (const error of [explained(), lost]) {
      if (hint === null) expect(hintOf(error)).toBeUndefined();
      else expect(hintOf(error)).toMatch(hint);
      const text = formatFailure(error, 'nbd info', false);
      expect(text).not.toMatch(OPTION);
      expect(text.split('\n')).toHaveLength(hint === null ? 2 : 3);
    }
  });
});

describeWith(['openssl'], 'material that cannot be used', () => {
  let pki: Certificates;
  let folder: string;
  const pem: Record<'encrypted' | 'legacy' | 'other' | 'rsa', string> = {
    encrypted: '',
    legacy: '',
    other: '',
    rsa: '',
  };
  const openssl = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runTool('openssl', args);
    if (code !== 0) throw new Error(stderr);
    return stdout;
  };

  beforeAll(async () => {
    pki = await makeCertificates();
    folder = await mkdtemp(join(tmpdir(), 'nbd-material-'));
    const plain = join(folder, 'plain.pem');
    await writeFile(plain, pki.client.key);
    pem.encrypted = await openssl('pkey', '-in', plain, '-aes128', '-passout', 'pass:sesame');
    pem.legacy = await openssl('ec', '-in', plain, '-aes128', '-passout', 'pass:sesame');
    pem.other = await openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:prime256v1');
    pem.rsa = await openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024');
    await writeFile(join(folder, 'keys.psk'), 'alice:xyz-secret\n#626f623a78:00ff\n# a comment\ncarol:0a\n');
  });
  afterAll(async () => {
    await pki.remove();
    await rm(folder, { recursive: true, force: true });
  });

  const settings = (options: NbdTlsOptions): TlsSettings => {
    const checked: Record<string, unknown> = { ...tlsDefaults() };
    for (const [name, value] of Object.entries(options)) {
      checked[name] = TLS_CHECKS[name as keyof NbdTlsOptions]('spec', value);
    }
    return checked as unknown as TlsSettings;
  };

  it.each<[string, TlsProblem, RegExp, () => NbdTlsOptions]>([
    ['no passphrase', 'passphrase', /it is encrypted/, () => ({ ...pki.client, key: pem.encrypted })],
    ['no passphrase of an old key', 'passphrase', /is encrypted/, () => ({ ...pki.client, key: pem.legacy })],
    [
      'a wrong passphrase',
      'passphrase',
      /another passphrase/,
      () => ({ ...pki.client, key: pem.encrypted, passphrase: 'simsim' }),
    ],
    ["another certificate's key", 'keyMismatch', /does not match its/, () => ({ ...pki.client, key: pem.other })],
    ['a key of another kind', 'keyMismatch', /does not match its/, () => ({ ...pki.client, key: pem.rsa })],
    ['an invalid authority', 'material', /authority's certificate cannot/, () => ({ ca: 'garbage' })],
    ['an authority that is a key', 'material', /authority's certificate cannot/, () => ({ ca: pki.client.key })],
    ['an invalid certificate', 'material', /client's certificate cannot/, () => ({ ...pki.client, cert: 'x' })],
    ['an invalid key', 'material', /client's key cannot/, () => ({ ...pki.client, key: 'simsim' })],
    ['an invalid revocation list', 'material', /revocation list cannot/, () => ({ ca: pki.ca, crl: 'simsim' })],
    ['a certificate without its key', 'incomplete', /without "key"/, () => ({ cert: pki.client.cert })],
    ['no such folder', 'file', /cannot read/, () => ({ tlsCertificates: join(folder, 'none') })],
    [
      'no such folder, unverified',
      'file',
      /cannot read/,
      () => ({ tlsCertificates: join(folder, 'none'), tlsVerifyPeer: false }),
    ],
    [
      'a file for a folder',
      'file',
      /is not a folder/,
      () => ({ tlsCertificates: join(folder, 'keys.psk'), tlsVerifyPeer: false }),
    ],
    [
      'a user without a key',
      'pskUser',
      /"dave" not found in/,
      () => ({ tlsPskFile: join(folder, 'keys.psk'), tlsUsername: 'dave' }),
    ],
    [
      'a bad line',
      'pskFile',
      /"alice" .* is not hexadecimal/,
      () => ({ tlsPskFile: join(folder, 'keys.psk'), tlsUsername: 'alice' }),
    ],
  ])('%s', async (_, problem, message, options) => {
    const error = (await rejection(loadTls(settings(options())).then(makeContext))) as NbdError;
    expect(error).toMatchObject({ name: 'NbdStrictError', tlsProblem: problem });
    expect(error.message).toMatch(message);
    expect(error.message).toContain(`(${TLS_ADVICE[problem]})`);
    expect(`${messageOf(error)} ${String(hintOf(error))}`).not.toMatch(OPTION);
    expect(`${error.stack ?? ''} ${String(error.cause)}`).not.toMatch(/simsim|sesame|xyz-secret/);
  });

  it('is right with the right passphrase, and without an authority where nothing is verified', async () => {
    makeContext(await loadTls(settings({ ...pki.client, key: pem.encrypted, passphrase: 'sesame' })));
    const own = await mkdtemp(join(tmpdir(), 'nbd-own-'));
    await writeFile(join(own, 'client-cert.pem'), pki.client.cert);
    await writeFile(join(own, 'client-key.pem'), pki.client.key);
    const material = await loadTls(settings({ tlsCertificates: own, tlsVerifyPeer: false }));
    expect(material).toMatchObject({ hasCertificate: true, hasOwnAuthority: false });
    makeContext(material);
    await rm(own, { recursive: true });
  });

  it('takes users whose name has a colon as psktool writes them', async () => {
    const { psk } = await loadTls(settings({ tlsPskFile: join(folder, 'keys.psk'), tlsUsername: 'bob:x' }));
    expect(psk?.key).toEqual(Buffer.from([0, 0xff]));
    expect(await readFile(join(folder, 'keys.psk'), 'utf8')).toContain('#626f623a78');
  });
});
