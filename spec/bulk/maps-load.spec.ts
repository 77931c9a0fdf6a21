// Maps of millions of extents: in bounded memory, without holding the event loop, and without asking far ahead of a slow
// consumer.

import { openSync, readSync } from 'node:fs';

import { describe, expect, it } from '@jest/globals';

import { changes, type ExportLike, extents, mergedExtents, totals } from '../../lib/index.js';
import { IS_LONG } from '../support/long.js';
import { FakeExport, type Runs, size } from './fake-export.js';

const A = 'base:allocation';
const B = 'qemu:dirty-bitmap:b0';
const GRAIN = 4096;
/** `EXTENTS=10000000` for the map of a long run. */
const COUNT = Number(process.env['EXTENTS'] ?? (IS_LONG ? 1_000_000 : 120_000));
/** Extents of one reply, at the most: as many as nbdkit sends. */
const A_REPLY = Math.min(Math.ceil(COUNT * 0.85), 2 ** 20);

/** The reply from an even grain on: every grain differs from the one before. Made once, so that this is not what is measured. */
const reply = (() => {
  const words = new Uint32Array(A_REPLY * 4);
  for (let at = 0; at < A_REPLY; at++) {
    words[at * 4] = GRAIN;
    words[at * 4 + 2] = at & 1;
  }
  return new BigUint64Array(words.buffer);
})();

/** Every grain differs from the one before, in both contexts. */
function fine(count: number): ExportLike {
  const whole = { getSize: () => BigInt(count * GRAIN) };
  const { connection } = new FakeExport({ contexts: { [A]: [], [B]: [] }, extendedHeaders: true });
  return Object.assign(connection, whole, {
    blockStatus64: async (asked: bigint, offset: bigint) => {
      await new Promise((done) => setImmediate(done));
      const odd = Number(offset / BigInt(GRAIN)) & 1;
      const many = Math.min(Number((asked + BigInt(GRAIN) - 1n) / BigInt(GRAIN)), A_REPLY - odd);
      // Views, since a copy of 16 MiB is 20 ms of page faults. Nothing here begins within an extent, and so is changed.
      const entries = reply.subarray(odd * 2, (odd + many) * 2);
      return new Map([A, B].map((name) => [name, { entries }]));
    },
  });
}

/** Processor time of this thread in milliseconds, which does not depend on what else the machine does. */
const ownTime = ((): (() => number) => {
  try {
    const file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
    const bytes = Buffer.alloc(100);
    return () => {
      // Brings that file up to date, which otherwise is as of the last tick.
      process.cpuUsage();
      return Number(bytes.toString('latin1', 0, readSync(file, bytes, 0, 100, 0)).split(' ')[0]) / 1e6;
    };
  } catch {
    return () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    };
  }
})();

/** Runs `work`; resolves with its result, and the turns of the event loop that took longest, the longest first. */
async function turnsOf<Result>(work: () => Promise<Result>): Promise<{ result: Result; turns: number[] }> {
  const turns: number[] = [];
  let [since, isDone] = [ownTime(), false];
  const turn = (): void => {
    const now = ownTime();
    if (now - since > 5) turns.push(now - since);
    since = now;
    if (!isDone) setImmediate(turn);
  };
  setImmediate(turn);
  const result = await work();
  isDone = true;
  return { result, turns: turns.sort((a, b) => b - a) };
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
    async (name, walk, wanted) => {
      const before = process.memoryUsage().rss;
      let peak = 0;
      const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 10);
      const { result, turns } = await turnsOf(() => walk(fine(COUNT)));
      clearInterval(timer);
      if (process.env['EXTENTS'] !== undefined) {
        process.stderr.write(
          `${name}: longest turns ${turns
            .slice(0, 5)
            .map((ms) => ms.toFixed(1))
            .join(', ')} ms, ` + `${((peak - before) / 1e6).toFixed(0)} MB\n`,
        );
      }
      expect(result).toBe(wanted);
      // 20 ms are promised; a collection of garbage counts too, and a busy machine is slower. Without pauses it is half a
      // second and more.
      expect(turns[0] ?? 0).toBeLessThan(100);
      // Of ten million extents, an object for each would take ten times as much.
      expect(peak - before).toBeLessThan(150e6);
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
