// Block status asked ahead: how many questions are in flight, how long they are, and that what they report is exact,
// whatever the shape of the answers.

import { describe, expect, it } from '@jest/globals';

import {
  extents,
  mergedExtents,
  NbdCommandError,
  NbdProtocolError,
  NbdQueueFullError,
  SIZE_MINIMUM,
} from '../../lib/index.js';
import { factsOf } from '../../lib/bulk/facts.js';
import { askAhead } from '../../lib/bulk/maps/look-ahead.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { rejection } from '../support/caught.js';
import { IS_LONG } from '../support/long.js';
import { all, type Asked, FakeExport, type FakeOptions, type Runs, size, sizeOf } from './fake-export.js';

const A = 'base:allocation';

/** A map of `total` bytes in runs of `run`, data and hole by turns. */
const alternating = (total: bigint, run: bigint): Runs =>
  Array.from({ length: Number(total / run) }, (_, index) => [run, index % 2 === 0 ? 0n : 3n] as const);

/** Of each context's answer the first `most` pairs. */
const firstPairs =
  (most: number): NonNullable<FakeOptions['answer']> =>
  (found) =>
    new Map([...found].map(([name, pairs]) => [name, pairs.slice(0, most * 2)]));

describe('how questions are asked', () => {
  it('asks 8 at a time: a map of 8 TiB takes an eighth of the round trips, with 32-bit block status', async () => {
    const runs = alternating(size(8, 'T'), size(64, 'G'));
    const oneByOne = new FakeExport({ contexts: { [A]: runs } });
    const ahead = new FakeExport({ contexts: { [A]: runs } });
    const wanted = await all(extents(oneByOne.connection, { questions: 1 }));
    expect(wanted).toHaveLength(128);
    expect(await all(extents(ahead.connection))).toEqual(wanted);
    expect(oneByOne.mostInFlight).toBe(1);
    expect(oneByOne.rounds).toBeGreaterThanOrEqual(2048);
    expect(ahead.mostInFlight).toBe(8);
    expect(ahead.asked.length).toBeLessThanOrEqual(oneByOne.asked.length + 1);
    expect(ahead.rounds).toBeLessThanOrEqual(0.2 * oneByOne.rounds);
    expect(ahead.overlaps()).toBe(1);
  });

  it('asks about everything at once with extended headers', async () => {
    const fake = new FakeExport({ contexts: { [A]: alternating(size(8, 'T'), size(64, 'G')) }, extendedHeaders: true });
    expect(await all(extents(fake.connection))).toHaveLength(128);
    expect(fake.asked).toEqual([{ offset: 0n, count: size(8, 'T'), number: 0 }]);
  });

  it('waits for the first answer before it asks ahead', async () => {
    const fake = new FakeExport({ contexts: { [A]: alternating(size(64, 'G'), size(1, 'G')) } });
    let inFlight = 0;
    const blockStatus = fake.connection.blockStatus64 as unknown as (...args: unknown[]) => Promise<unknown>;
    const most: number[] = [];
    const connection = {
      ...fake.connection,
      blockStatus64: async (...args: unknown[]) => {
        most.push(++inFlight);
        const reply = await blockStatus(...args);
        inFlight--;
        return reply;
      },
    } as unknown as typeof fake.connection;
    await all(extents(connection));
    expect(most.slice(0, 9)).toEqual([1, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it.each([
    ['one extent an answer', alternating(size(64, 'G'), size(8, 'M')), firstPairs(1)],
    ['three extents an answer', alternating(size(64, 'G'), size(4, 'M')), firstPairs(3)],
    [
      'at most 64 MiB an answer',
      alternating(size(64, 'G'), size(1, 'G')),
      (found: Map<string, bigint[]>) =>
        new Map([...found].map(([name, [length = 0n, flags = 0n]]) => [name, [least(length, size(64, 'M')), flags]])),
    ],
  ] as const)(
    'keeps 8 in flight where the server answers with %s, and never asks twice',
    async (_what, runs, answer) => {
      const reached: bigint[] = [];
      const options: FakeOptions = {
        contexts: { [A]: runs },
        answer: (found, asked) => {
          const short = answer(found, asked);
          reached[asked.number] = lengthOf(short.get(A) ?? []);
          return short;
        },
      };
      const oneByOne = new FakeExport(options);
      const wanted = await all(extents(oneByOne.connection, { questions: 1 }));
      const ahead = new FakeExport(options);
      expect(await all(extents(ahead.connection))).toEqual(wanted);
      expect(ahead.rounds).toBeLessThanOrEqual(0.25 * oneByOne.rounds);
      // Each piece of the range costs one answer that is cut short.
      expect(ahead.asked.length).toBeLessThanOrEqual(1.3 * oneByOne.asked.length);
      // Whatever was asked, no byte was reported twice.
      expect(ahead.overlaps(({ number }) => reached[number] as bigint)).toBe(1);
    },
  );

  it('asks for less after short answers, and for more again after complete ones', async () => {
    const dense = alternating(size(1, 'G'), size(64, 'K'));
    const runs: Runs = [[size(1, 'T'), 3n], ...dense, [size(1, 'T'), 3n]];
    const fake = new FakeExport({ contexts: { [A]: runs }, answer: firstPairs(1000) });
    const found = await all(extents(fake.connection));
    expect(found).toHaveLength(dense.length + 2 - 1);
    // Two sparse TiB in questions of 4 GiB, and a dense GiB in 17 answers of 1000 extents.
    expect(fake.asked.length).toBeLessThan(512 + 100);
    expect(fake.asked.at(-2)?.count).toBe(2n ** 32n - 512n);
  });

  it('uses an answer that reaches beyond its question, where nothing was asked about what is there', async () => {
    const total = size(64, 'G');
    const fake = new FakeExport({
      contexts: { [A]: [[total, 3n]] },
      answer: (_found, { offset }) => new Map([[A, [total - offset, 3n]]]),
    });
    expect(await all(extents(fake.connection))).toEqual([{ offset: 0n, length: total, flags: 3n }]);
    expect(fake.asked).toHaveLength(1);
  });

  it('holds fewer questions in flight where answers are very large', async () => {
    const GRAIN = 4096n;
    const PAIRS = 2 ** 18;
    const answer = new BigUint64Array(PAIRS * 2).fill(GRAIN);
    for (let at = 0; at < PAIRS; at++) answer[at * 2 + 1] = BigInt(at % 2);
    let [inFlight, most] = [0, 0];
    const fake = new FakeExport({ contexts: { [A]: [[GRAIN * BigInt(PAIRS * 24), 0n]] } });
    const connection = {
      ...fake.connection,
      blockStatus64: async () => {
        most = Math.max(most, ++inFlight);
        await new Promise((done) => setImmediate(done));
        inFlight--;
        return new Map([[A, { entries: answer }]]);
      },
    } as unknown as typeof fake.connection;
    const question = { start: 0n, end: fake.size, contexts: [A], syscall: 'extents' };
    let reached = 0n;
    for await (const { start, end } of askAhead(connection, factsOf(connection, 'extents'), question)) {
      expect(start).toBe(reached);
      reached = end;
    }
    expect(reached).toBe(fake.size);
    expect(most).toBeGreaterThanOrEqual(2);
    expect(most).toBeLessThanOrEqual(4);
  });

  it('keeps `step` and the number of `questions`', async () => {
    const fake = new FakeExport({ contexts: { [A]: alternating(size(64, 'M'), size(1, 'M')) }, minimum: 4096 });
    await all(extents(fake.connection, { step: 100_000, questions: 3, offset: 5000, length: 30_000_000 }));
    expect(fake.mostInFlight).toBe(3);
    expect(fake.asked[0]).toMatchObject({ offset: 4096n, count: 98_304n });
    expect(fake.asked.every(({ count }) => count <= 98_304n)).toBe(true);
    expect(fake.asked.every(({ offset, count }) => offset % 4096n === 0n && count % 4096n === 0n)).toBe(true);
    expect(fake.overlaps()).toBe(1);
  });

  it('asks less at a time where the connection does not take as many', async () => {
    let inFlight = 0;
    const fake = new FakeExport({ contexts: { [A]: alternating(size(64, 'G'), size(1, 'G')) } });
    const blockStatus = fake.connection.blockStatus64 as unknown as (...args: unknown[]) => Promise<unknown>;
    const connection = {
      ...fake.connection,
      blockStatus64: async (...args: unknown[]) => {
        if (inFlight === 2) throw new NbdQueueFullError('full', { code: 'EAGAIN' });
        inFlight++;
        const reply = await blockStatus(...args);
        inFlight--;
        return reply;
      },
    } as unknown as typeof fake.connection;
    expect(await all(extents(connection))).toHaveLength(64);
  });
});

const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const lengthOf = (pairs: readonly bigint[]): bigint =>
  pairs.reduce((sum, value, index) => (index % 2 === 0 ? sum + value : sum), 0n);

describe('failures', () => {
  const runs = alternating(size(64, 'G'), size(1, 'G'));
  const failing = (which: (asked: Asked) => boolean): FakeExport =>
    new FakeExport({
      contexts: { [A]: runs },
      answer: (found, asked) => {
        if (which(asked)) throw new NbdCommandError('broken', { code: 'EIO', offset: asked.offset });
        return found;
      },
    });

  it.each([0n, 5n, 15n])(
    'reports the first in order, when what comes before it was yielded: question %i',
    async (nth) => {
      const bad = nth * (2n ** 32n - 512n);
      const fake = failing(({ offset }) => offset >= bad);
      const walk = extents(fake.connection, { merge: false });
      let reached = 0n;
      const error = await rejection(
        (async () => {
          for await (const { offset, length } of walk) reached = offset + length;
        })(),
      );
      expect(error).toMatchObject({ name: 'NbdCommandError', code: 'EIO', offset: bad });
      expect(reached).toBe(bad);
      // Nothing more was asked when the first failure had come.
      expect(fake.asked.length).toBeLessThanOrEqual(Number(nth) + 8 + 8);
    },
  );

  it('asks for the rest of a short answer although a later question has failed', async () => {
    const fake = new FakeExport({
      contexts: { [A]: runs },
      answer: (found, asked) => {
        if (asked.offset >= size(32, 'G')) throw new NbdCommandError('broken', { code: 'EIO', offset: asked.offset });
        return firstPairs(1)(found, asked);
      },
    });
    let reached = 0n;
    const error = await rejection(
      (async () => {
        for await (const { offset, length } of extents(fake.connection)) reached = offset + length;
      })(),
    );
    expect(error).toMatchObject({ code: 'EIO' });
    expect(reached).toBe(size(31, 'G'));
  });

  it.each([
    ['no extent', new Map([[A, []]])],
    ['not the context', new Map([['other:context', [2n ** 30n, 0n]]])],
    ['extents of length 0', new Map([[A, [0n, 0n]]])],
  ])('is EPROTO for a reply with %s', async (_what, reply) => {
    const fake = new FakeExport({ contexts: { [A]: runs }, answer: () => reply });
    const error = await rejection(all(extents(fake.connection)));
    expect(error).toBeInstanceOf(NbdProtocolError);
    expect(error).toMatchObject({ code: 'EPROTO', offset: 0n });
  });
});

describe(withSeed('maps of every shape'), () => {
  it('are exact', async () => {
    for (let number = 0; number < (IS_LONG ? 400 : 100); number++) {
      const random = new Random(seedOf(SEED, number));
      await exact(random, number);
    }
  }, 120_000);

  /** Random runs, neighbours of the same flags among them, that add up to `total`. */
  function randomRuns(random: Random, total: bigint, unit: bigint): Runs {
    const runs: [bigint, bigint][] = [];
    for (let left = total; left > 0n;) {
      const length = least(left, unit * BigInt(random.pick([1, 1, 2, 3, 10, 100])));
      runs.push([length, random.pick([0n, 0n, 1n, 3n, 2n ** 40n])]);
      left -= length;
    }
    return runs;
  }

  async function exact(random: Random, number: number): Promise<void> {
    const minimum = random.pick([1, 1, 512, 4096]);
    const unit = BigInt(random.pick([minimum, 4096, 2 ** 20, 2 ** 28]));
    const total = unit * BigInt(random.between(1, 400)) + BigInt(random.oneIn(3) ? random.below(minimum) : 0);
    const names = [A, 'qemu:dirty-bitmap:b', 'x:y'].slice(0, random.between(1, 3));
    const contexts = Object.fromEntries(names.map((name) => [name, randomRuns(random, total, unit)]));
    const style = random.pick(['full', 'short', 'one', 'long', 'mixed'] as const);
    const fake = new FakeExport({
      contexts,
      minimum,
      extendedHeaders: random.oneIn(2),
      answer: (found, asked) =>
        new Map(
          [...found].map(([name, pairs]) => {
            const how = style === 'mixed' ? random.pick(['full', 'short', 'one', 'long'] as const) : style;
            if (how === 'one') return [name, pairs.slice(0, 2)];
            if (how === 'short') return [name, pairs.slice(0, 2 * random.between(1, pairs.length / 2))];
            if (how === 'full' || pairs.length === 0) return [name, pairs];
            // The last extent at its whole length, beyond the question.
            const runs = contexts[name] as Runs;
            const end = asked.offset + asked.count;
            let at = 0n;
            const last = runs.find(([length]) => (at += length) >= end);
            expect(last).toBeDefined();
            pairs[pairs.length - 2] = (pairs.at(-2) as bigint) + (at - end);
            return [name, pairs];
          }),
        ),
    });
    // At least one block is known after each answer, as the protocol has it.
    const from = (total * BigInt(random.below(100))) / 100n;
    const offset = random.oneIn(2) ? 0n : from;
    const length = random.oneIn(2) ? total - offset : ((total - offset) * BigInt(random.below(101))) / 100n;
    const step = random.oneIn(2) ? {} : { step: unit * BigInt(random.between(1, 50)) };
    const questions = random.pick([1, 2, 8, 20]);
    const options = { contexts: names, offset, length, questions, ...step };
    const found = await all(mergedExtents(fake.connection, options));
    expect([number, found]).toEqual([number, reference(contexts, names, offset, offset + length)]);
    expect(fake.mostInFlight).toBeLessThanOrEqual(questions);
    expect(fake.connection.getBlockSize(SIZE_MINIMUM)).toBe(minimum);
  }

  /** The same, byte ranges cut at every boundary of any context. */
  function reference(contexts: Readonly<Record<string, Runs>>, names: readonly string[], start: bigint, end: bigint) {
    const ends = new Set<bigint>();
    for (const name of names) {
      let at = 0n;
      for (const [length] of contexts[name] as Runs) ends.add((at += length));
    }
    const cuts = [...ends, start, end].filter((at) => at >= start && at <= end).sort((a, b) => (a < b ? -1 : 1));
    const flagsAt = (place: bigint): bigint[] =>
      names.map((name) => {
        let at = 0n;
        for (const [length, flags] of contexts[name] as Runs) if ((at += length) > place) return flags;
        return -1n;
      });
    const found: { offset: bigint; length: bigint; flags: bigint[] }[] = [];
    for (let index = 0; index + 1 < cuts.length; index++) {
      const [from, until] = [cuts[index] as bigint, cuts[index + 1] as bigint];
      if (from === until) continue;
      const flags = flagsAt(from);
      const last = found.at(-1);
      if (last?.flags.join() === flags.join()) last.length += until - from;
      else found.push({ offset: from, length: until - from, flags });
    }
    return found;
  }
});

it('sizes of the maps above are what they say', () => {
  expect(sizeOf(alternating(size(1, 'G'), size(64, 'K')))).toBe(size(1, 'G'));
});
