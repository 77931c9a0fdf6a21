// Faults between the client and a real server, while commands are on their way. FAULT_TABLE=1 prints every row.

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import { TLS_REQUIRE } from '../../lib/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { leftovers, resources } from '../support/leftovers.js';
import { startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { type FaultGroup, GROUPS, TLS_GROUPS } from './cases.js';
import { judge, printRows } from './invariants.js';
import { Ground, runCase } from './runner.js';

afterAll(printRows);

function tryAll(over: string, groups: readonly FaultGroup[], ground: () => Ground): void {
  it.each(groups.map((group) => [group.title, group] as const))('%s', async (title, { expected, commands }) => {
    const before = resources();
    const name = `${title}, ${over}`;
    const rows = commands.map(([command, fault]) => runCase(ground(), command, fault, expected, name));
    judge(await Promise.all(rows));
    expect(await leftovers(before)).toEqual([]);
  });
}

// With one thread nbdkit answers in the order of the requests: the first reply is that of the command under test.
const SERVED = { args: ['4G'], options: ['-t1'] };

for (const transport of ['tcp', 'unix'] as const) {
  describeWith(['nbdkit'], `faults on the way to nbdkit over ${transport}`, () => {
    let ground: Ground;
    beforeAll(async () => {
      ground = await Ground.prepare(await startNbdkit({ ...SERVED, transport }));
    });
    afterAll(() => ground[Symbol.asyncDispose]());
    tryAll(transport, transport === 'tcp' ? GROUPS : GROUPS.filter(({ kind }) => kind !== 'reset'), () => ground);
  });
}

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
