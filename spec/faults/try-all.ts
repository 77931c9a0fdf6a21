// The rows of the table of faults, on a ground that is made once for all of them.

import { afterAll, expect, it } from '@jest/globals';

import { leftovers, resources } from '../support/leftovers.js';
import type { FaultGroup } from './cases.js';
import { judge, printRows } from './invariants.js';
import { type Ground, runCase } from './runner.js';

afterAll(printRows);

export function tryAll(over: string, groups: readonly FaultGroup[], ground: () => Ground): void {
  it.each(groups.map((group) => [group.title, group] as const))('%s', async (title, { expected, commands }) => {
    const before = resources();
    const name = `${title}, ${over}`;
    const rows = commands.map(([command, fault]) => runCase(ground(), command, fault, expected, name));
    judge(await Promise.all(rows));
    expect(await leftovers(before)).toEqual([]);
  });
}

// With one thread nbdkit answers in the order of the requests: the first reply is that of the command under test.
export const SERVED = { args: ['4G'], options: ['-t1'] };
