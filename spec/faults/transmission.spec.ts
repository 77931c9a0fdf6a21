// Faults between the client and a real server, while commands are on their way. FAULT_TABLE=1 prints every row.
// transmission.long.spec.ts has the same over TCP and TLS.

import { afterAll, beforeAll } from '@jest/globals';

import { startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { GROUPS } from './cases.js';
import { Ground } from './runner.js';
import { SERVED, tryAll } from './try-all.js';

describeWith(['nbdkit'], 'faults on the way to nbdkit over a Unix socket', () => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.prepare(await startNbdkit({ ...SERVED, transport: 'unix' }));
  });
  afterAll(() => ground[Symbol.asyncDispose]());
  const groups = GROUPS.filter(({ kind }) => kind !== 'reset');
  tryAll('unix', groups, () => ground);
});
