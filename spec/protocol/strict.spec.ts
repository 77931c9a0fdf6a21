import { describe, expect, it } from '@jest/globals';

import { NbdStrictError } from '../../lib/errors.js';
import * as spec from '../../lib/protocol/commands.js';
import { checkStrict, type StrictContext } from '../../lib/protocol/strict.js';
import { caught } from '../support/caught.js';
import * as g from '../support/golden.js';

const MIB = 1 << 20;
const SIZE = 2 ** 40;

interface Call {
  flags: number;
  count: number;
  offset: number;
  /** Transmission flags. */
  has: number;
  structuredReplies: boolean;
  extendedHeaders: boolean;
  hasContexts: boolean;
  strictMode: number;
}

/** A way to break one rule: what it changes, the STRICT_* bit that watches it, and the message. */
interface Breach {
  readonly bit: number;
  readonly code: string;
  readonly says: RegExp;
  readonly change: (call: Call) => void;
  /** Two that set the count cannot be had at once. */
  readonly setsCount?: boolean;
}

const COMMANDS_BIT = 0x01;
const FLAGS_BIT = 0x02;
const BOUNDS_BIT = 0x04;
const ZERO_SIZE_BIT = 0x08;
const ALIGN_BIT = 0x10;
const PAYLOAD_BIT = 0x20;
const AUTO_FLAG_BIT = 0x40;
const ALWAYS = 0;
const ALL = 0x7f;

const lacks = (flag: number, says: RegExp): Breach => ({
  bit: COMMANDS_BIT,
  code: 'EINVAL',
  says,
  change: (call) => (call.has &= ~flag),
});
const flagWithout = (flag: number, needs: number, says: RegExp): Breach => ({
  bit: COMMANDS_BIT,
  code: 'EINVAL',
  says,
  change: (call) => {
    call.flags |= flag;
    call.has &= ~needs;
  },
});

const unknownFlag: Breach = {
  bit: FLAGS_BIT,
  code: 'EINVAL',
  says: /invalid flag 0x4000/,
  change: (call) => (call.flags |= 0x4000),
};
const wideFlag: Breach = {
  bit: ALWAYS,
  code: 'EINVAL',
  says: /invalid flag 0x[14]/,
  change: (call) => (call.flags |= 0x10000),
};
const readOnly: Breach = {
  bit: COMMANDS_BIT,
  code: 'EPERM',
  says: /read-only/,
  change: (call) => (call.has |= g.READ_ONLY),
};
const noFua = flagWithout(1, g.SEND_FUA, /FUA flag \(see canFua\)/);
const noFastZero = flagWithout(16, g.SEND_FAST_ZERO, /FAST_ZERO flag \(see canFastZero\)/);
const noDf = flagWithout(4, g.SEND_DF, /DF flag \(see canDf\)/);
const noStructured: Breach = {
  bit: COMMANDS_BIT,
  code: 'ENOTSUP',
  says: /structured replies/,
  change: (call) => (call.structuredReplies = false),
};
const noContexts: Breach = {
  bit: COMMANDS_BIT,
  code: 'ENOTSUP',
  says: /no metadata context was negotiated/,
  change: (call) => (call.hasContexts = false),
};
const noExtended: Breach = {
  bit: AUTO_FLAG_BIT,
  code: 'ENOTSUP',
  says: /extended headers/,
  change: (call) => (call.extendedHeaders = false),
};
const payloadFlag: Breach = {
  bit: COMMANDS_BIT,
  code: 'EINVAL',
  says: /PAYLOAD_LEN flag must be set if, and only if, extended headers/,
  change: (call) => {
    call.strictMode &= ~AUTO_FLAG_BIT;
    call.flags |= 32;
    call.extendedHeaders = false;
  },
};
const zeroSize: Breach = {
  bit: ZERO_SIZE_BIT,
  code: 'EINVAL',
  says: /count cannot be 0/,
  change: (call) => (call.count = 0),
  setsCount: true,
};
const bounds = (code: string): Breach => ({
  bit: BOUNDS_BIT,
  code,
  says: /the range ends \d+ bytes beyond the export of 1099511627776 bytes/,
  change: (call) => (call.offset += SIZE),
});
const align: Breach = {
  bit: ALIGN_BIT,
  code: 'EINVAL',
  says: /offset is not a multiple of the minimum block size 4096/,
  change: (call) => (call.offset += 512),
};
const payload: Breach = {
  bit: PAYLOAD_BIT,
  code: 'ERANGE',
  says: /at most 33554432 bytes in one write/,
  change: (call) => (call.count = 33 * MIB),
  setsCount: true,
};
const cap: Breach = {
  bit: ALWAYS,
  code: 'ERANGE',
  says: /at most 67108864 bytes in one command/,
  change: (call) => (call.count = 65 * MIB),
  setsCount: true,
};
// Where the writes' own limit is watched first.
const capWrite: Breach = { ...cap, change: (call) => ((call.count = 65 * MIB), (call.strictMode &= ~PAYLOAD_BIT)) };
const narrow: Breach = {
  bit: ALWAYS,
  code: 'ERANGE',
  says: /more than 4 GiB - 1 in one command requires extended headers/,
  change: (call) => ((call.count = 2 ** 32), (call.extendedHeaders = false)),
  setsCount: true,
};

const range = (code: string): Breach[] => [zeroSize, bounds(code), align];

// Every row of libnbd's strict checks, per command and in libnbd's order (lib/rw.c).
const LADDERS: readonly (readonly [spec.CommandSpec, readonly Breach[]])[] = [
  [spec.PREAD, [wideFlag, unknownFlag, ...range('EINVAL'), cap]],
  [spec.PREAD_STRUCTURED, [wideFlag, unknownFlag, noDf, ...range('EINVAL'), cap]],
  [spec.PWRITE, [wideFlag, unknownFlag, readOnly, noFua, payloadFlag, ...range('ENOSPC'), payload, capWrite]],
  [spec.FLUSH, [wideFlag, unknownFlag, lacks(g.SEND_FLUSH, /see canFlush/)]],
  [spec.TRIM, [wideFlag, unknownFlag, lacks(g.SEND_TRIM, /see canTrim/), readOnly, noFua, ...range('ENOSPC'), narrow]],
  [spec.CACHE, [wideFlag, unknownFlag, lacks(g.SEND_CACHE, /see canCache/), ...range('EINVAL'), narrow]],
  [
    spec.ZERO,
    [
      ...[wideFlag, unknownFlag, lacks(g.SEND_ZERO, /see canZero/), readOnly, noFua, noFastZero],
      ...[...range('ENOSPC'), narrow],
    ],
  ],
  [spec.BLOCK_STATUS, [wideFlag, unknownFlag, noStructured, noContexts, ...range('EINVAL'), narrow]],
  [spec.BLOCK_STATUS_64, [wideFlag, unknownFlag, noStructured, noContexts, ...range('EINVAL'), narrow]],
  [
    spec.BLOCK_STATUS_FILTER,
    [
      ...[wideFlag, unknownFlag, noStructured, noContexts, noExtended],
      ...[lacks(g.STATUS_PAYLOAD, /see canBlockStatusPayload/), ...range('EINVAL')],
    ],
  ],
];

const goodCall = (command: spec.CommandSpec): Call => ({
  flags: 0,
  count: command.hasRange ? 8192 : 0,
  offset: command.hasRange ? 4096 : 0,
  has: g.ALL_FLAGS | g.STATUS_PAYLOAD,
  structuredReplies: true,
  extendedHeaders: command === spec.BLOCK_STATUS_FILTER,
  hasContexts: true,
  strictMode: ALL,
});

function run(command: spec.CommandSpec, call: Call): number {
  const context: StrictContext = {
    strictMode: call.strictMode,
    info: {
      size: SIZE,
      flags: call.has,
      blockSizes: { minimum: 4096, preferred: 4096, maximum: 32 * MIB },
      canonicalName: null,
      description: null,
    },
    structuredReplies: call.structuredReplies,
    extendedHeaders: call.extendedHeaders,
    hasContexts: call.hasContexts,
  };
  return checkStrict(command, call.count, call.offset, call.flags, context);
}

function expectRefused(command: spec.CommandSpec, call: Call, breach: Breach): void {
  const error = caught(() => run(command, call));
  expect(error).toBeInstanceOf(NbdStrictError);
  expect(error).toMatchObject({ code: breach.code, syscall: command.method });
  expect((error as Error).message).toMatch(breach.says);
}

describe.each(LADDERS.map(([command, ladder]) => [command.method, command, ladder] as const))(
  'strict checks of %s',
  (_name, command, ladder) => {
    it('let a good call through', () => {
      expect(run(command, goodCall(command))).toBe(command === spec.BLOCK_STATUS_FILTER ? 32 : 0);
    });

    it.each(ladder.map((breach) => [breach.says.source, breach] as const))('refuse: %s', (_says, breach) => {
      const call = goodCall(command);
      breach.change(call);
      expectRefused(command, call, breach);
    });

    const watched = ladder.filter(({ bit }) => bit !== ALWAYS).map((breach) => [breach.says.source, breach] as const);
    it.each(watched)('let it through when its bit is off: %s', (_says, breach) => {
      const call = goodCall(command);
      breach.change(call);
      call.strictMode &= ~breach.bit;
      if (breach === noContexts || breach === noStructured) call.strictMode &= ~AUTO_FLAG_BIT;
      // PAYLOAD_LEN is the automatic flag's, which has cases of its own.
      expect(run(command, call) & ~32).toBe(call.flags & ~32);
    });

    const always = ladder.filter(({ bit }) => bit === ALWAYS).map((breach) => [breach.says.source, breach] as const);
    it.each(always)('refuse it in any mode: %s', (_says, breach) => {
      const call = goodCall(command);
      breach.change(call);
      call.strictMode = 0;
      expectRefused(command, call, breach);
    });

    const pairs = ladder.flatMap((first, at) =>
      ladder
        .slice(at + 1)
        .filter((second) => first.setsCount !== true || second.setsCount !== true)
        .map((second) => [first.says.source, second.says.source, first, second] as const),
    );
    // The first of the two rules that a call breaks is the one that is reported.
    it.each(pairs)('report /%s/ before /%s/', (_first, _second, first, second) => {
      const call = goodCall(command);
      second.change(call);
      first.change(call);
      expectRefused(command, call, first);
    });
  },
);

describe('special cases of the strict checks', () => {
  const write = (flags: number, extendedHeaders: boolean, strictMode = ALL): number =>
    run(spec.PWRITE, { ...goodCall(spec.PWRITE), flags, extendedHeaders, strictMode });

  it('PAYLOAD_LEN follows the headers, whatever the caller passed', () => {
    expect(write(0, true)).toBe(32);
    expect(write(32, true)).toBe(32);
    expect(write(32, false)).toBe(0);
    expect(write(1, true)).toBe(33);
  });

  it('without AUTO_FLAG the caller must set PAYLOAD_LEN; without COMMANDS too, nothing is changed', () => {
    expect(write(32, true, ALL & ~AUTO_FLAG_BIT)).toBe(32);
    expect(caught(() => write(0, true, ALL & ~AUTO_FLAG_BIT))).toMatchObject({ code: 'EINVAL' });
    expect(caught(() => write(32, false, ALL & ~AUTO_FLAG_BIT))).toMatchObject({ code: 'EINVAL' });
    expect(write(32, false, ALL & ~AUTO_FLAG_BIT & ~COMMANDS_BIT)).toBe(32);
  });

  it('a block status filter needs extended headers even when COMMANDS is off', () => {
    const call = { ...goodCall(spec.BLOCK_STATUS_FILTER), extendedHeaders: false, strictMode: ALL & ~COMMANDS_BIT };
    expect(caught(() => run(spec.BLOCK_STATUS_FILTER, call))).toMatchObject({ code: 'ENOTSUP' });
  });

  const check = (over: Partial<Call> & { blockSizes?: null | [number, number, number]; size?: number | bigint }) => {
    const call = { ...goodCall(spec.CACHE), ...over };
    const [minimum, preferred, maximum] = over.blockSizes ?? [1, 4096, 32 * MIB];
    return checkStrict(spec.CACHE, call.count, call.offset, call.flags, {
      ...call,
      info: {
        size: over.size ?? MIB,
        flags: call.has,
        blockSizes: over.blockSizes === null ? null : { minimum, preferred, maximum },
        canonicalName: null,
        description: null,
      },
    });
  };

  it('8 GiB of a 1 MiB export is out of bounds; with BOUNDS off it is too long', () => {
    expect(caught(() => check({ count: 2 ** 33, offset: 0 }))).toMatchObject({ code: 'EINVAL' });
    expect(caught(() => check({ count: 2 ** 33, offset: 0, strictMode: ALL & ~BOUNDS_BIT }))).toMatchObject({
      code: 'ERANGE',
    });
    expect(check({ count: 2 ** 33, offset: 0, strictMode: ALL & ~BOUNDS_BIT, extendedHeaders: true })).toBe(0);
  });

  it('does not check alignment where the server advertised no block size', () => {
    expect(check({ count: 1, offset: 7, blockSizes: null })).toBe(0);
  });

  it('lets the short last block be named by its own length, but not by another', () => {
    const odd = { size: MIB + 100, blockSizes: [512, 4096, 32 * MIB] as [number, number, number] };
    expect(check({ ...odd, offset: MIB, count: 100 })).toBe(0);
    expect(check({ ...odd, offset: MIB - 512, count: 612 })).toBe(0);
    expect(caught(() => check({ ...odd, offset: MIB, count: 99 }))).toMatchObject({ code: 'EINVAL' });
    expect(caught(() => check({ ...odd, offset: MIB + 50, count: 50 }))).toMatchObject({ code: 'EINVAL' });
  });

  it('is exact at the end of the largest export', () => {
    const size = 2n ** 64n - 1n;
    const at = (offset: bigint, count: number): number =>
      checkStrict(spec.CACHE, count, offset, 0, {
        ...goodCall(spec.CACHE),
        info: { size, flags: g.ALL_FLAGS, blockSizes: null, canonicalName: null, description: null },
      });
    expect(at(size - 1n, 1)).toBe(0);
    expect(caught(() => at(size, 1))).toMatchObject({
      code: 'EINVAL',
      message: expect.stringMatching(/ends 1 bytes beyond/),
      offset: size,
      count: 1n,
    });
  });

  it('a message names the call, the range and the reason', () => {
    const error = caught(() => check({ count: 4096, offset: MIB }));
    expect((error as Error).message).toBe(
      'cache of 4096 bytes at offset 1048576: the range ends 4096 bytes beyond the export of 1048576 bytes',
    );
    expect(error).toMatchObject({ count: 4096n, offset: 1048576n, errno: 22 });
  });
});
