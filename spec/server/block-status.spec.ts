// The bytes of replies to block status, structured and extended.

import { describe, expect, it } from '@jest/globals';
import { ExtentMap, MemoryBackend, type NbdExportOptions } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { EINVAL, EIO, open, PAGE, PAYLOAD_LEN, REQ_ONE, SIZE } from './commands-support.js';

const { CMD, cat, u32, u64 } = g;

describe('block status', () => {
  const CONTEXTS = ['base:allocation', 'qemu:dirty-bitmap:b0'];
  const exported = (size: number | bigint = SIZE): NbdExportOptions => {
    const backend = new MemoryBackend(size);
    backend.write(Buffer.alloc(PAGE, 1), PAGE);
    const dirty = new ExtentMap(size);
    dirty.set(0, 512, 1);
    return { backend, metaContexts: { 'qemu:dirty-bitmap:b0': dirty } };
  };

  it('one chunk for each context, by its ID', async () => {
    const client = await open(exported(), { style: 'structured', contexts: CONTEXTS });
    client.send(CMD.STATUS, { cookie: 3, offset: 0, count: SIZE });
    const expected = cat(
      g.statusChunk(
        3,
        1,
        [
          [PAGE, 3],
          [PAGE, 0],
          [SIZE - 2 * PAGE, 3],
        ],
        0,
      ),
      g.statusChunk(3, 2, [
        [512, 1],
        [SIZE - 512, 0],
      ]),
    );
    expect((await client.take(expected.length)).toString('hex')).toBe(expected.toString('hex'));
  });

  it('only what was selected, and one extent within the range when only one is wanted', async () => {
    const client = await open(exported(), { style: 'structured', contexts: ['base:allocation'] });
    client.send(CMD.STATUS, { cookie: 3, offset: PAGE + 512, count: 512, flags: REQ_ONE });
    client.send(CMD.STATUS, { cookie: 4, offset: PAGE + 512, count: SIZE - PAGE - 512, flags: REQ_ONE });
    const expected = cat(g.statusChunk(3, 1, [[512, 0]]), g.statusChunk(4, 1, [[PAGE - 512, 0]]));
    expect((await client.take(expected.length)).toString('hex')).toBe(expected.toString('hex'));
  });

  it('V15 a huge hole: within the request in 32 bits, whole in 64', async () => {
    const narrow = await open(exported(1n << 60n), { style: 'structured', contexts: ['base:allocation'] });
    narrow.send(CMD.STATUS, { cookie: 3, offset: 1n << 40n, count: 0xffff_ffff });
    const chunk = g.statusChunk(3, 1, [[0xffff_ffff, 3]]);
    expect((await narrow.take(chunk.length)).toString('hex')).toBe(chunk.toString('hex'));

    const wide = await open(exported(1n << 60n), { style: 'extended', contexts: ['base:allocation'] });
    const rest = (1n << 60n) - (1n << 40n);
    wide.send(CMD.STATUS, { cookie: 3, offset: 1n << 40n, count: rest });
    const payload = cat(u32(1), u32(1), u64(rest), u64(3));
    const expected = g.extendedChunk(g.DONE, g.STATUS_EXT, 3, 1n << 40n, payload);
    expect((await wide.take(expected.length)).toString('hex')).toBe(expected.toString('hex'));
    expect(await wide.ask(CMD.STATUS, { offset: 1, count: (1n << 64n) - 1n })).toBe(EINVAL);
  });

  it('64-bit flags, for clients with extended headers only', async () => {
    const serial = { wide: true, extents: () => [{ length: 1 << 30, flags: 1n << 63n }] };
    const options = { backend: new MemoryBackend(SIZE), metaContexts: { 'x-a:serial': serial } };
    const wide = await open(options, { style: 'extended', contexts: ['x-a:serial'] });
    wide.send(CMD.STATUS, { cookie: 3, count: 512 });
    const expected = g.extendedChunk(g.DONE, g.STATUS_EXT, 3, 0, cat(u32(1), u32(1), u64(512), u64(1n << 63n)));
    expect((await wide.take(expected.length)).toString('hex')).toBe(expected.toString('hex'));
    const narrow = await open(options, { style: 'structured', contexts: ['x-a:serial'] });
    expect(await narrow.ask(CMD.STATUS, { count: 512 })).toBe(EINVAL);
  });

  it('joins equal neighbours, drops empty runs, and an empty list is an error', async () => {
    const runs = [
      { length: 0, flags: 9 },
      { length: 10, flags: 1 },
      { length: 10n, flags: 1n },
      { length: 0, flags: 2 },
      { length: 5, flags: 1 },
      { length: 7, flags: 2 },
    ];
    const metaContexts = {
      'x-a:runs': { extents: async () => runs },
      'x-a:none': { extents: () => [] },
      'x-a:fails': { extents: () => Promise.reject(Object.assign(new Error('no map'), { code: 'ENOMEM' })) },
    };
    const options = { backend: new MemoryBackend(SIZE), metaContexts };
    const client = await open(options, { style: 'structured', contexts: ['x-a:runs'] });
    client.send(CMD.STATUS, { cookie: 3, count: 512 });
    const expected = g.statusChunk(3, 1, [
      [25, 1],
      [7, 2],
    ]);
    expect((await client.take(expected.length)).toString('hex')).toBe(expected.toString('hex'));
    const none = await open(options, { style: 'structured', contexts: ['x-a:runs', 'x-a:none'] });
    expect(await none.ask(CMD.STATUS, { count: 512 })).toBe(EIO);
    const fails = await open(options, { style: 'structured', contexts: ['base:allocation', 'x-a:fails'] });
    expect(await fails.ask(CMD.STATUS, { count: 512 })).toBe(12);
  });

  it('a map without end does not make a reply without end', async () => {
    const endless = {
      *extents() {
        for (let i = 0; ; i += 1) yield { length: 1, flags: i % 2 };
      },
    };
    const options = { backend: new MemoryBackend(SIZE), metaContexts: { 'x-a:endless': endless } };
    const client = await open(options, { style: 'structured', contexts: ['x-a:endless'] });
    client.send(CMD.STATUS, { count: SIZE });
    expect((await client.chunk()).payload.length).toBe(4 + 65536 * 8);
  });

  it('with a filter: the contexts that it names, in its order', async () => {
    const client = await open(exported(), { style: 'extended', contexts: CONTEXTS });
    expect(client.flags & g.STATUS_PAYLOAD).toBe(g.STATUS_PAYLOAD);
    const ask = async (...parts: Buffer[]): Promise<string> => {
      client.send(CMD.STATUS, { cookie: 3, flags: PAYLOAD_LEN, payload: cat(...parts) });
      return (await client.chunks()).map(({ type, payload }) => `${type}:${payload.toString('hex', 0, 4)}`).join(' ');
    };
    expect(await ask(u64(512), u32(2))).toBe('6:00000002');
    expect(await ask(u64(512), u32(2), u32(1))).toBe('6:00000002 6:00000001');
    expect(await ask(u64(512))).toBe('0:');
  });

  it('with a filter that is malformed: swallowed and refused', async () => {
    const client = await open(exported(), { style: 'extended', contexts: CONTEXTS });
    const ask = (...parts: (Buffer | string)[]): Promise<number> =>
      client.ask(CMD.STATUS, { flags: PAYLOAD_LEN, payload: cat(...parts) });
    expect(await ask('short')).toBe(EINVAL);
    expect(await ask(u64(512), 'odd')).toBe(EINVAL);
    expect(await ask(u64(512), u32(1), u32(1))).toBe(EINVAL);
    expect(await ask(u64(512), u32(3))).toBe(EINVAL);
    expect(await ask(u64(512), Buffer.alloc(100_000))).toBe(EINVAL);
    expect(await ask(u64(SIZE + 1), u32(1))).toBe(EINVAL);
    expect(await ask(u64(0), u32(1))).toBe(EINVAL);
    expect(await client.ask(CMD.STATUS, { count: 512 })).toBe(0);
  });
});
