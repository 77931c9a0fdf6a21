import { describe, expect, it } from '@jest/globals';

import { Command } from '../../lib/client/transmission/command.js';
import * as spec from '../../lib/protocol/commands.js';
import { ReplyDecoder } from '../../lib/protocol/reply-decoder.js';
import { caught } from '../support/caught.js';
import * as g from '../support/golden.js';
import { decodeEveryWay, type InFlight } from './decoding.js';

const { cat, chunk, content, dataChunk, DONE, errorChunk, holeChunk, simple, statusChunk, u16, u32, u64 } = g;
const read: InFlight = { command: spec.PREAD, count: 64, offset: 4096 };
const write: InFlight = { command: spec.PWRITE, count: 64 };
const status: InFlight = { command: spec.BLOCK_STATUS, count: 65536 };
const d = content(4096, 64);

// Rules that cost the connection. The bytes end where the rule is broken at the latest: nothing more may be waited
// for, and above all nothing by a length that only the peer believes in.
describe('rules of structured replies that cost the connection', () => {
  it.each<[string, InFlight, Buffer, RegExp]>([
    ['an end with a payload', read, chunk(DONE, g.NONE, 1, 'abcd'), /NBD_REPLY_TYPE_NONE of 4 bytes/],
    ['an end without DONE', read, chunk(0, g.NONE, 1), /NBD_REPLY_TYPE_NONE of 0 bytes/],
    ['data of 7 bytes', read, chunk(DONE, g.DATA, 1, '1234567'), /OFFSET_DATA of 7 bytes/],
    ['data of an offset alone', read, chunk(DONE, g.DATA, 1, u64(4096)), /OFFSET_DATA of 8 bytes/],
    ['data before the request', read, chunk(DONE, g.DATA, 1, u64(4095), 8 + 64), /offset 4095, outside the request/],
    ['data past the request', read, chunk(DONE, g.DATA, 1, u64(4097), 8 + 64), /offset 4097, outside the request/],
    ['data far past the request', read, chunk(DONE, g.DATA, 1, u64(2n ** 64n - 1n), 9), /outside the request/],
    ['one byte of data too many', read, chunk(DONE, g.DATA, 1, '', 8 + 65), /OFFSET_DATA of 73 bytes/],
    [
      'data of 4 GiB, by the header alone',
      read,
      chunk(DONE, g.DATA, 1, '', 0xffffffff),
      /OFFSET_DATA of 4294967295 bytes/,
    ],
    ['data for a write', write, dataChunk(1, 0, ''), /OFFSET_DATA of 8 bytes/],
    ['a hole of no bytes', read, holeChunk(1, 4096, 0), /a hole of no bytes/],
    ['a hole of 4 GiB', read, holeChunk(1, 4096, 0xffffffff), /outside the request/],
    ['a hole of 11 bytes of payload', read, chunk(DONE, g.HOLE, 1, '', 11), /OFFSET_HOLE of 11 bytes/],
    [
      'a hole for a flush',
      { command: spec.FLUSH, count: 0 },
      chunk(DONE, g.HOLE, 1, '', 12),
      /OFFSET_HOLE of 12 bytes/,
    ],
    ['a chunk of an unknown type', read, chunk(DONE, 7, 1, '', 8), /chunk type 0x7 of 8 bytes/],
    ['block status for a read', read, chunk(DONE, g.STATUS, 1, '', 12), /BLOCK_STATUS of 12 bytes/],
    [
      'a simple reply to a read',
      read,
      simple(1),
      /a simple reply to a read although structured replies were negotiated/,
    ],
    ['an error of 4 bytes', read, chunk(DONE, g.ERROR, 1, '', 4), /NBD_REPLY_TYPE_ERROR of 4 bytes/],
    ['an error with half an offset', read, chunk(DONE, g.ERROR_OFFSET, 1, '', 10), /ERROR_OFFSET of 10 bytes/],
    ['an error of 32 MiB, by the header alone', read, chunk(DONE, g.ERROR, 1, '', 32 << 20), /of 33554432 bytes/],
    [
      'an error whose message runs past it',
      read,
      chunk(DONE, g.ERROR, 1, cat(u32(5), u16(3), 'ab')),
      /message of 3 bytes runs past/,
    ],
    [
      'an error whose message leaves no room for the offset',
      read,
      chunk(DONE, g.ERROR_OFFSET, 1, cat(u32(5), u16(1), 'a', u64(4096).subarray(1))),
      /message of 1 bytes runs past/,
    ],
    [
      'an error before the request',
      read,
      chunk(DONE, g.ERROR_OFFSET, 1, cat(u32(5), u16(0), u64(4095))),
      /error for offset 4095, outside/,
    ],
    [
      'an error after the request',
      read,
      chunk(DONE, g.ERROR_OFFSET, 1, cat(u32(5), u16(0), u64(4160))),
      /error for offset 4160, outside/,
    ],
    ['extents without a descriptor', status, chunk(DONE, g.STATUS, 1, '', 4), /BLOCK_STATUS of 4 bytes/],
    ['half a descriptor', status, chunk(DONE, g.STATUS, 1, '', 16), /BLOCK_STATUS of 16 bytes/],
    [
      'more than 2^20 extents, by the header alone',
      status,
      chunk(DONE, g.STATUS, 1, '', 4 + 8 * (2 ** 20 + 1)),
      /BLOCK_STATUS of 8388620 bytes/,
    ],
    ['64 MiB of extents', status, chunk(DONE, g.STATUS, 1, '', (64 << 20) + 12), /BLOCK_STATUS of 67108876 bytes/],
    [
      'extended extents of an odd length',
      status,
      chunk(DONE, g.STATUS_EXT, 1, '', 8 + 15),
      /BLOCK_STATUS_EXT of 23 bytes/,
    ],
    ['a chunk for the cookie of nothing', read, errorChunk(9, 5, 'xx'), /cookie 9 is that of no command/],
    [
      'an extended reply',
      read,
      g.extendedChunk(DONE, g.NONE, 1, 4096),
      /magic 0x6e8a278c is not that of a simple or structured reply/,
    ],
  ])('%s', (_title, command, bytes, violation) => {
    decodeEveryWay({ mode: 'structured', inFlight: [command], bytes, endings: [], violation });
  });

  it('data for one command under the cookie of another', () => {
    const other: InFlight = { command: spec.PREAD, count: 64, offset: 8192 };
    decodeEveryWay({
      ...{ mode: 'structured', inFlight: [read, other], bytes: dataChunk(2, 4096, d), endings: [] },
      violation: /pread of 64 bytes at offset 8192: the server sent data for 64 bytes at offset 4096/,
    });
  });

  it('a reply that comes again after its command has finished', () => {
    decodeEveryWay({
      ...{ mode: 'structured', inFlight: [read], bytes: cat(dataChunk(1, 4096, d), dataChunk(1, 4096, d)) },
      ...{ endings: ['ok'], violation: /cookie 1 is that of no command in flight/ },
    });
  });

  it('the violation carries the command in whose reply it was', () => {
    const command = new Command(spec.PREAD, 64, 4096, 0);
    command.cookie = 5;
    const decoder = new ReplyDecoder(
      { find: () => command, finished: () => undefined, expectsLarge: false },
      { structuredReplies: true, extendedHeaders: false, exportSize: 1 << 20, contexts: new Map() },
    );
    expect(caught(() => decoder.push(holeChunk(5, 4096, 0)))).toMatchObject({
      ...{ code: 'EPROTO', syscall: 'pread', cookie: 5n, count: 64n, offset: 4096n },
      message: 'pread of 64 bytes at offset 4096: the server sent a hole of no bytes',
    });
  });
});

describe('a reply without end', () => {
  const endless = (command: InFlight, bytes: Buffer): { error: unknown; chunks: number } => {
    const inFlight = new Command(command.command, command.count, command.offset ?? 0, 0);
    inFlight.cookie = 1;
    inFlight.allocate = (length) => Buffer.alloc(length);
    const decoder = new ReplyDecoder(
      { find: () => inFlight, finished: () => undefined, expectsLarge: false },
      { structuredReplies: true, extendedHeaders: false, exportSize: 2 ** 40, contexts: new Map([[1, 'a:b']]) },
    );
    const error = caught(() => {
      for (let i = 0; i < 2 ** 18; i++) decoder.push(bytes);
    });
    return { error, chunks: decoder.chunks };
  };

  it('of errors ends the connection after 1024', () => {
    const { error, chunks } = endless(read, errorChunk(1, 5, 'again', 0));
    expect(error).toMatchObject({ code: 'EPROTO', message: expect.stringMatching(/more than 1024 errors/) });
    expect(chunks).toBe(1025);
  });

  it('of holes over one place ends it as well', () => {
    const { error, chunks } = endless(read, holeChunk(1, 4096, 1, 0));
    expect(error).toMatchObject({ code: 'EPROTO', message: expect.stringMatching(/that bring no data/) });
    expect(chunks).toBeLessThanOrEqual(2 ** 17 + 1);
  });

  it('of block status ends it as well', () => {
    expect(endless(status, statusChunk(1, 1, [[512, 0]], 0)).error).toMatchObject({ code: 'EPROTO' });
  });

  it('of data over one place ends it as well', () => {
    expect(endless(read, dataChunk(1, 4096, 'x', 0)).error).toMatchObject({ code: 'EPROTO' });
  });
});

describe('a long reply that ends', () => {
  it('is taken, however many chunks its data come in', () => {
    const count = 2 ** 17 + 10;
    const command = new Command(spec.PREAD, count, 0, 0);
    command.allocate = (length) => Buffer.alloc(length);
    let finished = 0;
    const decoder = new ReplyDecoder(
      { find: () => command, finished: () => void finished++, expectsLarge: false },
      { structuredReplies: true, extendedHeaders: false, exportSize: 2 ** 40, contexts: new Map() },
    );
    const one = dataChunk(0, 0, 'x', 0);
    for (let at = 0; at < count; at++) {
      one.writeUInt32BE(at, 24);
      if (at === count - 1) one[5] = DONE;
      decoder.push(one);
    }
    expect([finished, command.error, decoder.chunks]).toEqual([1, null, count]);
  });
});

describe('what is left of a decoder', () => {
  const decoder = (): ReplyDecoder =>
    new ReplyDecoder(
      { find: () => undefined, finished: () => undefined, expectsLarge: false },
      { structuredReplies: true, extendedHeaders: false, exportSize: 0, contexts: new Map() },
    );

  it('nothing is looked at after stop()', () => {
    const stopped = decoder();
    stopped.stop();
    stopped.push(Buffer.from('what is this?'));
    expect(stopped.chunks).toBe(0);
  });

  it.each<[string, (command: Command) => Buffer, RegExp]>([
    ['nothing', () => Buffer.alloc(0), /^between replies$/],
    ['a part of a header', () => dataChunk(1, 4096, d).subarray(0, 10), /^inside the header of a reply$/],
    [
      'a part of an offset',
      () => dataChunk(1, 4096, d).subarray(0, 25),
      /^inside a chunk \(NBD_REPLY_TYPE_OFFSET_DATA\), with 3 bytes/,
    ],
    ['a part of the data', () => dataChunk(1, 4096, d).subarray(0, 28 + 24), /with 40 bytes still due$/],
    ['a chunk that was not the last', () => dataChunk(1, 4096, d, 0), /^between replies$/],
  ])('after %s the message contains the position', (_title, bytes, position) => {
    const command = new Command(spec.PREAD, 64, 4096, 0);
    command.allocate = (length) => Buffer.alloc(length);
    const cut = new ReplyDecoder(
      { find: () => command, finished: () => undefined, expectsLarge: false },
      { structuredReplies: true, extendedHeaders: false, exportSize: 1 << 20, contexts: new Map() },
    );
    cut.push(bytes(command));
    expect(cut.position).toMatch(position);
    expect(cut.isAtBoundary).toBe(position.source.includes('between'));
  });
});
