// STARTTLS against a scripted peer, with certificates of this test's own.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, TLS_REQUIRE } from '../../lib/index.js';
import { type PeerScript, ScriptedPeer } from '../../lib/testing/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith } from '../support/tools.js';
import { STARTTLS_CASES } from './cases/starttls.js';
import { on, OPT, R, REP, tls } from './notation.js';
import { outcomeName } from './outcomes.js';
import { printVerdicts, runCase } from './runner.js';

afterAll(printVerdicts);

describeWith(['openssl'], 'STARTTLS', () => {
  let certificates: Certificates;
  beforeAll(async () => {
    certificates = await makeCertificates();
  });
  afterAll(() => certificates.remove());

  for (const row of STARTTLS_CASES) {
    it(`${row.id} ${row.what}: ${row.expected.map(outcomeName).join('|')}`, () =>
      runCase(row, {
        script: { tls: certificates.server },
        client: { ca: certificates.ca, tlsHostname: 'localhost' },
      }));
  }

  describe('verification', () => {
    const attempt = async (client: NbdConnectionOptions, script: PeerScript = {}) => {
      await using peer = await ScriptedPeer.listen({
        tls: certificates.server,
        on: [on(OPT.STARTTLS, [REP(OPT.STARTTLS, R.ACK), tls()])],
        ...script,
      });
      const connection = new NbdConnection({ tls: TLS_REQUIRE, connectTimeout: 60_000, ...client });
      try {
        await connection.connectUnix(peer.socketPath!);
        return { error: undefined, record: peer.connection };
      } catch (error) {
        await peer.connection.done;
        return { error: error as NodeJS.ErrnoException & { cause?: { code?: string } }, record: peer.connection };
      } finally {
        connection.close();
      }
    };

    it.each<[string, string, () => [NbdConnectionOptions, PeerScript?]]>([
      ['an unknown CA', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', () => [{ tlsHostname: 'localhost' }]],
      [
        'an expired certificate',
        'CERT_HAS_EXPIRED',
        () => [{ ca: certificates.ca, tlsHostname: 'localhost' }, { tls: certificates.expired }],
      ],
      ['another name', 'ERR_TLS_CERT_ALTNAME_INVALID', () => [{ ca: certificates.ca, tlsHostname: 'example.org' }]],
    ])('refuses %s', async (_what, code, make) => {
      const { error, record } = await attempt(...make());
      expect(error).toBeInstanceOf(Error);
      expect(error?.code).toBeTruthy();
      expect(error?.cause?.code ?? error?.code).toBe(code);
      expect(record.options.filter((option) => option.tls)).toEqual([]);
      expect(record.options.map(({ option }) => option)).toEqual([OPT.STARTTLS]);
    });

    it('needs no name on a Unix socket if an authority of its own is set', async () => {
      expect((await attempt({ ca: certificates.ca })).error).toBeUndefined();
    });

    it('does not verify when tlsVerifyPeer is false', async () => {
      expect((await attempt({ tlsVerifyPeer: false })).error).toBeUndefined();
    });

    it('rejects when the server demands a certificate that is not there', async () => {
      const demanding = { ...certificates.server, ca: certificates.ca, requestCert: true };
      const { error } = await attempt({ ca: certificates.ca, tlsHostname: 'localhost' }, { tls: demanding });
      expect(error?.code).toBeTruthy();
      const { cert, key } = certificates.client;
      const given = { ca: certificates.ca, tlsHostname: 'localhost', cert, key };
      expect((await attempt(given, { tls: demanding })).error).toBeUndefined();
    });
  });
});
