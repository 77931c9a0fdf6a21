// TLS 1.2 alone with pre-shared keys, as servers with GnuTLS before 3.6.3 have it: there is no certificate then, and
// the client must not look for one. Every kind of key exchange, with QEMU (GnuTLS) and with the embedded server
// (OpenSSL).

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { PSK_CIPHERS, runtimeWithoutPsk } from '../../lib/transport/psk.js';
import { rejection } from '../support/caught.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith, type RealServer, startQemuNbd } from '../support/real-servers.js';

let certificates: Certificates;
beforeAll(async () => {
  certificates = await makeCertificates();
});
afterAll(() => certificates.remove());

const inMemory = (): NbdConnectionOptions => ({
  tlsPsk: { identity: certificates.pskUser, key: certificates.pskKey },
});

async function read(uri: string, options: NbdConnectionOptions): Promise<void> {
  await using connection = await NbdConnection.connect(uri, options);
  expect(connection.getTlsNegotiated()).toBe(true);
  await connection.pwrite(Buffer.alloc(65536, 'secret data'), 0);
  expect(await connection.pread(11, 0)).toEqual(Buffer.from('secret data'));
}

const ONLY_12 = 'NORMAL:-VERS-ALL:+VERS-TLS1.2';
const PRIORITIES = {
  'what it likes best': ONLY_12,
  'ECDHE-PSK': `${ONLY_12}:-KX-ALL:+ECDHE-PSK`,
  'DHE-PSK': `${ONLY_12}:-KX-ALL:+DHE-PSK`,
  'plain PSK': `${ONLY_12}:-KX-ALL:+PSK`,
  'plain PSK with CBC': `${ONLY_12}:-KX-ALL:+PSK:-CIPHER-ALL:+AES-128-CBC:-MAC-ALL:+SHA256`,
  'DHE-PSK with CBC': `${ONLY_12}:-KX-ALL:+DHE-PSK:-CIPHER-ALL:+AES-256-CBC:-MAC-ALL:+SHA384`,
};

describeWith(['qemu-nbd', 'openssl'], 'a server with TLS 1.2 only and pre-shared keys', () => {
  const start = (priority: string): Promise<RealServer> =>
    startQemuNbd({
      args: [
        '--object',
        `tls-creds-psk,id=t,dir=${certificates.pskFolder},endpoint=server,priority=${priority}`,
        ...['--tls-creds', 't'],
      ],
    });
  const secure = (server: RealServer): string => server.uri().replace(/^nbd/, 'nbds');

  it.each(Object.entries(PRIORITIES))('is connected to with %s', async (_, priority) => {
    await using server = await start(priority);
    await read(secure(server), inMemory());
    await read(secure(server), { tlsPskFile: certificates.pskFile, tlsUsername: 'alice', tlsVerifyPeer: true });
    await read(secure(server), { ...inMemory(), tlsVerifyPeer: false, tlsHostname: 'elsewhere.example' });
  });

  it.each([
    ['a wrong key', { identity: 'alice', key: 'ab'.repeat(32) }],
    ['an unknown user', { identity: 'mallory', key: 'ab'.repeat(32) }],
  ])('refuses %s, and the error has no key in it', async (_, tlsPsk) => {
    await using server = await start(ONLY_12);
    const error = await rejection(NbdConnection.connect(secure(server), { tlsPsk }));
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'EACCES', tlsProblem: 'pskRefused' });
    expect((error as Error).message).not.toContain('abab');
  });
});

describe('the embedded server', () => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('shares a suite of each kind with the client over %s', async (version) => {
    const psk = { alice: Buffer.from(certificates.pskKey, 'hex') };
    await using server = new NbdServer({
      exports: { '': { backend: new MemoryBackend(1 << 20) } },
      tls: 'require',
      tlsOptions: { psk, minVersion: version, maxVersion: version },
    });
    await server.listenTcp();
    for (const kind of ['ECDHE-PSK', 'DHE-PSK', 'PSK']) {
      const suites = PSK_CIPHERS.split(':').filter((name) => name.startsWith(`${kind}-`));
      expect(suites.length).toBeGreaterThan(1);
      for (const tlsPriority of suites) await read(server.uri(), { ...inMemory(), tlsPriority });
    }
  });
});

it('runtimes that ignore keys are known by their own version', () => {
  expect(runtimeWithoutPsk()).toBeNull();
  expect(runtimeWithoutPsk({ node: '24.3.0', bun: '1.3.0' })).toBe('Bun');
  expect(runtimeWithoutPsk({ node: '24.3.0', deno: '2.5.0' })).toBe('Deno');
});

it.each(['bun', 'deno'])('a key is refused with %s, before anything is opened', async (name) => {
  Object.defineProperty(process.versions, name, { value: '1.0.0', configurable: true });
  try {
    const connection = new NbdConnection({ ...inMemory(), tls: 2 });
    const error = await rejection(connection.connectUnix('/nonexistent/socket'));
    expect(error).toMatchObject({ name: 'NbdStrictError', code: 'ENOTSUP', tlsProblem: 'runtime' });
    expect((error as Error).message).toMatch(/(Bun|Deno) does not support pre-shared keys/);
    expect(connection.connectionState()).toBe('created');
  } finally {
    Reflect.deleteProperty(process.versions, name);
  }
});
