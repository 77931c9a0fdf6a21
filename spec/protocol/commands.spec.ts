import { describe, expect, it } from '@jest/globals';

import { COMMANDS, FLAG_NEEDS, type CommandSpec } from '../../lib/protocol/commands.js';

// proto.md and libnbd's API.ml once more, with every number written out.
const FUA = 1;
const NO_HOLE = 2;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;
const PAYLOAD_LEN = 32;

describe('one record per command', () => {
  it.each<[method: string, type: number, flags: number, advertisedBy: number, writes: boolean, bounds: string]>([
    ['pread', 0, 0, 0, false, 'EINVAL'],
    ['preadStructured', 0, DF, 0, false, 'EINVAL'],
    ['pwrite', 1, FUA | PAYLOAD_LEN, 0, true, 'ENOSPC'],
    ['flush', 3, 0, 0x4, false, 'EINVAL'],
    ['trim', 4, FUA, 0x20, true, 'ENOSPC'],
    ['cache', 5, 0, 0x400, false, 'EINVAL'],
    ['zero', 6, FUA | NO_HOLE | FAST_ZERO, 0x40, true, 'ENOSPC'],
    ['blockStatus', 7, REQ_ONE, 0, false, 'EINVAL'],
    ['blockStatus64', 7, REQ_ONE, 0, false, 'EINVAL'],
    ['blockStatusFilter', 7, REQ_ONE | PAYLOAD_LEN, 0, false, 'EINVAL'],
    ['disconnect', 2, 0, 0, false, 'EINVAL'],
  ])('%s', (method, type, allowedFlags, advertisedBy, writes, boundsError) => {
    const command = COMMANDS.find((each) => each.method === method);
    expect(command).toMatchObject({ type, allowedFlags, advertisedBy, writes, boundsError });
    expect(command?.hasRange).toBe(!['flush', 'disconnect'].includes(method));
    expect(command?.payload).toBe(
      type === 0 ? 'from-server' : ['pwrite', 'blockStatusFilter'].includes(method) ? 'to-server' : 'none',
    );
    expect(command?.wideExtents).toBe(['blockStatus64', 'blockStatusFilter'].includes(method));
    // The message of the refusal names the way out.
    expect(command?.lacking).toMatch(advertisedBy === 0 ? /^$/ : /see can[A-Z]/);
  });

  it('has no other commands, and its records are frozen', () => {
    expect(COMMANDS).toHaveLength(11);
    expect(Object.isFrozen(COMMANDS)).toBe(true);
    for (const command of COMMANDS) {
      expect(() => ((command as { -readonly [K in keyof CommandSpec]: unknown }).type = 99)).toThrow(TypeError);
    }
  });

  it('names what a flag needs', () => {
    expect(FLAG_NEEDS.map(({ flag, needs }) => [flag, needs])).toEqual([
      [FUA, 0x8],
      [DF, 0x80],
      [FAST_ZERO, 0x800],
    ]);
    for (const { lacking } of FLAG_NEEDS) expect(lacking).toMatch(/see can[A-Z]/);
  });
});
