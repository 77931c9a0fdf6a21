import { describe, expect, it } from '@jest/globals';

import { Command } from '../../lib/client/transmission/command.js';
import * as spec from '../../lib/protocol/commands.js';
import { ReplyDecoder } from '../../lib/protocol/reply-decoder.js';
import { caught } from '../support/caught.js';
import * as g from '../support/golden.js';
import { type DecoderCase, decodeEveryWay, type InFlight } from './decoding.js';

const { cat, chunk, content, DONE, extendedChunk, simple, statusChunk, u16, u32, u64 } = g;
const read: InFlight = { command: spec.PREAD, count: 64, offset: 4096 };
const d = content(4096, 64);
const extents = (...pairs: (readonly [number | bigint, number | bigint])[]): Buffer =>
  cat(u32(1), u32(pairs.length), ...pairs.flat().map(u64));

const run = (title: string, each: Omit<DecoderCase, 'mode'>): void => {
  it(title, () => {
    decodeEveryWay({ mode: 'extended', ...each });
  });
};

describe('extended replies', () => {
  const x = (flags: number, type: number, payload: Uint8Array | string = ''): Buffer =>
    extendedChunk(flags, type, 1, 4096, payload);
  const data = (from: number, to: number, flags: number): Buffer =>
    x(flags, g.DATA, cat(u64(4096 + from), d.subarray(from, to)));

  run('a read', { inFlight: [read], bytes: data(0, 64, DONE), endings: ['ok'], chunks: 1 });
  run('a read in three parts', {
    ...{ inFlight: [read], endings: [{ data: cat(d.subarray(0, 16), Buffer.alloc(16), d.subarray(32)) }] },
    bytes: cat(data(32, 64, 0), x(0, g.HOLE, cat(u64(4112), u32(16))), data(0, 16, DONE)),
  });
  run('a write', {
    inFlight: [{ command: spec.PWRITE, count: 64, offset: 4096 }],
    bytes: x(DONE, g.NONE),
    endings: ['ok'],
  });
  run('an error', {
    inFlight: [read],
    bytes: x(DONE, g.ERROR, cat(u32(28), u16(4), 'full')),
    endings: [{ code: 'ENOSPC', serverMessage: 'full' }],
  });
  run('an offset that is not the request’s fails the command alone', {
    inFlight: [read, { command: spec.FLUSH, count: 0 }],
    bytes: cat(extendedChunk(DONE, g.DATA, 1, 4608, cat(u64(4096), d)), extendedChunk(DONE, g.NONE, 2, 0)),
    endings: [{ code: 'EPROTO', says: /the server's reply is for offset 4608/ }, 'ok'],
  });

  run('a length beyond 32 bits is not cut to them', {
    ...{ inFlight: [read], endings: [], violation: /OFFSET_DATA of 4294967368 bytes/ },
    bytes: extendedChunk(DONE, g.DATA, 1, 4096, '', 2 ** 32 + 72),
  });
  run('a length beyond 2^53', {
    ...{ inFlight: [read], endings: [], violation: /OFFSET_DATA of 18446744073709552000 bytes/ },
    bytes: extendedChunk(DONE, g.DATA, 1, 4096, '', 2n ** 64n - 1n),
  });
  run('a structured reply, by its magic alone', {
    ...{ inFlight: [read], endings: [], violation: /magic 0x668e33ef is not that of an extended reply/ },
    bytes: chunk(DONE, g.NONE, 1).subarray(0, 4),
  });
  run('a simple reply, by its magic alone', {
    ...{ inFlight: [read], endings: [], violation: /magic 0x67446698 is not that of an extended reply/ },
    bytes: simple(1).subarray(0, 4),
  });
  run('a structured chunk behind an extended one', {
    ...{ inFlight: [read], endings: ['pending'], violation: /magic 0x668e33ef/ },
    bytes: cat(data(0, 32, 0), g.dataChunk(1, 4128, d.subarray(32))),
  });
  run('the cookie of nothing', {
    ...{ inFlight: [read], endings: [], violation: /cookie 8 is that of no command/ },
    bytes: extendedChunk(DONE, g.NONE, 8, 4096),
  });
});

describe('block status', () => {
  const status = (over: Partial<InFlight> = {}): InFlight => ({ command: spec.BLOCK_STATUS, count: 65536, ...over });
  const two = new Map([
    [1, 'base:allocation'],
    [2, 'x:y'],
  ]);
  const structured = (title: string, each: Omit<DecoderCase, 'mode' | 'inFlight'> & Partial<DecoderCase>): void => {
    run(title, { inFlight: [status()], ...each, mode: 'structured' } as DecoderCase);
  };

  structured('of one context', {
    bytes: statusChunk(1, 1, [
      [4096, 3],
      [61440, 0],
    ]),
    endings: [{ extents: { 'base:allocation': [4096, 3, 61440, 0] } }],
  });
  structured('of two contexts, in reverse', {
    contexts: two,
    bytes: cat(statusChunk(1, 2, [[65536, 7]], 0), statusChunk(1, 1, [[65536, 0]])),
    endings: [{ extents: { 'x:y': [65536, 7], 'base:allocation': [65536, 0] } }],
  });
  structured('with bits that nobody knows', {
    bytes: statusChunk(1, 1, [[65536, 0xfffffffc]]),
    endings: [{ extents: { 'base:allocation': [65536, 0xfffffffc] } }],
  });
  structured('of one extent where two came', {
    inFlight: [status({ flags: 8 })],
    bytes: statusChunk(1, 1, [
      [4096, 0],
      [4096, 3],
    ]),
    endings: [{ extents: { 'base:allocation': [4096, 0] } }],
  });
  structured('refused', { bytes: g.errorChunk(1, 22), endings: [{ code: 'EINVAL' }] });
  structured('refused by a simple reply', { bytes: simple(1, 22), endings: [{ code: 'EINVAL' }] });

  const eproto = (says: RegExp): DecoderCase['endings'] => [{ code: 'EPROTO', says }];
  structured('of a context that was not asked for', {
    bytes: statusChunk(1, 9, [[65536, 0]]),
    endings: eproto(/reported on context 9, which was not asked for/),
  });
  structured('of one context twice', {
    bytes: cat(statusChunk(1, 1, [[4096, 0]], 0), statusChunk(1, 1, [[4096, 3]])),
    endings: eproto(/reported twice on base:allocation/),
  });
  structured('of one context out of two', {
    contexts: two,
    bytes: statusChunk(1, 1, [[65536, 0]]),
    endings: eproto(/did not report on x:y/),
  });
  structured('of nothing', { bytes: chunk(DONE, g.NONE, 1), endings: eproto(/did not report on base:allocation/) });
  structured('by a simple reply', { bytes: simple(1), endings: eproto(/simple reply, which cannot carry extents/) });
  structured('past the export', {
    exportSize: 65536,
    bytes: statusChunk(1, 1, [
      [4096, 0],
      [65536, 0],
    ]),
    endings: eproto(/extents for base:allocation extent 1 extends beyond the export of 65536 bytes/),
  });
  structured('of no length', { bytes: statusChunk(1, 1, [[0, 0]]), endings: eproto(/first extent has length 0/) });
  structured('of 64 bits where extended headers were not negotiated', {
    bytes: chunk(DONE, g.STATUS_EXT, 1, extents([65536, 0])),
    endings: eproto(/64-bit extents although extended headers were not negotiated/),
  });

  run('of 64 bits, over 2^40 bytes', {
    ...{ inFlight: [{ command: spec.BLOCK_STATUS_64, count: 2 ** 40 }], exportSize: 2 ** 40 },
    bytes: extendedChunk(DONE, g.STATUS_EXT, 1, 0, extents([2 ** 40, 3])),
    endings: [{ extents: { 'base:allocation': [2 ** 40, 3] } }],
  });
  run('of 64 bits for a 32-bit call', {
    inFlight: [status()],
    bytes: extendedChunk(DONE, g.STATUS_EXT, 1, 0, extents([4096, 1], [61440, 0])),
    endings: [{ extents: { 'base:allocation': [4096, 1, 61440, 0] } }],
  });
  run('of flags that 32 bits cannot hold', {
    inFlight: [status()],
    bytes: extendedChunk(DONE, g.STATUS_EXT, 1, 0, extents([4096, 2n ** 40n])),
    endings: [{ code: 'EOVERFLOW', says: /blockStatus64/ }],
  });
  run('of 32 bits where extended headers were negotiated', {
    inFlight: [status()],
    bytes: extendedChunk(DONE, g.STATUS, 1, 0, cat(u32(1), u32(65536), u32(0))),
    endings: eproto(/32-bit extents although extended headers were negotiated/),
  });
  run('of a number of extents that is not the chunk’s', {
    ...{ inFlight: [status()], endings: [], violation: /2 extents in a chunk of 24 bytes/ },
    bytes: extendedChunk(DONE, g.STATUS_EXT, 1, 0, cat(u32(1), u32(2), u64(65536), u64(0))),
  });
  run('of no extents', {
    ...{ inFlight: [status()], endings: [], violation: /BLOCK_STATUS_EXT of 8 bytes/ },
    bytes: extendedChunk(DONE, g.STATUS_EXT, 1, 0, cat(u32(1), u32(0))),
  });

  it('with a filter must contain the requested contexts, and nothing else', () => {
    const command = new Command(spec.BLOCK_STATUS_FILTER, 65536, 0, 0x20);
    command.expected = [2];
    const finished: Command[] = [];
    const decoder = new ReplyDecoder(
      { find: () => command, finished: (each) => void finished.push(each), expectsLarge: false },
      { structuredReplies: true, extendedHeaders: true, exportSize: 1 << 20, contexts: two },
    );
    const report = (flags: number, id: number): Buffer =>
      extendedChunk(flags, g.STATUS_EXT, 0, 0, cat(u32(id), u32(1), u64(65536), u64(0)));
    decoder.push(report(DONE, 2));
    expect(command.error).toBeNull();
    expect(finished).toHaveLength(1);

    command.reported = null;
    decoder.push(report(DONE, 1));
    expect(command.error).toMatchObject({
      code: 'EPROTO',
      message: expect.stringMatching(/context 1, which/),
    });
  });
});

describe('payload that goes straight into the buffer', () => {
  const large = 300 * 1024;
  const make = (): { command: Command; decoder: ReplyDecoder; finished: Command[] } => {
    const command = new Command(spec.PREAD, large, 0, 0);
    command.cookie = 1;
    command.buffer = Buffer.alloc(large, 0xdb);
    command.ownsBuffer = true;
    const finished: Command[] = [];
    const decoder = new ReplyDecoder(
      {
        find: () => (finished.length === 0 ? command : undefined),
        finished: (each) => void finished.push(each),
        expectsLarge: false,
      },
      { structuredReplies: false, extendedHeaders: false, exportSize: 1 << 20, contexts: new Map() },
    );
    return { command, decoder, finished };
  };

  it('is requested while at least 128 KiB of it are due, and not below', () => {
    const { command, decoder, finished } = make();
    const bytes = simple(1, 0, content(0, large));
    const targets: boolean[] = [];
    for (let at = 0; at < bytes.length;) {
      const target = decoder.target();
      const direct = target.buffer === command.buffer?.buffer;
      targets.push(direct);
      const length = Math.min(target.length, at === 0 ? 16 : 100 * 1024, bytes.length - at);
      target.set(bytes.subarray(at, at + length));
      decoder.advance(length);
      at += length;
    }
    expect(targets).toEqual([false, true, true, false]);
    expect(finished).toEqual([command]);
    expect(Buffer.compare(command.buffer!, content(0, large))).toBe(0);
  });

  it('may come by push() although a target was given', () => {
    const { command, decoder, finished } = make();
    decoder.push(simple(1, 0, content(0, 10)));
    expect(decoder.target().buffer).toBe(command.buffer?.buffer);
    decoder.push(content(10, large - 10));
    expect(finished).toHaveLength(1);
    expect(Buffer.compare(command.buffer!, content(0, large))).toBe(0);
  });

  it('is dropped without a buffer, with the next reply intact', () => {
    const { command, decoder, finished } = make();
    decoder.push(simple(1, 0, content(0, 10)));
    command.buffer = null;
    const target = decoder.target();
    expect(target.length).toBeGreaterThan(0);
    decoder.push(content(10, large - 10));
    expect(finished).toHaveLength(1);
    expect(caught(() => decoder.push(simple(1)))).toMatchObject({ code: 'EPROTO' });
  });

  it('is dropped when the buffer was detached, and the command rejects with that reason', () => {
    const { command, decoder, finished } = make();
    decoder.push(simple(1, 0, content(0, 10)));
    structuredClone(command.buffer!.buffer, { transfer: [command.buffer!.buffer as ArrayBuffer] });
    decoder.push(content(10, large - 10));
    expect(finished).toHaveLength(1);
    expect(command.error).toMatchObject({ code: 'EFAULT', message: expect.stringMatching(/detached/) });
  });
});

describe('a long block map', () => {
  const count = 40_000;
  const reply = structuredMap(count);

  const bytesOf = (words: Uint32Array): Buffer => Buffer.from(words.buffer, words.byteOffset, words.byteLength);

  function structuredMap(length: number): Buffer {
    const pairs = Array.from({ length }, (_, i) => cat(u32(4096), u32(i & 3)));
    return cat(chunk(DONE, g.STATUS, 1, cat(u32(1), ...pairs)));
  }

  it.each([
    ['in large pieces', 150_000],
    ['in small pieces', 1000],
    ['in pieces of an odd length', 131_071],
  ])('%s is read into its own memory, and into no other', (_, piece) => {
    const command = new Command(spec.BLOCK_STATUS, count * 4096, 0, 0);
    command.cookie = 1;
    const found: Uint32Array[] = [];
    Object.assign(command, { onExtent: (_name: string, _offset: bigint, entries: Uint32Array) => found.push(entries) });
    const finished: Command[] = [];
    const decoder = new ReplyDecoder(
      { find: () => command, finished: (each) => void finished.push(each), expectsLarge: false },
      {
        ...{ structuredReplies: true, extendedHeaders: false, exportSize: count * 4096 },
        contexts: new Map([[1, 'base:allocation']]),
      },
    );
    const targets = new Set<ArrayBufferLike>();
    for (let at = 0; at < reply.length;) {
      const target = decoder.target();
      targets.add(target.buffer);
      const length = Math.min(target.length, piece, reply.length - at);
      target.set(reply.subarray(at, at + length));
      decoder.advance(length);
      // What the socket has written once belongs to the reply.
      if (target.buffer === [...targets][0]) target.fill(0xee);
      at += length;
    }
    expect(finished).toEqual([command]);
    expect(command.error).toBeNull();
    expect(targets.size).toBe(2);
    const wanted = Uint32Array.from({ length: 2 * count }, (__, i) => (i % 2 === 0 ? 4096 : (i >> 1) & 3));
    // Buffers compare in no time.
    expect(Buffer.compare(bytesOf(found[0]!), bytesOf(wanted))).toBe(0);
  });
});
