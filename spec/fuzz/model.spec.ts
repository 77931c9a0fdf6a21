// Random lives of a connection against the account that model.ts keeps.

import { afterAll, describe, expect, it } from '@jest/globals';

import { IS_LONG } from '../support/long.js';
import { openRaw } from '../support/raw-server.js';
import { Model } from './model.js';
import { Random, seedOf } from './random.js';
import { SEED, withSeed } from './seed.js';

const LIVES = Number(process.env['LIVES'] ?? (IS_LONG ? 600 : 120));
const STEPS = 120;

describe(withSeed('the life of a connection'), () => {
  const counts: Record<string, number> = {};

  it(
    'goes as the model predicts, whatever is called, aborted, answered or broken',
    async () => {
      for (let life = 0; life < LIVES; life++) {
        const model = await Model.open(new Random(seedOf(SEED, life)));
        try {
          await model.run(STEPS);
        } catch (error) {
          const message = `life ${life} of seed ${SEED}: ${(error as Error).message}\n${model.log.slice(-40).join(', ')}`;
          throw new Error(message, { cause: error });
        }
        for (const [what, count] of Object.entries(model.counts)) counts[what] = (counts[what] ?? 0) + count;
      }
    },
    120_000 + 50 * LIVES,
  );

  it('has seen everything that it is about', () => {
    const kinds = ['pread', 'pwrite', 'cache', 'flush', 'trim', 'zero', 'blockStatus'];
    const needed = [
      ...kinds,
      ...kinds.map((kind) => `aio ${kind}`),
      ...['answer', 'abort', 'retire', 'refused', 'drain', 'balance'],
      ...['close', 'shutdown', 'shutdown, abandoning', 'disconnect', 'fault', 'ESHUTDOWN'],
    ];
    expect(needed.filter((what) => (counts[what] ?? 0) === 0)).toEqual([]);
  });

  afterAll(() => {
    if (process.env['LIVES'] !== undefined) process.stdout.write(`${JSON.stringify(counts)}\n`);
  });
});

// Found by the model: the smaller one went out only when the next reply came.
it('what waits behind one that is too large goes out when that one is aborted', async () => {
  const { connection, peer } = await openRaw({ over: 'memory', client: { maxInFlightBytes: 8192 } });
  const controller = new AbortController();
  const first = connection.pread(8192, 0);
  const large = connection.pread(8192, 8192, 0, controller.signal);
  const small = connection.flush();
  const request = await peer.request();
  // The line is a p-queue, which begins with what is in it a few microtasks later.
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort('not needed');
  await expect(large).rejects.toBe('not needed');
  peer.answer(await peer.request());
  await small;
  peer.answer(request);
  await first;
});
