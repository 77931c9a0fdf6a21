// The short run of what `npm run fuzz` does at length: more than 5000 inputs, and 20,000 with `npm run test:long`.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { IS_LONG } from '../support/long.js';
import { FAMILIES } from './families.js';
import { describeFailure, type Family, fuzz } from './family.js';
import { countBuffers } from './memory.js';
import { Random } from './random.js';
import { SEED, withSeed } from './seed.js';

const INPUTS = IS_LONG ? 4000 : 1000;

let uncount: () => void;
beforeAll(() => {
  uncount = countBuffers();
});
afterAll(() => uncount());

describe(withSeed('mutated streams'), () => {
  it.each(FAMILIES.map(({ family, share }) => [family.name, family, share] as const))(
    '%s: the outcome is what the stream contains, and nothing else',
    async (_name, family, share) => {
      const report = await fuzz(family, family.examples(SEED), { seed: SEED, inputs: INPUTS * share });
      expect(report.failure === null ? null : describeFailure(report.failure)).toBeNull();
      expect(report.inputs).toBe(INPUTS * share);
      // An oracle that sees one ending only would not see much.
      expect(report.endings.size).toBeGreaterThan(1);
    },
    1_200_000,
  );
});

describe(withSeed('the examples themselves'), () => {
  it.each(FAMILIES.map(({ family }) => [family.name, family] as const))('%s', async (_name, family) => {
    for (const example of family.examples(SEED)) {
      try {
        await family.check(example, example.bytes, new Random(SEED));
      } catch (error) {
        throw new Error(example.origin, { cause: error });
      }
    }
  });
});

describe('the fuzzer', () => {
  const broken: Family = {
    name: 'broken',
    shapes: [],
    examples: () => [{ origin: 'zeroes', bytes: Buffer.alloc(64) }],
    check: (_example, bytes) => {
      const at = bytes.indexOf(0xff);
      if (at >= 0) throw new Error(`a bad byte at ${at}`);
      return 'good';
    },
  };

  it('finds what fails, repeats it, and makes it small', async () => {
    const { failure } = await fuzz(broken, broken.examples(1), { seed: 1, inputs: 10_000 });
    expect(failure).toMatchObject({ family: 'broken', seed: 1, origin: 'zeroes', minimal: 'ff' });
    const again = await fuzz(broken, broken.examples(1), { seed: 1, first: failure?.input ?? -1, inputs: 1 });
    expect(again.failure?.bytes).toBe(failure?.bytes);
  });
});
