// TLS where the server can be started with it, and what happens where only one side wants it.

import { expect } from '@jest/globals';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import * as nbd from '../../../lib/index.js';
import { DATA, pattern } from '../image.js';
import { completed, expectBytes, failure, type Group, OK, type Rung, type Stage, type Verdict } from '../rung.js';
import { type TcpPlace } from '../servers.js';

/** Less than a rung's block, more than one TLS record. */
const LENGTH = 40_000;

/** A rung for servers that could be started with TLS; the others report why they could not. */
const secure =
  (run: (place: TcpPlace, stage: Stage) => Promise<Verdict>): Rung =>
  async (stage) =>
    'no' in stage.server.secure ? stage.server.secure : run(stage.server.secure, stage);

/** A connection with what it takes for TLS, connected to the place. */
async function opened({ create, server }: Stage, place: TcpPlace, options: nbd.NbdConnectionOptions = {}) {
  const c = create({ tls: nbd.TLS_REQUIRE, ...server.credentials, ...options });
  await c.connectTcp(place.host, place.port);
  return c;
}

async function reads(c: nbd.NbdConnection): Promise<typeof OK> {
  expect(c.getTlsNegotiated()).toBe(true);
  expectBytes(await c.pread(5000, 50), pattern(50, 5000));
  return OK;
}

export const TLS: Group = {
  name: 'TLS',
  rungs: {
    TLS_REQUIRE: secure(async (place, stage) => reads(await opened(stage, place))),
    'TLS_ALLOW takes it where it is': secure(async (place, stage) =>
      reads(await opened(stage, place, { tls: nbd.TLS_ALLOW })),
    ),
    'an nbds URI': secure(async (place, { create, server }) => {
      const c = create(server.credentials);
      await c.connectUri(place.uri);
      expect(c.getTls()).toBe(nbd.TLS_REQUIRE);
      return reads(c);
    }),
    'a MiB, and many reads at once': secure(async (place, stage) => {
      const c = await opened(stage, place);
      expectBytes(await c.pread(DATA, 0), pattern(0, DATA));
      const all = await Promise.all(Array.from({ length: 50 }, (_, i) => c.pread(1000, i * 999)));
      all.forEach((bytes, i) => expectBytes(bytes, pattern(i * 999, 1000)));
      return OK;
    }),
    'a write': secure(async (place, stage) => {
      const c = await opened(stage, place);
      await c.pwrite(Buffer.alloc(LENGTH, 0x42), stage.scratch);
      expectBytes(await c.pread(LENGTH, stage.scratch), Buffer.alloc(LENGTH, 0x42));
      return OK;
    }),
    'statistics count plaintext': secure(async (place, stage) => {
      const c = await opened(stage, place, { requestStructuredReplies: false });
      const before = [c.statsBytesSent(), c.statsBytesReceived()] as const;
      await c.pread(5000, 0);
      expect([c.statsBytesSent() - before[0], c.statsBytesReceived() - before[1]]).toEqual([28n, 5016n]);
      return OK;
    }),
    optStarttls: secure(async (place, stage) => {
      const c = await opened(stage, place, { tls: nbd.TLS_DISABLE, optMode: true });
      expect(c.getTlsNegotiated()).toBe(false);
      expect(await c.optStarttls()).toBe(true);
      expect([c.getTlsNegotiated(), c.getStructuredRepliesNegotiated()]).toEqual([true, false]);
      await c.optGo();
      return reads(c);
    }),
    aioOptStarttls: secure(async (place, stage) => {
      const c = await opened(stage, place, { tls: nbd.TLS_DISABLE, optMode: true });
      expect(await completed((done) => c.aioOptStarttls(done))).toBeNull();
      await c.optGo();
      return reads(c);
    }),
    'option mode after TLS': secure(async (place, stage) => {
      const c = await opened(stage, place, { optMode: true });
      expect(c.getTlsNegotiated()).toBe(true);
      await c.optGo();
      return reads(c);
    }),
    'a server that requires TLS is reported as such': secure(async (place, stage) => {
      const error = await failure(opened(stage, place, { tls: nbd.TLS_DISABLE }));
      expect(error).toMatchObject({ code: 'ENOTSUP', name: 'NbdOptionError' });
      return OK;
    }),
    'an authority that is not trusted': secure(async (place, stage) => {
      const ca = await readFile(join(stage.server.strangers, 'ca-cert.pem'), 'utf8');
      const error = await failure(opened(stage, place, { ca }));
      expect([error.code, error.name]).toEqual(['EACCES', 'NbdConnectionError']);
      expect(error.message).toMatch(/certificate/);
      return OK;
    }),
    'the wrong name': secure(async (place, stage) => {
      const error = await failure(opened(stage, place, { tlsHostname: 'elsewhere.example' }));
      expect(error.code).toBe('EACCES');
      expect(error.message).toMatch(/elsewhere\.example/);
      return OK;
    }),
    'the wrong name, unverified': secure(async (place, stage) =>
      reads(await opened(stage, place, { tlsHostname: 'elsewhere.example', tlsVerifyPeer: false })),
    ),
    'TLS_ALLOW goes on without where it is not': async (stage) => {
      const { readOnly } = stage.server;
      const c = await opened(stage, { ...readOnly }, { tls: nbd.TLS_ALLOW });
      expect(c.getTlsNegotiated()).toBe(false);
      expectBytes(await c.pread(512, 0), pattern(0, 512));
      return OK;
    },
    'TLS_REQUIRE does not': async (stage) => {
      expect(await failure(opened(stage, stage.server.readOnly))).toMatchObject({ code: 'ENOTSUP' });
      return OK;
    },
    'TLS_REQUIRE does not, in plain newstyle': async (stage) => {
      const error = await failure(opened(stage, stage.server.readOnly, { handshakeFlags: 0 }));
      expect(error).toMatchObject({ code: 'ENOTSUP' });
      return OK;
    },
    'a clean end': secure(async (place, stage) => {
      const c = await opened(stage, place);
      await c.pread(512, 0);
      await c.shutdown();
      expect([c.connectionState(), c.getTlsNegotiated()]).toEqual(['closed', true]);
      return OK;
    }),
  },
};
