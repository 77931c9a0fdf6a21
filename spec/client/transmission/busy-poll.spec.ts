import { availableParallelism } from 'node:os';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { BusyPoll } from '../../../lib/client/transmission/busy-poll.js';
import { openRaw } from '../../support/raw-server.js';

// Immediates that the code under test has scheduled and that have not run yet. The process's own list of what is
// active has the test runner's among them.
const original = globalThis.setImmediate;
let due = 0;
let asked = 0;
const counted = (callback: () => void): NodeJS.Immediate => {
  asked++;
  due++;
  return original(() => {
    due--;
    callback();
  });
};
beforeAll(() => {
  globalThis.setImmediate = counted as typeof setImmediate;
});
afterAll(() => {
  globalThis.setImmediate = original;
});

/** While an immediate is due, the event loop does not sleep. */
const isAwake = (): boolean => due > 0;

const MILLISECOND = 1000;
const LONG = 60_000 * MILLISECOND;
const LONGEST_OPTION = 1000 * MILLISECOND;

// On a single processor nothing polls: the server needs it.
const several = availableParallelism() > 1 ? describe : describe.skip;

several('a busy poll', () => {
  it('keeps the event loop awake from a request to its reply', async () => {
    const poll = new BusyPoll(LONG);
    expect(isAwake()).toBe(false);
    poll.sent(1, 4096);
    for (let i = 0; i < 100; i++) await turn();
    expect(isAwake()).toBe(true);
    poll.received(0);
    await turn();
    expect(isAwake()).toBe(false);
  });

  it.each([
    ['a single small one', 1, 0, true],
    ['eight small ones', 8, 4096, true],
    ['nine small ones', 9, 4096, false],
    ['sixteen large ones', 16, 32 * 1024, true],
  ])('%s in flight: %p commands of %p bytes', async (_, inFlight, weight, begins) => {
    const poll = new BusyPoll(LONG);
    poll.sent(inFlight, weight);
    expect(isAwake()).toBe(begins);
    poll.stop();
    await turn();
    expect(isAwake()).toBe(false);
  });

  it('goes on while others are in flight', async () => {
    const poll = new BusyPoll(LONG);
    poll.sent(1, 0);
    poll.sent(2, 0);
    poll.received(1);
    await turn();
    expect(isAwake()).toBe(true);
    poll.received(0);
    await turn();
    expect(isAwake()).toBe(false);
  });

  it('ends at its limit, and lets ever more requests pass until a reply comes in time', async () => {
    const poll = new BusyPoll(2 * MILLISECOND);
    /** Sends requests until one begins to poll; how many did not. */
    const passed = (): number => {
      for (let count = 0; count < 1000; count++) {
        poll.sent(1, 0);
        if (isAwake()) return count;
      }
      return Infinity;
    };
    const counts: number[] = [];
    for (let i = 0; i < 10; i++) {
      counts.push(passed());
      await sleep(5);
      while (isAwake()) await sleep(5);
    }
    expect(counts).toEqual([0, 1, 3, 7, 15, 31, 63, 127, 255, 256]);
    expect(passed()).toBe(256);
    poll.received(0);
    await turn();
    // A reply in time pays: the next request polls again, and its failure counts as the first one.
    expect(passed()).toBe(0);
    await sleep(5);
    while (isAwake()) await sleep(5);
    expect(passed()).toBe(1);
    poll.stop();
    await turn();
  });

  it('of 0 never begins', () => {
    const poll = new BusyPoll(0);
    poll.sent(1, 0);
    expect(isAwake()).toBe(false);
  });
});

several('a connection', () => {
  it.each([
    ['polls from a command to its reply', LONGEST_OPTION, true],
    ['does not with busyPoll 0', 0, false],
  ])('%s', async (_, busyPoll, polls) => {
    const { connection, peer } = await openRaw({ client: { busyPoll } });
    asked = 0;
    const read = connection.pread(512, 0);
    const request = await peer.request();
    // How often, not whether still: on a busy machine its limit may have passed.
    expect(asked > 0).toBe(polls);
    peer.answer(request);
    await read;
    await turn();
    expect(isAwake()).toBe(false);
    connection.close();
  });

  it('leaves nothing when it ends while it polls', async () => {
    const { connection, peer } = await openRaw({ client: { busyPoll: LONGEST_OPTION } });
    const read = connection.pread(512, 0);
    await peer.request();
    connection.close();
    await expect(read).rejects.toMatchObject({ code: 'ENOTCONN' });
    await turn();
    expect(isAwake()).toBe(false);
  });
});
