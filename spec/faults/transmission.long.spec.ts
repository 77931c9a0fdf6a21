// What transmission.spec.ts tries on a Unix socket, over TCP and over TLS.

import { afterAll, beforeAll } from '@jest/globals';

import { TLS_REQUIRE } from '../../lib/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { GROUPS, TLS_GROUPS } from './cases.js';
import { Ground } from './runner.js';
import { SERVED, tryAll } from './try-all.js';

describeWith(['nbdkit'], 'faults on the way to nbdkit over TCP', () => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.prepare(await startNbdkit({ ...SERVED, transport: 'tcp' }));
  });
  afterAll(() => ground[Symbol.asyncDispose]());
  tryAll('tcp', GROUPS, () => ground);
});

describeWith(['nbdkit', 'openssl'], 'faults on the way to nbdkit over TLS', () => {
  let certificates: Certificates;
  let ground: Ground;
  beforeAll(async () => {
    certificates = await makeCertificates();
    const { folder, ca } = certificates;
    const server = await startNbdkit({ ...SERVED, transport: 'tcp', tls: { folder } });
    ground = await Ground.prepare(server, { tls: TLS_REQUIRE, ca, tlsHostname: 'localhost' });
  });
  afterAll(async () => {
    await ground[Symbol.asyncDispose]();
    await certificates.remove();
  });
  tryAll('TLS', TLS_GROUPS, () => ground);
});
