// TLS with pre-shared keys against nbdkit and qemu-nbd: from a file and from memory; whatever
// goes wrong with a key has one code.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';

import { NbdConnection, type NbdConnectionOptions, NbdError, TLS_ALLOW, TLS_REQUIRE } from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith, type RealServer, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { ONLY_STARTTLS, plaintextOf, startProxy } from '../support/recording-proxy.js';

let certificates: Certificates;

beforeAll(async () => {
  certificates = await makeCertificates();
});

afterAll(() => certificates.remove());

/**
 * OpenSSL's lists; with the second one TLS 1.3 stays possible and is what these servers choose (see tls-psk12.spec.ts).
 */
const SUITES = {
  'suites of TLS 1.3': 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256',
  'suites of TLS 1.2 too': 'ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256',
} as const;

const KINDS = [
  { name: 'nbdkit', start: () => startNbdkit({ tls: { psk: certificates.pskFile } }) },
  { name: 'qemu-nbd', start: () => startQemuNbd({ tls: { psk: certificates.pskFolder } }) },
] as const;

/** Everything that an error shows when it is printed. */
const shown = (error: unknown): string => `${inspect(error, { depth: 9, showHidden: true })} ${JSON.stringify(error)}`;

describe.each(KINDS)('TLS with pre-shared keys: $name', (kind) => {
  describeWith([kind.name, 'openssl'], 'a server that has the key', () => {
    let server: RealServer;

    beforeAll(async () => {
      server = await kind.start();
    });

    afterAll(() => server.stop());

    const inMemory = (): NbdConnectionOptions => ({
      tlsPsk: { identity: certificates.pskUser, key: certificates.pskKey },
    });

    const read = async (options: NbdConnectionOptions, uri = server.uri()): Promise<void> => {
      await using connection = await NbdConnection.connect(uri, options);
      expect(connection.getTlsNegotiated()).toBe(true);
      await connection.pwrite(Buffer.alloc(65536, 'secret data'), 0);
      expect(await connection.pread(11, 0)).toEqual(Buffer.from('secret data'));
    };

    it('takes the key of a file, for the user that is named', async () => {
      await read({ tlsPskFile: certificates.pskFile, tlsUsername: certificates.pskUser });
    });

    it('takes the user from the URI', async () => {
      const uri = server.uri().replace('://', `://${certificates.pskUser}@`);
      const connection = await NbdConnection.connect(uri, { tlsPskFile: certificates.pskFile });
      expect(connection.getTlsUsername()).toBe(certificates.pskUser);
      await connection.shutdown();
    });

    it('takes the file from the URI, where that may name local files', async () => {
      const uri = `${server.uri()}&tls-username=alice&tls-type=psk&tls-psk-file=${certificates.pskFile}`;
      await read({ uriAllowLocalFile: true }, uri);
      expect(await rejection(NbdConnection.connect(uri))).toMatchObject({ code: 'EPERM' });
    });

    it.each(Object.entries(SUITES))('takes a key in memory, with %s', async (_, tlsPriority) => {
      await read({ ...inMemory(), tlsPriority });
      await read({ tlsPsk: { identity: 'alice', key: Buffer.from(certificates.pskKey, 'hex') }, tlsPriority });
    });

    it('takes it from the setters', async () => {
      const connection = new NbdConnection();
      connection.setTls(TLS_REQUIRE);
      connection.setTlsPskFile(certificates.pskFile);
      connection.setTlsUsername('alice');
      await connection.connectUnix(server.socketPath!);
      expect(connection.getTlsNegotiated()).toBe(true);
      await connection.shutdown();
    });

    it('needs no name of a host, whatever is set', async () => {
      await read({ ...inMemory(), tlsVerifyPeer: true, tlsHostname: 'elsewhere.example' });
      await read({ ...inMemory(), tlsVerifyPeer: false });
    });

    it('sees nothing in the clear', async () => {
      await using proxy = await startProxy(server.address);
      await read(inMemory(), proxy.uri('nbds'));
      const [recorded] = proxy.connections;
      await recorded?.over;
      expect(plaintextOf(recorded!.client)).toEqual(ONLY_STARTTLS);
      expect(recorded!.client.includes('secret data')).toBe(false);
    });

    const wrong: [string, () => NbdConnectionOptions][] = [
      ['a wrong key', () => ({ tlsPsk: { identity: 'alice', key: `${'00'.repeat(31)}01` } })],
      ['a key that is too short', () => ({ tlsPsk: { identity: 'alice', key: 'ab' } })],
      ['an unknown user', () => ({ tlsPsk: { identity: 'mallory', key: certificates.pskKey } })],
      ['no key but certificates', () => ({ ca: certificates.ca, ...certificates.client, tlsHostname: 'localhost' })],
    ];

    describe.each(wrong)('given %s', (title, options) => {
      it.each(Object.entries(SUITES))('refuses it with one code (%s)', async (_, tlsPriority) => {
        const isKey = title !== 'no key but certificates';
        for (const tls of [TLS_ALLOW, TLS_REQUIRE]) {
          await using proxy = await startProxy(server.address);
          const material = options();
          const connection = new NbdConnection({ tls, ...material, ...(isKey ? { tlsPriority } : {}) });
          const error = await rejection(connection.connectUri(proxy.uri('nbd')));
          expect(error).toBeInstanceOf(NbdError);
          expect(error).toMatchObject({ name: 'NbdConnectionError' });
          if (isKey) expect(error).toMatchObject({ code: 'EACCES' });
          expect((error as Error).message).toMatch(isKey ? /pre-shared key of user "(alice|mallory)"/ : /TLS: /);
          expect(shown(error)).not.toContain(certificates.pskKey);
          expect(shown(error)).not.toContain('00000001');
          await proxy.connections[0]?.over;
          expect(plaintextOf(proxy.connections[0]!.client)).toEqual(ONLY_STARTTLS);
        }
      });
    });

    it('is not asked when the file does not have the key', async () => {
      await using proxy = await startProxy(server.address);
      const bad = join(certificates.pskFolder, 'bad.psk');
      await writeFile(bad, 'bob:00ff\nalice:not hexadecimal\r\ncarol:\n');
      const cases: [NbdConnectionOptions, string, RegExp][] = [
        [{ tlsPskFile: bad, tlsUsername: 'dave' }, 'EINVAL', /user "dave" not found in the pre-shared key file/],
        [{ tlsPskFile: bad, tlsUsername: 'alice' }, 'EINVAL', /the key of user "alice" in .* is not hexadecimal/],
        [{ tlsPskFile: bad, tlsUsername: 'carol' }, 'EINVAL', /not hexadecimal/],
        [{ tlsPskFile: `${bad}.gone`, tlsUsername: 'alice' }, 'ENOENT', /cannot read .*bad\.psk\.gone/],
      ];
      for (const [options, code, message] of cases) {
        const connection = new NbdConnection(options);
        const error = await rejection(connection.connectUri(proxy.uri('nbds')));
        expect(error).toMatchObject({ name: 'NbdStrictError', code });
        expect((error as Error).message).toMatch(message);
        expect(shown(error)).not.toContain('not hexadecimal\r');
        // Nothing has happened: it may be put right and tried again.
        expect(connection.connectionState()).toBe('created');
        connection.setTlsPskFile(certificates.pskFile);
        connection.setTlsUsername('alice');
        await connection.connectUri(proxy.uri('nbds'));
        await connection.shutdown();
      }
      expect(proxy.connections).toHaveLength(cases.length);
    });
  });

  describeWith([kind.name, 'openssl'], 'a server that has certificates instead', () => {
    it('is refused: a key is not replaced by whatever certificate there is', async () => {
      const tls = { folder: certificates.folder };
      await using server = await (kind.name === 'nbdkit' ? startNbdkit({ tls }) : startQemuNbd({ tls }));
      for (const tlsVerifyPeer of [true, false]) {
        const error = await rejection(
          NbdConnection.connect(server.uri(), {
            tlsPsk: { identity: 'alice', key: 'abcd' },
            tlsVerifyPeer,
            ca: certificates.ca,
          }),
        );
        expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'EACCES' });
      }
    });
  });
});
