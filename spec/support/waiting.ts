// Waiting for events that have no promise.

import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds; long enough for the slowest machine, so that only what never happens fails. */
const DEADLINE = 240_000;

/** Waits until `check` returns true; fails with `what` when it never does. */
export async function until(
  check: () => boolean | Promise<boolean>,
  what = 'a condition of the test holds',
): Promise<void> {
  const begun = performance.now();
  while (!(await check())) {
    if (performance.now() - begun > DEADLINE) throw new Error(`waited in vain until ${what}`);
    await sleep(5);
  }
}

/** Waits until everything has happened that needs no more than turns of the event loop, however slow the machine is. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
}
