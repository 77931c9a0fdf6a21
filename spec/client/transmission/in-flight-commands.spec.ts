import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { InFlightCommands } from '../../../lib/client/transmission/in-flight-commands.js';
import { Command } from '../../../lib/client/transmission/command.js';
import { CACHE } from '../../../lib/protocol/commands.js';

function commandOf(cookie: number): Command {
  const command = new Command(CACHE, 512, 0, 0);
  command.cookie = cookie;
  return command;
}

describe('commands in flight', () => {
  // The bug that this catches: a deletion that moves a follower past its own slot, after which it is not found.
  it('are found by their cookie, whatever was added and deleted before', () => {
    const step = fc.record({ adds: fc.nat(40), deletes: fc.array(fc.nat(), { maxLength: 40 }) });
    fc.assert(
      fc.property(fc.constantFrom(1, 60, 2 ** 31 - 5, 2 ** 32 - 5, 2 ** 48), fc.array(step), (first, steps) => {
        const table = new InFlightCommands();
        const model = new Map<number, Command>();
        let cookie = first;
        for (const { adds, deletes } of steps) {
          for (let i = 0; i < adds; i++) {
            // Cookies 64 apart want the same slot.
            cookie += i % 3 === 0 ? 64 : 1;
            const command = commandOf(cookie);
            table.add(command);
            model.set(cookie, command);
          }
          for (const each of deletes) {
            const found = [...model.values()][each % Math.max(1, model.size)];
            if (found === undefined) continue;
            expect(table.delete(found)).toBe(true);
            expect(table.delete(found)).toBe(false);
            model.delete(found.cookie);
            expect(table.get(found.cookie)).toBeUndefined();
          }
          for (const command of model.values()) expect(table.get(command.cookie)).toBe(command);
          expect(table.list()).toEqual([...model.values()]);
        }
        expect(table.get(cookie + 1)).toBeUndefined();
        table.clear();
        expect(table.list()).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });
});
