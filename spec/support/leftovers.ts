// What a test leaves behind: sockets, timers, files and listeners of the process that were not there before it.

import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Tries, 10 ms apart, until what is left counts as left for good. */
const TRIES = 3000;

/** Open files of this process; 0 where the system does not list them. */
export const openFiles = (): number => (existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0);

/** What holds the process open, and the listeners of `process`, by kind. */
export function resources(): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const event of process.eventNames()) {
    counts.set(`listener of process for ${String(event)}`, process.listenerCount(event));
  }
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

/** I4: what is there now and was not in `before`, once it had time to go. */
export async function leftovers(before: ReadonlyMap<string, number>): Promise<string[]> {
  const found = (): string[] =>
    [...resources()].flatMap(([kind, count]) =>
      count > (before.get(kind) ?? 0) ? [`left behind: ${kind} (${count}, before ${before.get(kind) ?? 0})`] : [],
    );
  for (let tries = 0; tries < TRIES; tries++) {
    // The immediate and the timer of this loop are not counted.
    await new Promise(setImmediate);
    if (found().length === 0) return [];
    await sleep(10);
  }
  return found();
}
