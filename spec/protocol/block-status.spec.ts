import { describe, expect, it } from '@jest/globals';

import {
  ArrivingBlockStatus,
  type BlockStatusRequest,
  decodeBlockStatus,
  encodeBlockStatusFilter,
} from '../../lib/protocol/block-status.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { cat, u32, u64 } from '../support/golden.js';

type Pairs = readonly (readonly [length: number | bigint, flags: number | bigint])[];

const TIB = 2 ** 40;
const GIB4 = 2n ** 32n;

const request = (over: Partial<BlockStatusRequest> = {}): BlockStatusRequest => ({
  count: 65536,
  offset: 0,
  exportSize: 1 << 20,
  onlyFirst: false,
  wide: false,
  ...over,
});
const narrow = (pairs: Pairs): Buffer => cat(...pairs.flat().map((value) => u32(Number(value))));
const extended = (pairs: Pairs): Buffer => cat(...pairs.flat().map(u64));

describe('32-bit descriptors', () => {
  const big = { exportSize: TIB, count: TIB };
  it.each<[string, Pairs, Partial<BlockStatusRequest>, number[]]>([
    ['one extent', [[65536, 3]], {}, [65536, 3]],
    [
      'several',
      [
        [512, 0],
        [512, 1],
        [64512, 2],
      ],
      {},
      [512, 0, 512, 1, 64512, 2],
    ],
    ['less than was requested', [[4096, 0]], {}, [4096, 0]],
    [
      'a last extent past the request, inside the export',
      [
        [4096, 3],
        [65536, 0],
      ],
      {},
      [4096, 3, 65536, 0],
    ],
    ['unknown bits', [[65536, 0xfffffffc]], {}, [65536, 0xfffffffc]],
    ['the end of the export exactly', [[65536, 0]], { offset: (1 << 20) - 65536 }, [65536, 0]],
    [
      'an extent of length 0 later: the rest is dropped',
      [
        [4096, 0],
        [0, 1],
        [4096, 2],
      ],
      {},
      [4096, 0],
    ],
    [
      'extents after the end of the request: dropped',
      [
        [65536, 0],
        [65536, 3],
      ],
      {},
      [65536, 0],
    ],
    [
      'two where one was requested',
      [
        [4096, 0],
        [4096, 3],
      ],
      { onlyFirst: true },
      [4096, 0],
    ],
    [
      'lengths with the highest bit',
      [
        [0xffffffff, 1],
        [0x80000000, 2],
      ],
      big,
      [0xffffffff, 1, 0x80000000, 2],
    ],
    [
      'sums past 2^32',
      [
        [2 ** 31, 0],
        [2 ** 31, 1],
        [2 ** 31, 0],
      ],
      big,
      [2 ** 31, 0, 2 ** 31, 1, 2 ** 31, 0],
    ],
  ])('%s', (_title, pairs, over, expected) => {
    const { entries, problem } = decodeBlockStatus(narrow(pairs), false, request(over));
    expect(problem).toBeNull();
    expect(entries).toEqual(Uint32Array.from(expected));
    const wide = decodeBlockStatus(narrow(pairs), false, request({ ...over, wide: true }));
    expect(wide).toEqual({ entries: BigUint64Array.from(expected.map(BigInt)), problem: null });
  });

  it.each<[string, Pairs, Partial<BlockStatusRequest>, number[], RegExp]>([
    [
      'a first extent of length 0',
      [
        [0, 1],
        [4096, 0],
      ],
      {},
      [],
      /first extent has length 0/,
    ],
    [
      'an extent past the export',
      [
        [4096, 1],
        [1 << 20, 0],
      ],
      {},
      [4096, 1],
      /extent 1 extends beyond the export of 1048576 bytes/,
    ],
    ['a first extent past the export', [[1 << 20, 0]], { offset: 1 }, [], /extent 0 extends beyond the export/],
  ])('%s is the fault of the server', (_title, pairs, over, kept, reason) => {
    for (const wide of [false, true]) {
      const { entries, problem } = decodeBlockStatus(narrow(pairs), false, request({ ...over, wide }));
      expect(problem).toEqual({ code: 'EPROTO', reason: expect.stringMatching(reason) });
      expect([...entries].map(Number)).toEqual(kept);
    }
  });
});

describe('64-bit descriptors', () => {
  const huge = { exportSize: 2n ** 64n - 1n, count: 2n ** 63n };
  it.each<[string, Pairs, Partial<BlockStatusRequest>, bigint[]]>([
    ['one extent', [[65536, 3]], {}, [65536n, 3n]],
    ['2^40 bytes in one', [[TIB, 1]], { exportSize: TIB, count: TIB }, [2n ** 40n, 1n]],
    ['the longest that there is', [[2n ** 64n - 1n, 2n ** 64n - 1n]], huge, [2n ** 64n - 1n, 2n ** 64n - 1n]],
    [
      'an extent of length 0 later',
      [
        [1, 0],
        [0, 1],
      ],
      {},
      [1n, 0n],
    ],
    [
      'two where one was requested',
      [
        [1, 0],
        [1, 3],
      ],
      { onlyFirst: true },
      [1n, 0n],
    ],
  ])('%s, for a 64-bit call', (_title, pairs, over, expected) => {
    const decoded = decodeBlockStatus(extended(pairs), true, request({ ...over, wide: true }));
    expect(decoded).toEqual({ entries: BigUint64Array.from(expected), problem: null });
  });

  it.each<[string, Pairs, number[]]>([
    [
      'small ones stay as they are',
      [
        [4096, 1],
        [512, 2],
      ],
      [4096, 1, 512, 2],
    ],
    [
      'a long one is cut below 2^32, and nothing follows',
      [
        [GIB4, 1],
        [512, 2],
      ],
      [2 ** 32 - 65536, 1],
    ],
    [
      'a long one later is cut as well',
      [
        [512, 2],
        [2n * GIB4, 1],
        [512, 3],
      ],
      [512, 2, 2 ** 32 - 65536, 1],
    ],
    [
      'the longest that is not cut',
      [
        [GIB4 - 1n, 1],
        [512, 2],
      ],
      [2 ** 32 - 1, 1, 512, 2],
    ],
    [
      'flags of 64 bits later end the list',
      [
        [512, 2],
        [512, GIB4],
      ],
      [512, 2],
    ],
  ])('for a 32-bit call: %s', (_title, pairs, expected) => {
    const decoded = decodeBlockStatus(extended(pairs), true, request({ exportSize: TIB, count: TIB }));
    expect(decoded).toEqual({ entries: Uint32Array.from(expected), problem: null });
  });

  it('for a 32-bit call: flags of 64 bits cannot be represented', () => {
    const { entries, problem } = decodeBlockStatus(extended([[512, GIB4]]), true, request());
    expect(problem).toMatchObject({ code: 'EOVERFLOW', reason: expect.stringMatching(/blockStatus64/) });
    expect(entries).toHaveLength(0);
  });

  it.each<[string, Pairs, Partial<BlockStatusRequest>, RegExp]>([
    ['a first extent of length 0', [[0, 1]], {}, /first extent has length 0/],
    ['a length that would wrap around', [[2n ** 64n - 1n, 0]], { offset: 4096 }, /extent 0 extends beyond the export/],
  ])('%s is the fault of the server', (_title, pairs, over, reason) => {
    for (const wide of [false, true]) {
      const { entries, problem } = decodeBlockStatus(extended(pairs), true, request({ ...over, wide }));
      expect(problem).toEqual({ code: 'EPROTO', reason: expect.stringMatching(reason) });
      expect(entries).toHaveLength(0);
    }
  });
});

describe('a million extents', () => {
  it('are one array', () => {
    const data = Buffer.alloc(8 * 2 ** 20);
    for (let i = 0; i < 2 ** 20; i++) {
      data.writeUInt32BE(512 + (i & 1), 8 * i);
      data.writeUInt32BE(i & 3, 8 * i + 4);
    }
    const big = request({ exportSize: TIB, count: TIB });
    const { entries, problem } = decodeBlockStatus(data, false, big);
    expect(problem).toBeNull();
    expect(entries).toBeInstanceOf(Uint32Array);
    expect(entries).toHaveLength(2 ** 21);
    expect([...entries.subarray(0, 4)]).toEqual([512, 0, 513, 1]);
    expect([...entries.subarray(-4)]).toEqual([512, 2, 513, 3]);
    expect(decodeBlockStatus(data, false, { ...big, wide: true }).entries.at(-1)).toBe(3n);
  });

  it('leave the bytes that they came in as they were', () => {
    const data = narrow([[65536, 3]]);
    decodeBlockStatus(data, false, request());
    expect(data).toEqual(narrow([[65536, 3]]));
  });
});

/** The extents that a 32-bit answer of such lengths within `count` bytes has, one by one. */
function usable(lengths: readonly number[], count: number): number {
  let used = 0;
  for (let covered = 0; used < lengths.length && covered < count; used++) {
    if (lengths[used] === 0) break;
    covered += lengths[used]!;
  }
  return used;
}

describe.each([1, 0, 2 ** 27, 2 ** 27 + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 1, 2 ** 32 - 1])(
  'an extent of length %d among short ones',
  (length) => {
    it.each([TIB, 20 * 4096, 20 * 4096 + 1, 2 ** 31])('in a request of %d bytes', (count) => {
      for (let position = 1; position < 40; position++) {
        const lengths = Array.from({ length: 40 }, (_, index) => (index === position ? length : 4096));
        const data = narrow(lengths.map((value, index) => [value, index & 3] as const));
        const { entries, problem } = decodeBlockStatus(data, false, request({ count, exportSize: TIB }));
        const wanted = lengths.slice(0, usable(lengths, count)).flatMap((value, index) => [value, index & 3]);
        expect([position, problem, [...entries]]).toEqual([position, null, wanted]);
      }
    });
  },
);

it(withSeed('a chunk that arrives in pieces is decoded as one that is there at once'), () => {
  for (let life = 0; life < 400; life++) {
    const random = new Random(seedOf(SEED, life));
    const isExtended = random.oneIn(2);
    const pairs = Array.from({ length: random.between(1, 60) }, (): [number | bigint, number | bigint] => [
      random.oneIn(30) ? random.pick(isExtended ? [0, GIB4, 2n ** 62n] : [0, 0xffffffff]) : random.between(1, 5000),
      random.oneIn(30) && isExtended ? GIB4 : random.between(0, 3),
    ]);
    const over = {
      ...{ wide: random.oneIn(2), onlyFirst: random.oneIn(8), offset: random.pick([0, 512]) },
      count: random.pick([65536, 1000, TIB, 2n ** 60n]),
      exportSize: random.pick([2 ** 16, 2 ** 20, TIB, 2n ** 62n]),
    };
    const data = isExtended ? extended(pairs) : narrow(pairs);
    const wanted = decodeBlockStatus(data, isExtended, request(over));
    // Memory that has room for the identifier in front, as a chunk's has.
    const memory = Buffer.from(new Uint8Array(data.length + 8).buffer)
      .subarray(isExtended ? 8 : 4)
      .subarray(0, data.length);
    const arriving = new ArrivingBlockStatus(memory, isExtended, request(over));
    for (let at = 0; at < data.length;) {
      const next = Math.min(at + random.between(1, 100), data.length);
      data.copy(memory, at, at, next);
      arriving.arrived(next);
      at = next;
    }
    expect({ life, ...arriving.decoded() }).toEqual({ life, ...wanted });
  }
});

describe('encodeBlockStatusFilter', () => {
  it('writes the length of the range and the context IDs', () => {
    expect(encodeBlockStatusFilter(TIB, [1, 0x80000000]).toString('hex')).toBe('00000100000000000000000180000000');
    expect(encodeBlockStatusFilter(2n ** 64n - 1n, []).toString('hex')).toBe('ffffffffffffffff');
  });
});
