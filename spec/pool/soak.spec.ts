// A short soak of each kind; the long one is `npm run soak -- --pool`.

import { expect, it } from '@jest/globals';

import { Random } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { soakPool } from '../soak/pool-soak.js';
import { IS_LONG } from '../support/long.js';
import { describeWith } from '../support/real-servers.js';

describeWith(['nbdkit'], withSeed('nbdkit'), () => {
  it.each([
    ['on', 'without', true, false],
    ['on', 'with', true, true],
    ['off', 'without', false, false],
    ['off', 'with', false, true],
  ])(
    'that is killed and restarted, multi-conn %s, a pool %s rewrite: what a flush has covered is there, what is not is reported',
    async (_multiConn, _rewrite, isMultiConn, isRewriting) => {
      const random = new Random(SEED);
      const until = performance.now() + 60_000;
      const counts = await soakPool({ random, kills: IS_LONG ? 6 : 2, until, isMultiConn, isRewriting });
      expect(counts['kills']).toBe(IS_LONG ? 7 : 3);
      expect(counts['reconnects']).toBeGreaterThan(0);
    },
    120_000,
  );
});
