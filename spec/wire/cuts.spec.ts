// Every good conversation cut, split, and with a bit changed: at every byte with `npm run test:long`, which also changes
// each bit of it. `npm test` takes a part of the bytes, which the seed chooses, and those around the end of each answer.

import { beforeAll, describe, expect, it } from '@jest/globals';

import { cutAtRandom, randomNumbers } from '../support/deliver.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';
import { atAnyPace } from '../support/pace.js';
import { CONVERSATIONS, type Damage, record, type Recorded, replay, type ReplayResult } from './replay.js';

const AT_ONCE = 100;
/** Milliseconds that a call waits for an answer that does not come, at the shortest pace. */
const PATIENCE = 60;
const RANDOM_SPLITS = IS_LONG ? 100 : 15;
/** One of how many bytes. */
const STEP = IS_LONG ? 1 : 7;
const BITS = [1, 2, 4, 8, 16, 32, 64, 128];

describe.each(CONVERSATIONS)(withSeed('$name'), (conversation) => {
  let recorded: Recorded;
  beforeAll(async () => {
    recorded = await record(conversation);
  });

  const all = (): number[] => Array.from({ length: recorded.bytes.length }, (_, at) => at);
  const places = (): number[] => {
    const first = Math.floor(randomNumbers(SEED)() * STEP);
    const ends = new Set(recorded.answered.flatMap((end) => [end - 1, end, end + 1]));
    return all().filter((at) => at % STEP === first || ends.has(at));
  };

  /** Replays all damages, some at once, and gives the complaints. */
  const runAll = async (
    damages: readonly Damage[],
    judge: (results: readonly ReplayResult[], damage: Damage) => string | undefined,
  ): Promise<string[]> => {
    const complaints: string[] = [];
    const one = async (damage: Damage, patience: number): Promise<string | undefined> =>
      replay(recorded, damage, patience).then(
        (results) => judge(results, damage),
        (error: unknown) => String(error),
      );
    const judgeOne = async (damage: Damage): Promise<void> => {
      // On a busy machine even an answer that comes may come too late.
      const run = async (pace: number): Promise<void> => {
        const complaint = await one(damage, PATIENCE * pace);
        if (complaint !== undefined) throw new Error(complaint);
      };
      await (damage.cut?.then === 'stall' ? atAnyPace(run) : run(1)).catch((error: unknown) =>
        complaints.push(`${describeDamage(damage)}: ${(error as Error).message}`),
      );
    };
    for (let at = 0; at < damages.length; at += AT_ONCE)
      await Promise.all(damages.slice(at, at + AT_ONCE).map(judgeOne));
    return complaints;
  };

  const answeredOnly = (results: readonly ReplayResult[], { cut }: Damage): string | undefined => {
    for (const [at, result] of results.entries()) {
      const isAnswered = (recorded.answered[at] ?? Infinity) <= (cut?.at ?? Infinity);
      if (result.resolved !== isAnswered) {
        return `call ${at} ${result.resolved ? 'resolved' : `rejected (${String(result.error)})`}`;
      }
      const complaint = result.resolved
        ? result.right
          ? undefined
          : `call ${at} gave something else`
        : codeless(result);
      if (complaint !== undefined) return complaint;
    }
    return undefined;
  };

  it('replays', async () => {
    expect(await runAll([{}], answeredOnly)).toEqual([]);
    expect(recorded.bytes.length).toBeGreaterThan(50);
  });

  it.each(['fin', 'rst', 'stall'] as const)('cut at a byte, then %s', async (then) => {
    expect(
      await runAll(
        places().map((at) => ({ cut: { at, then } })),
        answeredOnly,
      ),
    ).toEqual([]);
  });

  it('split in two at a byte', async () => {
    expect(
      await runAll(
        places().map((at) => ({ splits: [at] })),
        answeredOnly,
      ),
    ).toEqual([]);
  });

  it('split at random, and everywhere', async () => {
    const next = randomNumbers(SEED);
    const random = Array.from({ length: RANDOM_SPLITS }, () => {
      let at = 0;
      return { splits: cutAtRandom(recorded.bytes, next).map((segment) => (at += segment.length)) };
    });
    expect(await runAll([{ splits: all() }, ...random], answeredOnly)).toEqual([]);
  });

  it('with a bit of a byte changed', async () => {
    // Whatever comes of it: every call settles, and a rejection has a code.
    const judge = (results: readonly ReplayResult[]): string | undefined =>
      results
        .filter((result) => !result.resolved)
        .map(codeless)
        .find((complaint) => complaint !== undefined);
    const next = randomNumbers(SEED);
    const damages = places().flatMap((at) => {
      const changed = IS_LONG ? BITS : [BITS[Math.floor(next() * BITS.length)] ?? 1];
      return changed.map((bits) => ({ flip: { at, bits } }));
    });
    expect(await runAll(damages, judge)).toEqual([]);
  });
});

function codeless({ error }: ReplayResult): string | undefined {
  return typeof (error as { code?: unknown }).code === 'string' ? undefined : `no code: ${String(error)}`;
}

function describeDamage({ cut, splits, flip }: Damage): string {
  if (cut !== undefined) return `${cut.then} at ${cut.at}`;
  if (flip !== undefined) return `byte ${flip.at} ^ ${flip.bits}`;
  return `split at ${splits?.join() ?? 'no place'}`;
}
