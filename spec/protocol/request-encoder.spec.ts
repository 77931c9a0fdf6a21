import { describe, expect, it } from '@jest/globals';

import { Command } from '../../lib/client/transmission/command.js';
import * as spec from '../../lib/protocol/commands.js';
import { encodeRequest } from '../../lib/protocol/request-encoder.js';
import { type U64 } from '../../lib/util/u64.js';

interface Row {
  readonly command: spec.CommandSpec;
  readonly count: U64;
  readonly offset: U64;
  readonly flags?: number;
  readonly cookie?: number;
  readonly payload?: Uint8Array;
  readonly extended?: boolean;
  /** magic flags type | cookie | offset | length, as proto.md draws it. */
  readonly hex: string;
}

function encode({ command, count, offset, flags = 0, cookie = 1, payload, extended = false }: Row): string {
  const request = new Command(command, count, offset, flags);
  request.cookie = cookie;
  request.payload = payload ?? null;
  const slab = Buffer.alloc(48, 0xee);
  const end = encodeRequest(slab, 8, request, extended);
  expect(end).toBe(8 + (extended ? 32 : 28));
  expect(slab.toString('hex', 0, 8)).toBe('ee'.repeat(8));
  expect(slab.toString('hex', end)).toBe('ee'.repeat(48 - end));
  return slab.toString('hex', 8, end);
}

const rows: readonly (readonly [string, Row])[] = [
  [
    'a read',
    {
      command: spec.PREAD,
      count: 512,
      offset: 4096,
      hex: '25609513 0000 0000 0000000000000001 0000000000001000 00000200',
    },
  ],
  [
    'a write with FUA',
    {
      ...{ command: spec.PWRITE, count: 3, offset: 1, flags: 1, cookie: 2, payload: new Uint8Array(3) },
      hex: '25609513 0001 0001 0000000000000002 0000000000000001 00000003',
    },
  ],
  [
    'a flush, whose offset and length are 0',
    { command: spec.FLUSH, count: 0, offset: 0, hex: '25609513 0000 0003 0000000000000001 0000000000000000 00000000' },
  ],
  [
    'a disconnect',
    {
      command: spec.DISCONNECT,
      count: 0,
      offset: 0,
      hex: '25609513 0000 0002 0000000000000001 0000000000000000 00000000',
    },
  ],
  [
    'a trim of 3 GiB, whose length has no sign',
    {
      ...{ command: spec.TRIM, count: 3 * 2 ** 30, offset: 0 },
      hex: '25609513 0000 0004 0000000000000001 0000000000000000 c0000000',
    },
  ],
  [
    'a cache of the longest length',
    {
      ...{ command: spec.CACHE, count: 2 ** 32 - 1, offset: 0, cookie: 2 ** 32 + 5 },
      hex: '25609513 0000 0005 0000000100000005 0000000000000000 ffffffff',
    },
  ],
  [
    'a zero with every flag',
    {
      ...{ command: spec.ZERO, count: 1, offset: 2 ** 40, flags: 1 | 2 | 16 },
      hex: '25609513 0013 0006 0000000000000001 0000010000000000 00000001',
    },
  ],
  [
    'a block status of one extent',
    {
      ...{ command: spec.BLOCK_STATUS, count: 65536, offset: 0, flags: 8 },
      hex: '25609513 0008 0007 0000000000000001 0000000000000000 00010000',
    },
  ],
  [
    'a structured read with DF at an offset above 2^53',
    {
      ...{ command: spec.PREAD_STRUCTURED, count: 1, offset: 9007199254740993n, flags: 4 },
      hex: '25609513 0004 0000 0000000000000001 0020000000000001 00000001',
    },
  ],
  [
    'an extended trim of 2^40 bytes',
    {
      ...{ command: spec.TRIM, count: 2 ** 40, offset: 2n ** 63n, extended: true },
      hex: '21e41c71 0000 0004 0000000000000001 8000000000000000 0000010000000000',
    },
  ],
  [
    'an extended write, whose length is that of its payload',
    {
      ...{ command: spec.PWRITE, count: 5, offset: 0, flags: 32, payload: new Uint8Array(5), extended: true },
      hex: '21e41c71 0020 0001 0000000000000001 0000000000000000 0000000000000005',
    },
  ],
  [
    'an extended block status with a filter: the length counts the filter, not the range',
    {
      ...{ command: spec.BLOCK_STATUS_FILTER, count: 2 ** 40, offset: 0, flags: 32, payload: new Uint8Array(12) },
      extended: true,
      hex: '21e41c71 0020 0007 0000000000000001 0000000000000000 000000000000000c',
    },
  ],
];

describe('encodeRequest', () => {
  it.each(rows)('%s', (_title, row) => {
    expect(encode(row)).toBe(row.hex.replaceAll(' ', ''));
  });
});
