// Faults between the client and a real server, while commands are on their way. FAULT_TABLE=1 prints every row.
// Each fault strikes at each moment in a third of the commands, which the seed chooses, and in all of them with `npm run
// test:long`. transmission.long.spec.ts has the same over TCP and TLS.

import { afterAll, beforeAll } from '@jest/globals';

import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';
import { startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { GROUPS } from './cases.js';
import { Ground } from './runner.js';
import { SERVED, tryAll } from './try-all.js';

describeWith(['nbdkit'], withSeed('faults on the way to nbdkit over a Unix socket'), () => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.prepare(await startNbdkit({ ...SERVED, transport: 'unix' }));
  });
  afterAll(() => ground[Symbol.asyncDispose]());
  const groups = GROUPS.filter(({ kind }) => kind !== 'reset').map((group, at) => ({
    ...group,
    commands: group.commands.filter((_, index) => IS_LONG || (index + at + SEED) % 3 === 0),
  }));
  tryAll('unix', groups, () => ground);
});
