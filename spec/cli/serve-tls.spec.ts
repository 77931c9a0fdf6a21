import { type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';

import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { A_URI, exitOf, nbd, printed, start } from './support.js';

let certificates: Certificates;
let folder: string;
beforeAll(async () => {
  certificates = await makeCertificates();
  folder = await mkdtemp(join(tmpdir(), 'nbd-serve-spec-'));
});
afterAll(async () => {
  await certificates.remove();
  await rm(folder, { recursive: true });
});

let running: ChildProcess | undefined;
afterEach(async () => {
  if (running === undefined) return;
  const ended = exitOf(running);
  running.kill('SIGTERM');
  expect(await ended).not.toBeNull();
  running = undefined;
});

/** The URI that a started `nbd serve` prints. */
async function serve(...words: string[]): Promise<string> {
  const child = await start(['serve', '--memory', '1M', ...words]);
  running = child;
  await printed(child, A_URI);
  return child.said().trim().replace('127.0.0.1', 'localhost');
}

const size = (uri: string) => runTool('nbdinfo', ['--size', uri]);

describeWith(['nbdinfo', 'openssl'], 'nbd serve with TLS', () => {
  it('serves clients that trust its certificate, and no others', async () => {
    const { folder: pki, strangerFolder } = certificates;
    const uri = await serve('--port=0', `--tls-certificates=${pki}`);
    expect(uri).toMatch(/^nbds:/);
    expect(await size(`${uri}?tls-certificates=${pki}`)).toMatchObject({ code: 0, stdout: '1048576\n' });
    expect(await size(`${uri}?tls-certificates=${strangerFolder}`)).toMatchObject({ code: 1, stdout: '' });
    expect(await size(uri.replace('nbds:', 'nbd:'))).toMatchObject({ code: 1, stdout: '' });

    const ours = await nbd(['info', '--size', uri.replace('nbds:', 'nbd:')]);
    expect(ours).toMatchObject({ code: 1, stdout: '' });
    expect(ours.stderr).toMatch(/suggestion: the server requires TLS: use an nbds:\/\/ URI\n$/);
  });

  it('requires a certificate of the client with --tls-verify-peer', async () => {
    const { folder: pki } = certificates;
    const uri = await serve('--port=0', `--tls-certificates=${pki}`, '--tls-verify-peer');
    // libnbd sends client-cert.pem of that folder.
    expect(await size(`${uri}?tls-certificates=${pki}`)).toMatchObject({ code: 0, stdout: '1048576\n' });
    const without = await nbd(['info', '--size', uri], {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: join(pki, 'ca-cert.pem') },
    });
    expect(without).toMatchObject({ code: 1, stdout: '' });
    expect(without.stderr).toMatch(/certificate/i);
  });

  it('takes pre-shared keys, on a Unix socket too', async () => {
    const { pskFile, pskUser } = certificates;
    const uri = await serve(`--unix=${join(folder, 'psk')}`, `--tls-psk=${pskFile}`);
    const as = (user: string) => `${uri.replace('unix://', `unix://${user}@`)}&tls-psk-file=${pskFile}`;
    expect(await size(as(pskUser))).toMatchObject({ code: 0, stdout: '1048576\n' });
    expect(await size(as('mallory'))).toMatchObject({ code: 1, stdout: '' });
  });

  it.each([
    ['# none\n\n', /contains no keys/],
    ['alice:00ff\nbob:5ec2e7\u0020x\n', /line 2 is not USER:HEXKEY/],
    ['alice:\n', /line 1 is not USER:HEXKEY/],
    ['5ec2e7\n', /line 1 is not USER:HEXKEY/],
    ['alice:5ec2e7f\n', /line 1 is not USER:HEXKEY/],
  ])('refuses a file of keys with %j, and shows no key', async (text, says) => {
    const file = join(folder, 'bad.psk');
    await writeFile(file, text);
    const { code, stdout, stderr } = await nbd(['serve', '--memory=1M', '--port=0', `--tls-psk=${file}`]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(says);
    expect(stderr).not.toContain('5ec2e7');
  });

  it('serves in the clear too with --tls-optional', async () => {
    const { folder: pki } = certificates;
    const uri = await serve('--port=0', `--tls-certificates=${pki}`, '--tls-optional');
    expect(await size(uri.replace('nbds:', 'nbd:'))).toMatchObject({ code: 0, stdout: '1048576\n' });
    expect(await size(`${uri.replace('nbd:', 'nbds:')}?tls-certificates=${pki}`)).toMatchObject({ code: 0 });
  });

  it('reports which file is missing, or that the options exclude each other', async () => {
    const missing = await nbd(['serve', '--memory=1M', '--port=0', '--tls-certificates', folder]);
    expect(missing).toMatchObject({ code: 1, stdout: '' });
    expect(missing.stderr).toMatch(/^nbd serve: [^\n]*no such file/i);
    const both = await nbd(['serve', '--memory=1M', '--tls-certificates=x', '--tls-psk=y']);
    expect(both.stderr).toMatch(/you cannot use --tls-certificates and --tls-psk together/);
  });
});

describeWith(['nbdkit'], 'nbds: to a server without TLS', () => {
  it('fails, and explains what an nbd: URI would mean', async () => {
    await using server = await startNbdkit({ transport: 'tcp' });
    const { code, stdout, stderr } = await nbd(['info', '--size', server.uri().replace('nbd:', 'nbds:')]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(
      /suggestion: the server does not support TLS: an nbd:\/\/ URI connects without TLS, in plaintext\n$/,
    );
  });
});
