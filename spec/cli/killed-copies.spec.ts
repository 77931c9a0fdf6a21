// A short soak of copies that are killed and go on; the long one is `npm run soak -- --copy`.

import { expect, it } from '@jest/globals';

import { Random } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { soakCopy } from '../soak/copy-soak.js';
import { describeWith } from '../support/real-servers.js';
import { cliPath } from './support.js';

describeWith(['nbdkit', 'qemu-nbd', 'qemu-img'], withSeed('nbd copy --checkpoint'), () => {
  it('is killed with its servers, goes on, and copies everything', async () => {
    const lines: string[] = [];
    const counts = await soakCopy({
      ...{ random: new Random(SEED), cli: await cliPath(), kills: 3, largest: 40 },
      until: performance.now() + 60_000,
      onCopy: (line) => lines.push(line),
    });
    expect([counts.copies > 0, counts.kills > 0, lines.length > 0]).toEqual([true, true, true]);
    expect(counts.worst).toBeLessThanOrEqual(1);
  }, 300_000);
});
