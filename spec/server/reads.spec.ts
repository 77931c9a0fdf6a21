// The bytes of replies to reads, in each style: data, holes and errors.

import { describe, expect, it } from '@jest/globals';
import { MemoryBackend } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { DF, EIO, made, open, PAGE, SIZE } from './commands-support.js';

const { CMD, cat, content, u32, u64 } = g;

describe('bytes of reads', () => {
  const sparse = (): MemoryBackend => {
    const backend = new MemoryBackend(SIZE);
    backend.write(content(0, 10), PAGE + 100);
    return backend;
  };
  const asked = { cookie: 9, offset: PAGE - 512, count: PAGE + 1024 };
  const page = Buffer.alloc(PAGE);
  content(0, 10).copy(page, 100);

  it('simple: data, zeroes included', async () => {
    const client = await open(sparse());
    client.send(CMD.READ, asked);
    const expected = g.simple(9, 0, cat(Buffer.alloc(512), page, Buffer.alloc(512)));
    expect((await client.take(expected.length)).equals(expected)).toBe(true);
  });

  it('structured: holes as holes', async () => {
    const client = await open(sparse(), { style: 'structured' });
    client.send(CMD.READ, asked);
    const expected = cat(
      g.holeChunk(9, PAGE - 512, 512, 0),
      g.dataChunk(9, PAGE, page, 0),
      g.holeChunk(9, 2 * PAGE, 512, g.DONE),
    );
    expect((await client.take(expected.length)).equals(expected)).toBe(true);
    expect(client.buffered).toBe(0);
  });

  it('extended: the same, each chunk with the offset of the request', async () => {
    const client = await open(sparse(), { style: 'extended' });
    client.send(CMD.READ, asked);
    const expected = cat(
      g.extendedChunk(0, g.HOLE, 9, PAGE - 512, cat(u64(PAGE - 512), u32(512))),
      g.extendedChunk(0, g.DATA, 9, PAGE - 512, cat(u64(PAGE), page)),
      g.extendedChunk(1, g.HOLE, 9, PAGE - 512, cat(u64(2 * PAGE), u32(512))),
    );
    expect((await client.take(expected.length)).equals(expected)).toBe(true);
  });

  it('DF, and an export without sparse reads: one chunk of data', async () => {
    const expected = g.dataChunk(9, PAGE - 512, cat(Buffer.alloc(512), page, Buffer.alloc(512)));
    const client = await open(sparse(), { style: 'structured' });
    client.send(CMD.READ, { ...asked, flags: DF });
    expect((await client.take(expected.length)).equals(expected)).toBe(true);
    const dense = await open({ backend: sparse(), sparseReads: false }, { style: 'structured' });
    dense.send(CMD.READ, asked);
    expect((await dense.take(expected.length)).equals(expected)).toBe(true);
  });

  it('a chequered range does not fall into thousands of chunks', async () => {
    const backend = made({
      read: (buffer, offset) => {
        content(Number(offset), buffer.length).copy(buffer);
      },
      extents: () => Array.from({ length: 1000 }, (_, i) => ({ length: 16, flags: i % 2 === 0 ? 0 : 2 })),
    });
    const client = await open(backend, { style: 'structured' });
    client.send(CMD.READ, { count: 16_000 });
    const chunks = await client.chunks();
    expect(chunks.length).toBe(65);
    expect(chunks.at(-1)!.payload.length).toBe(8 + 16_000 - 64 * 16);
  });

  it('extents that end early or promise more than was asked are made to fit', async () => {
    const backend = made({
      read: (buffer) => void buffer.fill(1),
      extents: (offset) => [{ length: offset === 0 ? 100 : 1 << 30, flags: 3 }],
    });
    const client = await open(backend, { style: 'structured' });
    expect(await client.read(0, 150)).toEqual(cat(Buffer.alloc(100), Buffer.alloc(50, 1)));
    expect(await client.read(1, 150)).toEqual(Buffer.alloc(150));
  });

  it('a backend that answers later, piece by piece', async () => {
    const backend = made({
      read: async (buffer, offset) => {
        await new Promise((resolve) => setTimeout(resolve, offset === 0 ? 5 : 1));
        content(Number(offset), buffer.length).copy(buffer);
      },
      extents: async () => [
        { length: 10, flags: 0 },
        { length: 10, flags: 2 },
        { length: 10, flags: 0 },
      ],
    });
    const client = await open(backend, { style: 'structured' });
    expect(await client.read(0, 30)).toEqual(cat(content(0, 10), Buffer.alloc(10), content(20, 10)));
  });

  it('one failing piece is an error of the whole, and nothing of the rest is sent', async () => {
    let calls = 0;
    const backend = made({
      read: (buffer, offset) => {
        calls += 1;
        buffer.fill(1);
        if (offset === 0) return Promise.reject(Object.assign(new Error('first'), { code: 'EIO' }));
        throw Object.assign(new Error('second'), { code: 'EIO' });
      },
      extents: () => [
        { length: 10, flags: 0 },
        { length: 10, flags: 2 },
        { length: 10, flags: 0 },
      ],
    });
    const client = await open(backend, { style: 'structured' });
    client.send(CMD.READ, { cookie: 1, count: 30 });
    const expected = g.errorChunk(1, EIO, 'first');
    expect((await client.take(expected.length)).equals(expected)).toBe(true);
    expect(calls).toBe(2);
  });

  it('never shows memory that the backend did not fill', async () => {
    const client = await open(made({ read: () => undefined }), { style: 'structured' });
    const junk = await open(new MemoryBackend(SIZE));
    for (let i = 0; i < 20; i += 1) {
      await junk.ask(CMD.WRITE, { payload: Buffer.alloc(PAGE, 0xab) });
      expect((await client.read(0, 100_000)).every((byte) => byte === 0)).toBe(true);
    }
  });
});
