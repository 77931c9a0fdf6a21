import { describe, expect, it } from '@jest/globals';

import { Slices } from '../../../lib/client/transmission/slices.js';

const burn = (ms: number): void => {
  const end = performance.now() + ms;
  while (performance.now() < end);
};
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('a long list', () => {
  it('is begun at once, and goes on in later turns of the event loop, in order', async () => {
    const slices = new Slices<number>();
    const seen: number[] = [];
    let isDone = false;
    slices.add(
      [Array.from({ length: 3000 }, (_, i) => i)],
      (entry) => {
        seen.push(entry);
        if (entry % 100 === 0) burn(3);
      },
      () => (isDone = true),
    );
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.length).toBeLessThan(1025);
    let turns = 0;
    for (; !isDone; turns++) await turn();
    // 90 ms of work, of which a turn has 20 and what it had begun.
    expect(turns).toBeGreaterThan(1);
    expect(seen).toEqual(Array.from({ length: 3000 }, (_, i) => i));
  });

  it('is begun with a thousand entries, also where one of them takes long', () => {
    const slices = new Slices<number>();
    const seen: number[] = [];
    let isDone = false;
    slices.add(
      [Array.from({ length: 1000 }, (_, i) => i)],
      (entry) => {
        seen.push(entry);
        if (entry === 0) burn(30);
      },
      () => (isDone = true),
    );
    expect([seen.length, isDone]).toEqual([1000, true]);
  });

  it('leaves turns to others when the continuations are what takes long', async () => {
    const slices = new Slices<number>();
    let visited = 0;
    let most = 0;
    const visit = (): void => {
      visited++;
      if (visited % 100 === 0) void Promise.resolve().then(() => burn(5));
    };
    const done = new Promise<void>((resolve) => slices.add([new Array<number>(8000).fill(1)], visit, resolve));
    let isDone = false;
    void done.then(() => (isDone = true));
    for (let before = visited; !isDone; before = visited) {
      await turn();
      most = Math.max(most, visited - before);
    }
    expect(visited).toBe(8000);
    expect(most).toBeLessThan(8000);
  });

  it('has gaps, and others behind it; done comes when all of its own have been visited', async () => {
    const slices = new Slices<string>();
    const seen: string[] = [];
    const finished = new Promise<void>((resolve) => {
      slices.add(
        [['a', undefined, 'b'], [], [undefined], ['c']],
        (entry) => {
          seen.push(entry);
          if (entry === 'b')
            slices.add(
              [['x', 'y']],
              (later) => void seen.push(later),
              () => resolve(void seen.push('done 2')),
            );
        },
        () => void seen.push('done 1'),
      );
    });
    await finished;
    expect(seen).toEqual(['a', 'b', 'c', 'done 1', 'x', 'y', 'done 2']);
  });

  it('is done at once when it is empty', () => {
    let isDone = false;
    new Slices<number>().add(
      [],
      () => undefined,
      () => (isDone = true),
    );
    expect(isDone).toBe(true);
  });
});
