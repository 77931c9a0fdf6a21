// Maps of millions of extents: in bounded memory, without holding the event loop, and without asking far ahead of a slow
// consumer.

import { describe, expect, it } from '@jest/globals';

import { changes, type ExportLike, extents, mergedExtents, totals } from '../../lib/index.js';
import { FakeExport, type Runs, size } from './fake-export.js';

const A = 'base:allocation';
const B = 'qemu:dirty-bitmap:b0';
const GRAIN = 4096;
/** `EXTENTS=1200000` for a map of which nbdkit would need two replies, and for a sharper limit of memory. */
const COUNT = Number(process.env['EXTENTS'] ?? 240_000);
/** Of one reply; nbdkit sends 2^20 at the most. */
const A_REPLY = Math.ceil(COUNT * 0.85);

/** Every grain differs from the one before, in both contexts. */
function fine(count: number): ExportLike {
  const pairs = (many: number): { readonly entries: BigUint64Array } => {
    const words = new Uint32Array(many * 4);
    for (let at = 0; at < many; at++) {
      words[at * 4] = GRAIN;
      words[at * 4 + 2] = at & 1;
    }
    return { entries: new BigUint64Array(words.buffer) };
  };
  const whole = { getSize: () => BigInt(count * GRAIN) };
  const { connection } = new FakeExport({ contexts: { [A]: [], [B]: [] }, extendedHeaders: true });
  return Object.assign(connection, whole, {
    blockStatus64: async (asked: bigint) => {
      const many = Math.min(Math.ceil(Number(asked) / GRAIN), A_REPLY);
      const turn = (): Promise<void> => new Promise((done) => setImmediate(done));
      await turn();
      const first = pairs(many);
      await turn();
      return new Map([
        [A, first],
        [B, pairs(many)],
      ]);
    },
  });
}

async function counted(items: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of items) count++;
  return count;
}

describe(`a map of ${COUNT} extents`, () => {
  it.each([
    ['extents', (from) => counted(extents(from)), COUNT],
    ['mergedExtents', (from) => counted(mergedExtents(from, { contexts: [A, B] })), COUNT],
    ['changes', (from) => counted(changes(from, { bitmap: 'b0' })), COUNT / 2],
    ['totals', async (from) => Number((await totals(from, { contexts: [A, B] })).get(B)?.get(1n)) / GRAIN, COUNT / 2],
  ] as [string, (from: ExportLike) => Promise<number>, number][])(
    '%s leaves the event loop alive and keeps no list of them',
    async (_name, walk, wanted) => {
      // Processor time, which does not depend on what else the machine does.
      let [longest, since, isDone] = [0, process.cpuUsage(), false];
      const turn = (): void => {
        const { user, system } = process.cpuUsage(since);
        longest = Math.max(longest, (user + system) / 1000);
        since = process.cpuUsage();
        if (!isDone) setImmediate(turn);
      };
      setImmediate(turn);
      const before = process.memoryUsage().rss;
      let peak = 0;
      const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 10);
      expect(await walk(fine(COUNT))).toBe(wanted);
      clearInterval(timer);
      isDone = true;
      // 20 ms, ten times over: a garbage collection counts too. Without pauses it is half a second and more.
      expect(longest).toBeLessThan(200);
      // Of 1,200,000 extents, an object for each would take this and more; two answers are 64 MiB.
      expect(peak - before).toBeLessThan(250e6);
    },
  );

  it('can be given up in the middle of an answer', async () => {
    const reason = new Error('enough');
    for (const walk of [
      (signal: AbortSignal) => extents(fine(COUNT), { signal }),
      (signal: AbortSignal) => mergedExtents(fine(COUNT), { contexts: [A, B], signal }),
      (signal: AbortSignal) => changes(fine(COUNT), { bitmap: 'b0', signal }),
    ]) {
      const controller = new AbortController();
      let count = 0;
      const walking = (async () => {
        for await (const _ of walk(controller.signal)) if (++count === 1000) controller.abort(reason);
      })();
      await expect(walking).rejects.toBe(reason);
      expect(count).toBeLessThanOrEqual(1001);
    }
    const signal = AbortSignal.timeout(20);
    const adding = totals(fine(COUNT * 10), { contexts: [A], signal });
    await expect(adding).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});

it('a slow consumer is not run ahead of', async () => {
  const runs: Runs = Array.from({ length: 100_000 }, (_, at) => [size(1, 'G'), at % 2 === 0 ? 0n : 3n] as const);
  const fake = new FakeExport({ contexts: { [A]: runs } });
  const walk = mergedExtents(fake.connection, { contexts: [A] });
  await walk.next();
  let asked = -1;
  while (asked !== fake.asked.length) {
    asked = fake.asked.length;
    for (let turn = 0; turn < 20; turn++) await new Promise((done) => setImmediate(done));
  }
  expect(asked).toBeGreaterThanOrEqual(8);
  expect(asked).toBeLessThanOrEqual(8 * 9 + 2);
  await walk.return();
});
