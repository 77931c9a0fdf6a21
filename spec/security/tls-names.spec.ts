// Whose certificate it is: names, wildcards and addresses, as tlsHostname sets them on a Unix socket, and as a TCP
// connection has them from the host that it connects to.

import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { NbdConnection, type NbdConnectionOptions, TLS_REQUIRE } from '../../lib/index.js';
import { on, optionReply, ScriptedPeer, tls } from '../../lib/testing/index.js';
import { describeWith, runTool } from '../support/tools.js';

const ALTNAMES =
  'DNS:*.example.org,DNS:exact.test,DNS:192.0.2.3,DNS:2001:db8::7,IP:192.0.2.1,IP:2001:db8::1,IP:127.0.0.1,IP:fe80::1,IP:::ffff:192.0.2.9';

describeWith(['openssl'], 'the name in a certificate', () => {
  let folder: string;
  let cert: string;
  let key: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-names-'));
    const made = await runTool(
      'openssl',
      [
        ...[
          'req',
          '-x509',
          '-subj',
          '/CN=common.test',
          '-days',
          '2',
          '-nodes',
          '-keyout',
          'key.pem',
          '-out',
          'cert.pem',
        ],
        ...['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-addext', `subjectAltName=${ALTNAMES}`],
      ],
      { cwd: folder },
    );
    expect(made.code).toBe(0);
    cert = await readFile(join(folder, 'cert.pem'), 'utf8');
    key = await readFile(join(folder, 'key.pem'), 'utf8');
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** What connecting gives: 'trusted', or the code of the cause; only STARTTLS was sent outside of TLS. */
  const attempt = async (transport: 'unix' | 'tcp', options: NbdConnectionOptions): Promise<string> => {
    await using peer = await ScriptedPeer.listen(
      { tls: { cert, key }, on: [on(5, [optionReply(5, 1), tls()])] },
      { transport },
    );
    const connection = new NbdConnection({ tls: TLS_REQUIRE, ca: cert, connectTimeout: 10_000, ...options });
    try {
      if (transport === 'unix') await connection.connectUnix(peer.socketPath as string);
      else await connection.connectTcp('127.0.0.1', peer.port as number);
      expect((await connection.pread(512, 0)).length).toBe(512);
      return 'trusted';
    } catch (error) {
      await peer.connection.done;
      expect(peer.connection.options.map(({ option }) => option)).toEqual([5]);
      return (error as { cause?: { code?: string } }).cause?.code ?? String(error);
    } finally {
      connection.close();
    }
  };

  const WRONG = 'ERR_TLS_CERT_ALTNAME_INVALID';
  it.each([
    ['exact.test', 'trusted'],
    ['EXACT.test', 'trusted'],
    ['exact.test.', 'trusted'],
    ['a.example.org', 'trusted'],
    ['A.Example.Org', 'trusted'],
    ['192.0.2.1', 'trusted'],
    ['2001:db8::1', 'trusted'],
    ['2001:0db8:0:0::1', 'trusted'],
    ['2001:DB8:0:0:0:0:0:1', 'trusted'],
    ['[2001:db8::1]', 'trusted'],
    ['fe80::1', 'trusted'],
    // No certificate can have a zone.
    ['fe80::1%eth0', 'trusted'],
    ['[fe80::1%25eth0]', 'trusted'],
    ['::ffff:192.0.2.9', 'trusted'],
    ['::ffff:c000:209', 'trusted'],
    // The authority is the caller's own: where no name is known it is enough.
    ['', 'trusted'],
    ['example.org', WRONG],
    ['a.b.example.org', WRONG],
    ['aexample.org', WRONG],
    ['a.example.org.evil.test', WRONG],
    ['exact.test.evil.test', WRONG],
    // Names are in the list of names, and the common name is not looked at where there is one.
    ['common.test', WRONG],
    // An address must be there as an address.
    ['192.0.2.3', WRONG],
    ['192.0.2.2', WRONG],
    ['2001:db8::2', WRONG],
    ['2001:db8::7', WRONG],
    ['fe80::2%eth0', WRONG],
    ['192.0.2.9', WRONG],
    ['[2001:db8::1', WRONG],
    ['::ffff:192.0.2.1', WRONG],
  ])('tlsHostname %j on a Unix socket: %s', async (tlsHostname, expected) => {
    expect(await attempt('unix', { tlsHostname })).toBe(expected);
  });

  it('is that of the host on TCP, unless tlsHostname sets another one', async () => {
    expect(await attempt('tcp', {})).toBe('trusted');
    expect(await attempt('tcp', { tlsHostname: 'exact.test' })).toBe('trusted');
    expect(await attempt('tcp', { tlsHostname: 'evil.test' })).toBe(WRONG);
  });

  it('is of no interest where the peer is not to be verified', async () => {
    expect(await attempt('unix', { tlsHostname: 'evil.test', tlsVerifyPeer: false })).toBe('trusted');
  });
});
