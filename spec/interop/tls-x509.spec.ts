// TLS with certificates against the real servers, on TCP and on Unix sockets, through a proxy that records: what is
// accepted, what is refused and by which side, and that only STARTTLS is ever sent in plaintext.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { NbdConnection, type NbdConnectionOptions, TLS_ALLOW, TLS_DISABLE, TLS_REQUIRE } from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { type Certificates, issueStranger, makeCertificates, revocationList } from '../support/certificates.js';
import { describeWith, type RealServer, runTool, startNbdkit } from '../support/real-servers.js';
import {
  ONLY_STARTTLS,
  plaintextOf,
  type RecordingProxy,
  startProxy,
  STARTTLS_AND_ABORT,
} from '../support/recording-proxy.js';
import { type Kind, KINDS, type Transport } from './tls-x509-servers.js';

let certificates: Certificates;

beforeAll(async () => {
  certificates = await makeCertificates();
});

afterAll(() => certificates.remove());

/** A certificate where the server demands one. */
const own = (kind: Kind): NbdConnectionOptions => (kind.alwaysVerifies === true ? certificates.client : {});

/** The options of a client that does everything right. */
const good = (kind: Kind, transport: Transport): NbdConnectionOptions => ({
  ca: certificates.ca,
  ...own(kind),
  ...(transport === 'unix' ? { tlsHostname: 'localhost' } : {}),
});

async function connect(
  proxy: RecordingProxy,
  kind: Kind,
  options: NbdConnectionOptions,
  scheme: 'nbd' | 'nbds' = 'nbds',
): Promise<NbdConnection> {
  return NbdConnection.connect(proxy.uri(scheme, kind.export), options);
}

/** What the client sent in plaintext on the connection that was made last, when that is over. */
async function saidInTheClear(proxy: RecordingProxy): Promise<Buffer> {
  const last = proxy.connections.at(-1)!;
  await last.over;
  return plaintextOf(last.client);
}

describe.each(KINDS)('TLS with certificates: $name', (kind) => {
  describeWith([kind.name, 'openssl'], 'a server with TLS', () => {
    describe.each(['tcp', 'unix'] as const)('on %s', (transport) => {
      let server: RealServer;
      let proxy: RecordingProxy;

      beforeAll(async () => {
        server = await kind.start(transport, { folder: certificates.folder });
        proxy = await startProxy(server.address);
      });

      afterAll(async () => {
        await proxy[Symbol.asyncDispose]();
        await server.stop();
      });

      const refused = async (options: NbdConnectionOptions): Promise<unknown> => {
        const error = await rejection(connect(proxy, kind, options));
        expect(await saidInTheClear(proxy)).toEqual(ONLY_STARTTLS);
        return error;
      };

      it('carries data both ways, and nothing of it in the clear', async () => {
        const connection = await connect(proxy, kind, good(kind, transport));
        expect(connection.getTlsNegotiated()).toBe(true);
        expect(connection.getTls()).toBe(TLS_REQUIRE);
        const data = randomBytes(2 << 20);
        await connection.pwrite(data, 8192);
        await connection.flush();
        const parts = await Promise.all(
          Array.from({ length: 32 }, (_, i) => connection.pread(65536, 8192 + i * 65536)),
        );
        expect(Buffer.concat(parts).equals(data)).toBe(true);
        await connection.shutdown();
        const { client, server: replies } = proxy.connections.at(-1)!;
        expect(await saidInTheClear(proxy)).toEqual(ONLY_STARTTLS);
        expect(client.includes(data.subarray(0, 32))).toBe(false);
        expect(replies.includes(data.subarray(0, 32))).toBe(false);
      });

      it.each([TLS_ALLOW, TLS_REQUIRE])('is used by an nbd URI with setTls (%#)', async (tls) => {
        await using connection = await connect(proxy, kind, { ...good(kind, transport), tls }, 'nbd');
        expect(connection.getTlsNegotiated()).toBe(true);
        expect(connection.getTls()).toBe(tls);
        await connection.pread(512, 0);
      });

      it('is verified with the folder of certificates', async () => {
        const { ca: _, ...rest } = good(kind, transport);
        await using connection = await connect(proxy, kind, { ...rest, tlsCertificates: certificates.folder });
        await connection.pread(512, 0);
      });

      it('takes all of it from the URI, where that may name local files', async () => {
        const parameters = {
          'tls-certificates': certificates.folder,
          ...(transport === 'unix' ? { 'tls-hostname': 'localhost' } : {}),
        };
        const uri = proxy.uri('nbds', kind.export, parameters);
        await using connection = await NbdConnection.connect(uri, { uriAllowLocalFile: true });
        await connection.pread(512, 0);
        const before = proxy.connections.length;
        expect(await rejection(NbdConnection.connect(uri))).toMatchObject({ name: 'NbdStrictError', code: 'EPERM' });
        expect(proxy.connections).toHaveLength(before);
      });

      it('is not trusted when an unknown authority has signed its certificate', async () => {
        for (const options of [{}, { tlsCertificates: certificates.strangerFolder }]) {
          const error = await refused({ ...good(kind, transport), ca: undefined, ...options });
          expect(error).toMatchObject({
            name: 'NbdConnectionError',
            code: 'EACCES',
            cause: { code: expect.stringMatching(/^(UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED_CERT_IN_CHAIN)$/) },
          });
          expect((error as Error).message).toMatch(/certificate was not accepted: .*\(set ca or tlsCertificates/);
        }
      });

      it('is not trusted under another name', async () => {
        const error = await refused({ ...good(kind, transport), tlsHostname: 'elsewhere.example' });
        expect(error).toMatchObject({
          name: 'NbdConnectionError',
          code: 'EACCES',
          cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' },
        });
        expect((error as Error).message).toMatch(/elsewhere\.example\.; it is for DNS:localhost, .*\(set tlsHostname/);
      });

      it('is trusted without verification only when requested', async () => {
        const options = { ...own(kind), tlsVerifyPeer: false, tlsHostname: 'elsewhere.example' };
        await using connection = await connect(proxy, kind, options);
        expect(connection.getTlsNegotiated()).toBe(true);
        await connection.pread(512, 0);
      });

      it('takes the ciphers that it is given', async () => {
        const priority = 'ECDHE-ECDSA-AES256-GCM-SHA384';
        await using connection = await connect(proxy, kind, {
          ...good(kind, transport),
          tlsPriority: `${priority}:TLS_AES_256_GCM_SHA384`,
        });
        await connection.pread(512, 0);
      });

      it('is left at once by a signal or the deadline', async () => {
        const signal = AbortSignal.timeout(1);
        const outcome = await NbdConnection.connect(proxy.uri('nbds', kind.export), {
          ...good(kind, transport),
          signal,
        }).then(
          (connection) => connection.close(),
          (error: unknown) => error,
        );
        if (outcome !== undefined) expect(outcome).toBe(signal.reason);
      });
    });

    it('on TCP needs no name but the host, which may be an address', async () => {
      await using server = await kind.start('tcp', { folder: certificates.folder });
      for (const host of ['localhost', '127.0.0.1']) {
        const connection = new NbdConnection({ tls: TLS_REQUIRE, ...good(kind, 'tcp'), exportName: kind.export });
        await connection.connectTcp(host, server.port!);
        await connection.shutdown();
      }
    });

    it('on a Unix socket needs no name where the authority was given', async () => {
      await using server = await kind.start('unix', { folder: certificates.folder });
      for (const authority of [{ ca: certificates.ca }, { tlsCertificates: certificates.folder }]) {
        const options = { ...own(kind), ...authority };
        await (await NbdConnection.connect(server.uri(kind.export), options)).shutdown();
        const named = { ...options, tlsHostname: 'elsewhere.example' };
        const error = await rejection(NbdConnection.connect(server.uri(kind.export), named));
        expect(error).toMatchObject({ code: 'EACCES', tlsProblem: 'name' });
      }
    });

    it('is not trusted when its certificate has expired', async () => {
      if (kind.checksItself === true) {
        await expect(kind.start('tcp', { folder: certificates.expiredFolder })).rejects.toThrow(/expired/);
        return;
      }
      await using server = await kind.start('tcp', { folder: certificates.expiredFolder });
      const error = await rejection(NbdConnection.connect(server.uri(kind.export), { ca: certificates.ca }));
      expect(error).toMatchObject({ code: 'EACCES', cause: { code: 'CERT_HAS_EXPIRED' } });
      expect((error as Error).message).toMatch(/certificate was not accepted: certificate has expired$/);
    });

    it('is not trusted when its certificate is on the revocation list', async () => {
      await using server = await kind.start('tcp', { folder: certificates.folder });
      const revoked = await revocationList(certificates.folder, [certificates.server.cert]);
      const nobody = await revocationList(certificates.folder, []);
      const uri = server.uri(kind.export);
      await (await NbdConnection.connect(uri, { ...good(kind, 'tcp'), crl: nobody })).shutdown();
      const error = await rejection(NbdConnection.connect(uri, { ...good(kind, 'tcp'), crl: revoked }));
      expect(error).toMatchObject({ code: 'EACCES', cause: { code: 'CERT_REVOKED' } });

      const folder = await mkdtemp(join(tmpdir(), 'spec-'));
      await cp(join(certificates.folder, 'ca-cert.pem'), join(folder, 'ca-cert.pem'));
      await writeFile(join(folder, 'ca-crl.pem'), revoked);
      expect(await rejection(NbdConnection.connect(uri, { tlsCertificates: folder }))).toMatchObject({
        cause: { code: 'CERT_REVOKED' },
      });
      await rm(folder, { recursive: true });
    });
  });

  describeWith([kind.name, 'openssl'], 'a server that looks at certificates', () => {
    let server: RealServer;

    beforeAll(async () => {
      server = await kind.start('tcp', { folder: certificates.folder, verifyPeer: true });
    });

    afterAll(() => server.stop());

    it('takes a client whose certificate its authority has signed', async () => {
      const { cert, key } = certificates.client;
      for (const options of [
        { ca: certificates.ca, cert, key },
        { ca: [certificates.ca], cert: Buffer.from(cert), key: [Buffer.from(key)] },
        { tlsCertificates: certificates.folder },
      ]) {
        await using connection = await NbdConnection.connect(server.uri(kind.export), options);
        await connection.pread(512, 0);
      }
    });

    it('takes one that is the second of a folder', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'spec-'));
      await cp(join(certificates.folder, 'ca-cert.pem'), join(folder, 'ca-cert.pem'));
      await writeFile(join(folder, 'client-cert-0.pem'), certificates.client.cert);
      await writeFile(join(folder, 'client-key-0.pem'), certificates.client.key);
      await using connection = await NbdConnection.connect(server.uri(kind.export), { tlsCertificates: folder });
      await connection.pread(512, 0);
      await rm(folder, { recursive: true });
    });

    it('takes a key with a passphrase', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'spec-'));
      const plain = join(folder, 'plain.pem');
      await writeFile(plain, certificates.client.key);
      const { stdout } = await runTool('openssl', ['pkey', '-in', plain, '-aes128', '-passout', 'pass:sesame']);
      const options = { ca: certificates.ca, cert: certificates.client.cert, key: stdout };
      await using connection = await NbdConnection.connect(server.uri(kind.export), {
        ...options,
        passphrase: 'sesame',
      });
      await connection.pread(512, 0);
      const error = await rejection(
        NbdConnection.connect(server.uri(kind.export), { ...options, passphrase: 'simsim' }),
      );
      expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
      expect((error as Error).message).not.toContain('simsim');
      await rm(folder, { recursive: true });
    });

    it.each(['TLSv1.3', 'TLSv1.2'])(
      'refuses one without a certificate, at whatever time it reports that (%s)',
      async (version) => {
        // With TLS 1.3 the refusal comes after the client's handshake is complete.
        const tlsPriority = version === 'TLSv1.3' ? '' : 'ECDHE-ECDSA-AES128-GCM-SHA256';
        for (let i = 0; i < 5; i++) {
          const error = await rejection(
            NbdConnection.connect(server.uri(kind.export), { ca: certificates.ca, tlsPriority }),
          );
          expect(error).toMatchObject({
            name: 'NbdConnectionError',
            code: expect.stringMatching(/^(EACCES|ENOTCONN)$/),
          });
          expect((error as Error).message).toMatch(/not accept a client without a certificate \(see cert and key\)/);
        }
      },
    );

    it('refuses one whose certificate an unknown authority has signed', async () => {
      const strange = await issueStranger();
      const error = await rejection(
        NbdConnection.connect(server.uri(kind.export), { ca: certificates.ca, ...strange }),
      );
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: expect.stringMatching(/^(EACCES|ENOTCONN)$/) });
      expect((error as Error).message).toMatch(/not accept the client certificate/);
    });
  });

  describeWith([kind.name, 'openssl'], 'a server without TLS', () => {
    it('is refused where TLS is required, with nothing sent but STARTTLS and an abort', async () => {
      await using server = await kind.start('unix');
      await using proxy = await startProxy(server.address);
      for (const attempt of [
        () => connect(proxy, kind, good(kind, 'unix')),
        () => connect(proxy, kind, { ...good(kind, 'unix'), tls: TLS_REQUIRE }, 'nbd'),
      ]) {
        const error = await rejection(attempt());
        expect(error).toMatchObject({ name: 'NbdOptionError', code: expect.any(String) });
        expect((error as Error).message).toMatch(/TLS is required, but the server refused to start it/);
        expect(await saidInTheClear(proxy)).toEqual(STARTTLS_AND_ABORT);
      }
    });

    it('is used in the clear where TLS is merely allowed, and that can be seen', async () => {
      await using server = await kind.start('unix');
      for (const tls of [TLS_ALLOW, TLS_DISABLE]) {
        const connection = new NbdConnection({ tls, exportName: kind.export });
        await connection.connectUnix(server.socketPath!);
        expect(connection.getTlsNegotiated()).toBe(false);
        await connection.pread(512, 0);
        await connection.shutdown();
      }
    });
  });

  describeWith([kind.name, 'openssl'], 'a server that requires TLS', () => {
    it('refuses a client that does not use it, with an error that names TLS', async () => {
      await using server = await kind.start('unix', { folder: certificates.folder });
      const connection = new NbdConnection({ exportName: kind.export });
      const error = await rejection(connection.connectUnix(server.socketPath!));
      expect(error).toMatchObject({ name: 'NbdOptionError' });
      expect((error as Error).message).toMatch(/TLS/);
    });

    it('gives it in option mode', async () => {
      await using server = await kind.start('unix', { folder: certificates.folder });
      const connection = new NbdConnection({ optMode: true, ...good(kind, 'unix'), exportName: kind.export });
      await connection.connectUnix(server.socketPath!);
      expect(await connection.optStarttls()).toBe(true);
      await connection.optStructuredReply();
      await connection.optGo();
      expect(connection.getTlsNegotiated()).toBe(true);
      await connection.pread(512, 0);
      await connection.shutdown();
    });
  });
});

describeWith(['nbdkit', 'openssl'], 'F25: nbdkit with another export for clients without TLS', () => {
  it('gives each its own', async () => {
    const tls = { folder: certificates.folder, mode: 'on' } as const;
    await using server = await startNbdkit({ args: ['1M'], filters: ['tls-fallback'], tls });
    const options = { ca: certificates.ca, tlsHostname: 'localhost' };
    const plain = server.uri().replace('nbds', 'nbd');
    const cases: [string, NbdConnectionOptions, bigint][] = [
      [plain, {}, 512n],
      [plain, { ...options, tls: TLS_ALLOW }, 1048576n],
      [server.uri(), options, 1048576n],
    ];
    for (const [uri, given, size] of cases) {
      await using connection = await NbdConnection.connect(uri, given);
      expect(connection.getSize()).toBe(size);
      expect(connection.getTlsNegotiated()).toBe(size > 512n);
      expect(connection.isReadOnly()).toBe(size === 512n);
    }
  });
});
