// Whom a client trusts: an authority of its own is enough on a Unix socket, where no name is known, and it may be an
// intermediate one; against the authorities that the system trusts a name is required.

import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { NbdConnection, type NbdConnectionOptions, type NbdError, TLS_REQUIRE } from '../../lib/index.js';
import { on, optionReply, type PeerScript, ScriptedPeer, tls } from '../../lib/testing/index.js';
import { nbd } from '../cli/support.js';
import { describeWith, runTool } from '../support/tools.js';

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
const AUTHORITY = 'basicConstraints=critical,CA:TRUE';

describeWith(['openssl'], 'an authority', () => {
  let folder: string;
  const pem: Record<string, string> = {};

  const openssl = async (...args: string[]): Promise<void> => {
    const { code, stderr } = await runTool('openssl', args, { cwd: folder });
    if (code !== 0) throw new Error(stderr);
  };
  const issue = async (name: string, by: string, extensions: string[]): Promise<void> => {
    await writeFile(join(folder, `${name}.ext`), extensions.join('\n'));
    await openssl('req', '-new', '-subj', `/CN=${name}`, ...KEY, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    const signing = ['-CA', `${by}.pem`, '-CAkey', `${by}.key`, '-CAcreateserial', '-days', '2'];
    await openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-extfile', `${name}.ext`, ...signing, '-out', `${name}.pem`],
    );
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-authorities-'));
    for (const name of ['root', 'other']) {
      const files = ['-keyout', `${name}.key`, '-out', `${name}.pem`];
      await openssl('req', '-x509', '-subj', `/CN=${name}`, '-days', '2', ...KEY, ...files, '-addext', AUTHORITY);
    }
    await issue('intermediate', 'root', [AUTHORITY]);
    await issue('server', 'intermediate', ['subjectAltName=DNS:exact.test', 'extendedKeyUsage=serverAuth']);
    for (const name of ['root', 'other', 'intermediate', 'server']) {
      pem[name] = await readFile(join(folder, `${name}.pem`), 'utf8');
    }
    pem['key'] = await readFile(join(folder, 'server.key'), 'utf8');
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const script = (chain: readonly string[]): PeerScript => ({
    tls: { cert: chain.map((name) => pem[name] ?? '').join(''), key: pem['key'] ?? '' },
    on: [on(5, [optionReply(5, 1), tls()])],
  });

  const attempt = async (chain: readonly string[], options: NbdConnectionOptions): Promise<string> => {
    await using peer = await ScriptedPeer.listen(script(chain));
    const connection = new NbdConnection({ tls: TLS_REQUIRE, connectTimeout: 30_000, ...options });
    try {
      await connection.connectUnix(peer.socketPath as string);
      return 'trusted';
    } catch (error) {
      return (error as NbdError).tlsProblem ?? String(error);
    } finally {
      connection.close();
    }
  };

  const WHOLE = ['server', 'intermediate'];
  it.each<[string, readonly string[], readonly string[], string]>([
    ['the root, given the whole chain', WHOLE, ['root'], 'trusted'],
    ['the root, given the leaf only', ['server'], ['root'], 'untrusted'],
    ['the intermediate alone, given the whole chain', WHOLE, ['intermediate'], 'trusted'],
    ['the intermediate alone, given the leaf only', ['server'], ['intermediate'], 'trusted'],
    ['a bundle with the intermediate behind another root', ['server'], ['other', 'intermediate'], 'trusted'],
    ['the leaf itself', ['server'], ['server'], 'trusted'],
    ['another root', WHOLE, ['other'], 'untrusted'],
  ])('%s', async (_, chain, authorities, expected) => {
    const ca = authorities.map((name) => `# ${name}\n${pem[name] ?? ''}`);
    for (const given of [ca, ca.join('')]) {
      expect(await attempt(chain, { ca: given })).toBe(expected);
      expect(await attempt(chain, { ca: given, tlsHostname: 'exact.test' })).toBe(expected);
      expect(await attempt(chain, { ca: given, tlsHostname: 'evil.test' })).toBe(
        expected === 'trusted' ? 'name' : expected,
      );
    }
    await writeFile(join(folder, 'ca-cert.pem'), ca.join(''));
    expect(await attempt(chain, { tlsCertificates: folder })).toBe(expected);
  });

  it.each([
    ['without a name', '', /no host name to verify[^]*suggestion: .*tls-hostname=NAME/],
    ['with the right name', 'exact.test', /^1048576\n$/],
    ['with another name', 'evil.test', /evil\.test\.; it is for DNS:exact\.test\n[^]*tls-hostname=NAME/],
  ])('of the system, %s', async (_, name, expected) => {
    await using peer = await ScriptedPeer.listen({ ...script(WHOLE), size: 1_048_576n });
    // What Node trusts of itself is decided when a process starts.
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: join(folder, 'root.pem') };
    const uri = `${peer.uri().replace(/^nbd/, 'nbds')}${name === '' ? '' : `&tls-hostname=${name}`}`;
    const { stdout, stderr } = await nbd(['info', '--size', uri], { env });
    expect(stdout + stderr).toMatch(expected);
  });
});
