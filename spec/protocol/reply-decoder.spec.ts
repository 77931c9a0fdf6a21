import { describe, it } from '@jest/globals';

import * as spec from '../../lib/protocol/commands.js';
import * as g from '../support/golden.js';
import { type DecoderCase, decodeEveryWay, type InFlight } from './decoding.js';

const read = (count: number, offset = 0): InFlight => ({ command: spec.PREAD, count, offset });
const structuredRead = (count: number, offset = 0, flags = 0): InFlight => ({
  ...{ command: spec.PREAD_STRUCTURED, count, offset, flags },
});
const write: InFlight = { command: spec.PWRITE, count: 512 };
const flush: InFlight = { command: spec.FLUSH, count: 0 };
const cache: InFlight = { command: spec.CACHE, count: 512, offset: 4096 };
const { content, simple, chunk, dataChunk, errorChunk, holeChunk, cat, u16, u32, u64, DONE } = g;

const run = (title: string, each: DecoderCase): void => {
  it(title, () => {
    decodeEveryWay(each);
  });
};

describe('simple replies', () => {
  const mode = 'simple';
  const data = content(4096, 64);

  run('a read', { mode, inFlight: [read(64, 4096)], bytes: simple(1, 0, data), endings: ['ok'], chunks: 1 });
  run('commands without data', {
    ...{ mode, inFlight: [write, flush, cache], endings: ['ok', 'ok', 'ok'], chunks: 3 },
    bytes: cat(simple(3), simple(1), simple(2)),
  });
  run('two reads out of order', {
    ...{ mode, inFlight: [read(16), read(8, 512)], endings: ['ok', 'ok'] },
    bytes: cat(simple(2, 0, content(512, 8)), simple(1, 0, content(0, 16))),
  });
  run('an error between data', {
    ...{ mode, inFlight: [read(8), read(8), read(8)] },
    bytes: cat(simple(1, 0, content(0, 8)), simple(2, 5), simple(3, 0, content(0, 8))),
    endings: ['ok', { code: 'EIO', says: /pread of 8 bytes at offset 0: .*Input\/output error \(EIO\)/ }, 'ok'],
  });
  for (const [wire, code] of [
    ...([
      [1, 'EPERM'],
      [5, 'EIO'],
      [12, 'ENOMEM'],
      [22, 'EINVAL'],
      [28, 'ENOSPC'],
    ] as const),
    ...([
      [75, 'EOVERFLOW'],
      [95, 'ENOTSUP'],
      [108, 'ESHUTDOWN'],
    ] as const),
  ] as const) {
    run(`error ${wire}`, {
      mode,
      inFlight: [cache],
      bytes: simple(1, wire),
      endings: [{ code, says: /^cache of 512 bytes/ }],
    });
  }
  run('an error that is not in the list', {
    ...{
      mode,
      inFlight: [cache],
      bytes: simple(1, 9999),
      endings: [{ code: 'EINVAL', says: /error 9999 on the wire/ }],
    },
  });

  run('another magic', {
    mode,
    inFlight: [read(8)],
    bytes: cat(u32(0xdeadbeef), u64(0)),
    endings: [],
    violation: /magic 0xdeadbeef/,
  });
  run('a structured reply that was not negotiated', {
    ...{ mode, inFlight: [read(8)], endings: [], violation: /magic 0x668e33ef is not that of a simple reply/ },
    bytes: dataChunk(1, 0, content(0, 8)),
  });
  run('the cookie of nothing', {
    mode,
    inFlight: [read(8)],
    bytes: simple(7),
    endings: [],
    violation: /cookie 7 is that of no command/,
  });
  run('an error for the cookie of nothing', {
    mode,
    inFlight: [read(8)],
    bytes: simple(7, 5),
    endings: [],
    violation: /cookie 7/,
  });
  run('a cookie above 2^53', {
    mode,
    inFlight: [read(8)],
    bytes: simple(2n ** 64n - 1n),
    endings: [],
    violation: /no command in flight/,
  });
  run('two replies to one write', {
    mode,
    inFlight: [write],
    bytes: cat(simple(1), simple(1)),
    endings: ['ok'],
    violation: /cookie 1/,
  });
  run('a byte too many', {
    ...{ mode, inFlight: [read(8), flush], endings: ['ok', 'pending'], violation: /magic 0x78674466/ },
    bytes: cat(simple(1, 0, content(0, 8)), 'x', simple(2)),
  });
});

describe('structured replies to a read', () => {
  const mode = 'structured';
  const d = content(0, 64);
  const part = (from: number, to: number, flags = 0): Buffer => dataChunk(1, from, d.subarray(from, to), flags);
  const one = { mode, inFlight: [read(64)], endings: ['ok'] } as const;

  run('one chunk', { ...one, bytes: dataChunk(1, 0, d), chunks: 1 });
  run('two chunks', { ...one, bytes: cat(part(0, 12), part(12, 64, DONE)), chunks: 2 });
  run('an end of its own', { ...one, bytes: cat(part(0, 64), chunk(DONE, g.NONE, 1)), chunks: 2 });
  run('four chunks in reverse', {
    ...one,
    bytes: cat(part(48, 64), part(32, 48), part(16, 32), part(0, 16), chunk(DONE, g.NONE, 1)),
  });
  run('flags that nobody knows', { ...one, bytes: chunk(0xffff, g.DATA, 1, cat(u64(0), d)) });
  run('a hole', { ...one, bytes: holeChunk(1, 0, 64), endings: [{ data: Buffer.alloc(64) }] });
  run('a hole between data', {
    ...one,
    bytes: cat(part(0, 12), holeChunk(1, 12, 38, 0), part(50, 64, DONE)),
    endings: [{ data: cat(d.subarray(0, 12), Buffer.alloc(38), d.subarray(50)) }],
  });
  run('far into a large export', {
    ...{ mode, inFlight: [{ command: spec.PREAD, count: 4, offset: 2n ** 63n + 1n }] },
    bytes: cat(dataChunk(1, 2n ** 63n + 3n, 'cd', 0), dataChunk(1, 2n ** 63n + 1n, 'ab')),
    endings: [{ data: Buffer.from('abcd') }],
  });
  run('two reads, their chunks mixed', {
    ...{ mode, inFlight: [read(64), read(64, 64)], endings: ['ok', 'ok'], chunks: 4 },
    bytes: cat(
      part(0, 32),
      dataChunk(2, 64, content(64, 40), 0),
      part(32, 64, DONE),
      dataChunk(2, 104, content(104, 24)),
    ),
  });
  run('one byte a chunk, in reverse', {
    ...one,
    bytes: cat(...Array.from(d, (_, i) => part(63 - i, 64 - i)), chunk(DONE, g.NONE, 1)),
  });

  const eproto = (says: RegExp): DecoderCase['endings'] => [{ code: 'EPROTO', says }];
  run('half of the data', { ...one, bytes: part(0, 32, DONE), endings: eproto(/32 of 64 bytes/) });
  run('the first half twice', {
    ...one,
    bytes: cat(part(0, 32), part(0, 32, DONE)),
    endings: eproto(/overlapping data/),
  });
  run('an overlap of one byte', {
    ...one,
    bytes: cat(part(0, 33), part(32, 64, DONE)),
    endings: eproto(/overlapping data/),
  });
  run('a gap hidden by an overlap', {
    ...one,
    bytes: cat(part(0, 33), part(32, 63, DONE)),
    endings: eproto(/overlapping data/),
  });
  run('data under a hole', {
    ...one,
    bytes: cat(part(0, 64), holeChunk(1, 0, 1)),
    endings: eproto(/overlapping data/),
  });
  run('no data at all', { ...one, bytes: chunk(DONE, g.NONE, 1), endings: eproto(/no data/) });

  const eio = (serverMessage?: string): DecoderCase['endings'] => [
    { code: 'EIO', ...(serverMessage === undefined ? {} : { serverMessage }) },
  ];
  run('an error', { ...one, bytes: errorChunk(1, 5), endings: eio() });
  run('an error with a message', { ...one, bytes: errorChunk(1, 5, 'bad sector'), endings: eio('bad sector') });
  run('an error first, the end later', {
    ...one,
    bytes: cat(errorChunk(1, 5, 'bad', 0), chunk(DONE, g.NONE, 1)),
    endings: eio('bad'),
  });
  run('all data, then an error', { ...one, bytes: cat(part(0, 64), errorChunk(1, 5)), endings: eio() });
  run('two errors: the first counts', {
    ...one,
    bytes: cat(errorChunk(1, 5, 'first', 0), errorChunk(1, 28, 'second')),
    endings: eio('first'),
  });
  run('an error of a kind that nobody knows', {
    ...one,
    bytes: chunk(DONE, 0x80ff, 1, cat(u32(5), u16(2), 'hi', 'tail')),
    endings: eio('hi'),
  });
  run('a message that is no text', {
    ...one,
    bytes: chunk(DONE, g.ERROR, 1, cat(u32(5), u16(6), '\x1b[2J', Buffer.of(0xff, 0))),
    endings: eio('\\x1b[2J\\xff\\x00'),
  });
  run('an error with an offset', {
    ...one,
    bytes: chunk(DONE, g.ERROR_OFFSET, 1, cat(u32(5), u16(2), 'hi', u64(50))),
    endings: [{ code: 'EIO', says: /at offset 50/, serverMessage: 'hi' }],
  });
  run('half of the data, then an error with an offset', {
    ...one,
    bytes: cat(part(0, 32), chunk(0, g.ERROR_OFFSET, 1, cat(u32(5), u16(0), u64(32))), chunk(DONE, g.NONE, 1)),
    endings: eio(),
  });
  run('an error without a number', { ...one, bytes: errorChunk(1, 0), endings: eproto(/error number 0/) });
  run('a split reply although DF forbade it', {
    ...one,
    inFlight: [structuredRead(64, 0, 4)],
    bytes: cat(part(0, 32), part(32, 64, DONE)),
    endings: eproto(/DF flag/),
  });
  run('a simple error', { ...one, bytes: simple(1, 12), endings: [{ code: 'ENOMEM' }] });
});

describe('the callbacks of a structured read', () => {
  const mode = 'structured';
  run('of every chunk', {
    ...{ mode, inFlight: [structuredRead(64, 4096)] },
    bytes: cat(
      dataChunk(1, 4128, content(4128, 32), 0),
      chunk(0, g.ERROR_OFFSET, 1, cat(u32(5), u16(0), u64(4110))),
      holeChunk(1, 4096, 32),
    ),
    endings: [{ code: 'EIO' }],
    told: [
      [1, 4128, 32],
      [3, 4110, 0],
      [2, 4096, 32],
    ],
  });
  run('of a simple reply', {
    ...{ mode: 'simple', inFlight: [structuredRead(16)], bytes: simple(1, 0, content(0, 16)), endings: ['ok'] },
    told: [[1, 0, 16]],
  });
});
