// Commands to the embedded server: what they do, what is refused, and several at once. Reads and block status, byte by
// byte, are in reads.spec.ts and block-status.spec.ts.

import { describe, expect, it } from '@jest/globals';
import { MemoryBackend, type NbdBackend, type NbdExportOptions } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { newServer, RawClient, type SendOptions } from '../support/raw-client.js';
import { settled } from '../support/waiting.js';
import {
  DF,
  EINVAL,
  EIO,
  ENOSPC,
  ENOTSUP,
  EOVERFLOW,
  EPERM,
  FAST_ZERO,
  FUA,
  made,
  NO_HOLE,
  open,
  PAGE,
  PAYLOAD_LEN,
  REQ_ONE,
  SIZE,
} from './commands-support.js';

const { CMD, cat, content, u32 } = g;
const STYLES = ['simple', 'structured', 'extended'] as const;

describe.each(STYLES)('commands in the %s style', (style) => {
  const writeFlags = style === 'extended' ? PAYLOAD_LEN : 0;

  it('write, read back, zero, trim, flush and cache', async () => {
    const client = await open(new MemoryBackend(SIZE), { style });
    const data = content(0, 100_000);
    expect(await client.ask(CMD.WRITE, { offset: 5000, payload: data, flags: writeFlags })).toBe(0);
    expect((await client.read(5000, 100_000)).equals(data)).toBe(true);
    expect(await client.ask(CMD.ZERO, { offset: 6000, count: 10, flags: FUA | NO_HOLE })).toBe(0);
    expect((await client.read(5999, 12)).toString('hex')).toBe(
      cat(data.subarray(999, 1000), Buffer.alloc(10), data.subarray(1010, 1011)).toString('hex'),
    );
    expect(await client.ask(CMD.TRIM, { offset: 0, count: SIZE })).toBe(0);
    expect(await client.ask(CMD.FLUSH)).toBe(0);
    expect(await client.ask(CMD.CACHE, { offset: 0, count: SIZE })).toBe(0);
    expect((await client.read(0, SIZE)).every((byte) => byte === 0)).toBe(true);
  });

  it('a read that meets its end exactly, and one byte of the last', async () => {
    const client = await open(MemoryBackend.from(content(0, SIZE)), { style });
    expect((await client.read(SIZE - 1, 1))[0]).toBe(content(SIZE - 1, 1)[0]);
    expect(await client.ask(CMD.READ, { offset: SIZE - 1, count: 2 })).toBe(EINVAL);
  });

  it('carries the bytes of an error, and goes on', async () => {
    const client = await open(
      made({
        read: () => {
          throw Object.assign(new Error('broken'), { code: 'EIO' });
        },
      }),
      { style },
    );
    client.send(CMD.READ, { cookie: 77, offset: 512, count: 8 });
    const expected =
      style === 'simple'
        ? g.simple(77, EIO)
        : style === 'structured'
          ? g.errorChunk(77, EIO, 'broken')
          : g.extendedChunk(g.DONE, g.ERROR, 77, 512, cat(u32(EIO), g.u16(6), 'broken'));
    expect((await client.take(expected.length)).toString('hex')).toBe(expected.toString('hex'));
    expect(await client.ask(CMD.READ, { count: 0 })).toBe(EINVAL);
  });
});

describe('what is refused', () => {
  const BIG = 1 << 28;
  const limited = (): NbdExportOptions => ({
    backend: new MemoryBackend(BIG),
    blockSize: { minimum: 512, preferred: 4096, maximum: PAGE },
  });
  const MAX = (1n << 64n) - 1n;

  it.each<[string, number, SendOptions, number]>([
    ['V13 an unknown command', 99, {}, EINVAL],
    ['V13 resize', 8, {}, EINVAL],
    ['V13 an unknown flag', CMD.READ, { count: 512, flags: 0x40 }, EINVAL],
    ['V13 a flag of another command', CMD.READ, { count: 512, flags: REQ_ONE }, EINVAL],
    ['V13 DF for a write', CMD.WRITE, { payload: Buffer.alloc(512), flags: DF }, EINVAL],
    ['V13 a flag for cache', CMD.CACHE, { count: 512, flags: NO_HOLE }, EINVAL],
    ['PAYLOAD_LEN with compact headers', CMD.WRITE, { payload: Buffer.alloc(512), flags: PAYLOAD_LEN }, EINVAL],
    ['V13 a flush with a range', CMD.FLUSH, { count: 512 }, EINVAL],
    ['a read of no bytes', CMD.READ, { count: 0 }, EINVAL],
    ['a write of no bytes', CMD.WRITE, { count: 0 }, EINVAL],
    ['a block status of no bytes', CMD.STATUS, { count: 0 }, EINVAL],
    ['a read beyond the end', CMD.READ, { offset: BIG, count: 512 }, EINVAL],
    ['a cache beyond the end', CMD.CACHE, { offset: BIG - 512, count: 1024 }, EINVAL],
    ['a trim beyond the end', CMD.TRIM, { offset: BIG, count: 512 }, EINVAL],
    ['a write beyond the end', CMD.WRITE, { offset: BIG, payload: Buffer.alloc(512) }, ENOSPC],
    ['a zero beyond the end', CMD.ZERO, { offset: BIG, count: 512 }, ENOSPC],
    ['V16 a read that wraps', CMD.READ, { offset: MAX - 511n, count: 1024 }, EINVAL],
    ['V16 a write that wraps', CMD.WRITE, { offset: MAX - 511n, payload: Buffer.alloc(1024) }, EINVAL],
    ['V16 a zero that wraps', CMD.ZERO, { offset: MAX - 511n, count: 0xfffffe00 }, EINVAL],
    ['an unaligned offset', CMD.READ, { offset: 1, count: 512 }, EINVAL],
    ['an unaligned count', CMD.TRIM, { offset: 0, count: 513 }, EINVAL],
    ['V14 a read above the maximum', CMD.READ, { count: PAGE + 512 }, EOVERFLOW],
    ['V14 a read of the largest 32-bit length', CMD.READ, { count: 0xfffffe00 }, EINVAL],
    ['V14 a write above the maximum', CMD.WRITE, { payload: Buffer.alloc(PAGE + 512) }, EINVAL],
    ['V15 a block status without contexts', CMD.STATUS, { count: 512 }, EINVAL],
    ['a zero above the maximum, which has no payload', CMD.ZERO, { count: PAGE * 4 }, 0],
    ['FUA for a command that does not write', CMD.READ, { count: 512, flags: FUA }, 0],
  ])('%s', async (_name, type, options, error) => {
    const client = await open(limited(), { style: 'structured' });
    expect(await client.ask(type, options)).toBe(error);
    expect((await client.read(512, 512)).length).toBe(512);
  });

  it('reads above the maximum with EINVAL in simple replies, where EOVERFLOW has no place', async () => {
    const client = await open(limited());
    expect(await client.ask(CMD.READ, { count: PAGE + 512 })).toBe(EINVAL);
  });

  it('every change of a read-only export, with the payload swallowed', async () => {
    const backend = new MemoryBackend(SIZE, { readOnly: true });
    const client = await open(backend, { style: 'structured' });
    expect(client.flags & g.READ_ONLY).toBe(g.READ_ONLY);
    expect(client.flags & (g.SEND_TRIM | g.SEND_ZERO | g.SEND_FAST_ZERO | g.SEND_FUA)).toBe(0);
    expect(await client.ask(CMD.WRITE, { payload: Buffer.alloc(100_000, 1) })).toBe(EPERM);
    expect(await client.ask(CMD.TRIM, { count: 512 })).toBe(EPERM);
    expect(await client.ask(CMD.ZERO, { count: 512 })).toBe(EPERM);
    expect(backend.allocated).toBe(0);
  });

  it('what was not advertised', async () => {
    const none = { flush: false, fua: false, trim: false, zero: false, df: false, cache: false, multiConn: false };
    const client = await open({ backend: new MemoryBackend(SIZE), flags: none }, { style: 'structured' });
    expect(client.flags).toBe(g.HAS_FLAGS);
    expect(await client.ask(CMD.FLUSH)).toBe(EINVAL);
    expect(await client.ask(CMD.TRIM, { count: 512 })).toBe(EINVAL);
    expect(await client.ask(CMD.ZERO, { count: 512 })).toBe(EINVAL);
    expect(await client.ask(CMD.CACHE, { count: 512 })).toBe(EINVAL);
    expect(await client.ask(CMD.READ, { count: 512, flags: DF })).toBe(EINVAL);
    expect(await client.ask(CMD.WRITE, { payload: 'x', flags: FUA })).toBe(EINVAL);
    expect(await client.ask(CMD.WRITE, { payload: 'x' })).toBe(0);
  });

  it('fast zeroes where only FAST_ZERO was withheld', async () => {
    const client = await open({ backend: new MemoryBackend(SIZE), flags: { fastZero: false } });
    expect(client.flags & (g.SEND_ZERO | g.SEND_FAST_ZERO)).toBe(g.SEND_ZERO);
    expect(await client.ask(CMD.ZERO, { count: 512, flags: FAST_ZERO })).toBe(EINVAL);
    expect(await client.ask(CMD.ZERO, { count: 512 })).toBe(0);
  });
});

describe('with extended headers', () => {
  it('effects of more than 32 bits', async () => {
    const backend = new MemoryBackend(1n << 50n);
    backend.write(Buffer.from('x'), 1n << 49n);
    const client = await open(backend, { style: 'extended' });
    const count = (1n << 50n) - 4096n;
    for (const type of [CMD.CACHE, CMD.ZERO, CMD.TRIM]) {
      expect(await client.ask(type, { offset: 4096, count })).toBe(0);
    }
    expect(backend.allocated).toBe(0);
    expect(await client.ask(CMD.READ, { count })).toBe(EOVERFLOW);
    expect(await client.ask(CMD.TRIM, { offset: 4097, count })).toBe(EINVAL);
  });

  it('a write has its payload with PAYLOAD_LEN or without; that of another command is swallowed', async () => {
    const client = await open(new MemoryBackend(SIZE), { style: 'extended' });
    expect(await client.ask(CMD.WRITE, { payload: 'without' })).toBe(0);
    expect((await client.read(0, 7)).toString()).toBe('without');
    expect(await client.ask(CMD.READ, { payload: 'x'.repeat(512), flags: PAYLOAD_LEN })).toBe(EINVAL);
    expect(await client.ask(CMD.FLUSH, { payload: 'x', flags: PAYLOAD_LEN })).toBe(EINVAL);
    expect(await client.ask(CMD.STATUS, { payload: 'x'.repeat(9), flags: PAYLOAD_LEN })).toBe(EINVAL);
    expect(await client.ask(CMD.WRITE, { payload: 'x', flags: PAYLOAD_LEN })).toBe(0);
  });
});

describe('errors of a backend', () => {
  const error = (code: string): Error => Object.assign(new Error(`it said ${code}`), { code });

  it.each<[string, unknown, number, string]>([
    ['EPERM', error('EPERM'), 1, 'it said EPERM'],
    ['ENOSPC', error('ENOSPC'), 28, 'it said ENOSPC'],
    ['ESHUTDOWN', error('ESHUTDOWN'), 108, 'it said ESHUTDOWN'],
    ['EDQUOT', error('EDQUOT'), 28, 'it said EDQUOT'],
    ['EFBIG', error('EFBIG'), 28, 'it said EFBIG'],
    ['EROFS', error('EROFS'), 1, 'it said EROFS'],
    ['EOPNOTSUPP', error('EOPNOTSUPP'), 95, 'it said EOPNOTSUPP'],
    ['a code that the protocol lacks', error('EBADF'), 5, 'it said EBADF'],
    ['a bug', new TypeError('x is not a function'), 5, 'the backend failed'],
    ['a string', 'nonsense', 5, 'the backend failed'],
    ['nothing', undefined, 5, 'the backend failed'],
  ])('%s, thrown and rejected', async (_name, reason, wire, message) => {
    const backend = made({
      write: () => {
        throw reason;
      },
      flush: () => Promise.reject(reason),
    });
    const client = await open(backend, { style: 'structured' });
    client.send(CMD.WRITE, { cookie: 1, payload: 'x' });
    client.send(CMD.FLUSH, { cookie: 2 });
    const expected = cat(g.errorChunk(1, wire, message), g.errorChunk(2, wire, message));
    expect((await client.take(expected.length)).toString()).toBe(expected.toString());
  });
});

describe('what the server makes up for a backend', () => {
  it('FUA by a flush after the write, before the reply', async () => {
    const calls: string[] = [];
    const backend = made({
      write: async (_data, _offset, { fua }) => void calls.push(`write ${fua}`),
      trim: async (_offset, _count, { fua }) => void calls.push(`trim ${fua}`),
      zero: (_offset, _count, { fua }) => void calls.push(`zero ${fua}`),
      flush: async () => {
        await new Promise((resolve) => setTimeout(resolve, 5));
        calls.push('flush');
      },
    });
    const client = await open(backend);
    expect(client.flags & g.SEND_FUA).toBe(g.SEND_FUA);
    await client.ask(CMD.WRITE, { payload: 'x', flags: FUA });
    await client.ask(CMD.TRIM, { count: 1, flags: FUA });
    await client.ask(CMD.ZERO, { count: 1, flags: FUA });
    await client.ask(CMD.WRITE, { payload: 'x' });
    expect(calls).toEqual(['write false', 'flush', 'trim false', 'flush', 'zero false', 'flush', 'write false']);
  });

  it('nothing of it for a backend that does FUA itself', async () => {
    const calls: string[] = [];
    const backend = made({
      fua: true,
      write: (_data, _offset, { fua }) => void calls.push(`write ${fua}`),
      flush: () => void calls.push('flush'),
    });
    const client = await open(backend);
    await client.ask(CMD.WRITE, { payload: 'x', flags: FUA });
    expect(calls).toEqual(['write true']);
  });

  it('zeroes by writes, and no fast ones', async () => {
    const store = MemoryBackend.from(Buffer.alloc(4 << 20, 7));
    const backend: NbdBackend = {
      size: store.size,
      read: (buffer, offset) => store.read(buffer, offset),
      write: async (data, offset) => store.write(data, offset),
    };
    const client = await open(backend);
    expect(client.flags & (g.SEND_ZERO | g.SEND_FAST_ZERO)).toBe(g.SEND_ZERO | g.SEND_FAST_ZERO);
    expect(client.flags & (g.SEND_FLUSH | g.SEND_FUA | g.SEND_TRIM | g.SEND_CACHE)).toBe(0);
    expect(await client.ask(CMD.ZERO, { offset: 1, count: (3 << 20) + 5, flags: FAST_ZERO })).toBe(ENOTSUP);
    expect((await client.read(0, 4 << 20)).every((byte) => byte === 7)).toBe(true);
    expect(await client.ask(CMD.ZERO, { offset: 1, count: (3 << 20) + 5, flags: NO_HOLE })).toBe(0);
    const expected = Buffer.alloc(4 << 20, 7).fill(0, 1, (3 << 20) + 6);
    expect((await client.read(0, 4 << 20)).equals(expected)).toBe(true);
  });

  it('hints that it advertises on request succeed without an effect', async () => {
    const flags = { flush: true, trim: true, cache: true, rotational: true, fastZero: true };
    const client = await open({ backend: made({ write: () => undefined }), flags });
    expect(client.flags & g.ROTATIONAL).toBe(g.ROTATIONAL);
    expect(await client.ask(CMD.FLUSH)).toBe(0);
    expect(await client.ask(CMD.TRIM, { count: 1 })).toBe(0);
    expect(await client.ask(CMD.CACHE, { count: 1 })).toBe(0);
    expect(await client.ask(CMD.ZERO, { count: 1, flags: FAST_ZERO })).toBe(ENOTSUP);
  });
});

describe('several requests at once', () => {
  /** A backend whose reads wait until the test lets them go. */
  function gated(): { backend: NbdBackend; waiting: Map<number, () => void>; most: () => number } {
    const waiting = new Map<number, () => void>();
    let most = 0;
    const backend: NbdBackend = {
      size: 1 << 30,
      read: (buffer, offset) =>
        new Promise((resolve) => {
          waiting.set(Number(offset), () => {
            waiting.delete(Number(offset));
            buffer.fill(Number(offset) & 255);
            resolve();
          });
          most = Math.max(most, waiting.size);
        }),
    };
    return { backend, waiting, most: () => most };
  }
  it('are answered in the order in which they are done', async () => {
    const { backend, waiting } = gated();
    const client = await open(backend);
    for (const offset of [1, 2, 3]) client.send(CMD.READ, { cookie: offset, offset, count: 1 });
    await settled();
    for (const offset of [3, 1, 2]) {
      waiting.get(offset)!();
      expect(await client.simple()).toEqual({ error: 0, cookie: offset });
      expect((await client.take(1))[0]).toBe(offset);
    }
  });

  it('run up to the limit, and the others follow', async () => {
    const { backend, waiting, most } = gated();
    const server = newServer({ exports: { '': backend }, maxInFlight: 4 });
    const client = await RawClient.of(server).handshake();
    for (let offset = 0; offset < 20; offset += 1) client.send(CMD.READ, { offset, count: 1 });
    for (let done = 0; done < 20; done += 1) {
      await settled();
      expect(waiting.size).toBe(Math.min(4, 20 - done));
      [...waiting.values()][0]!();
      await client.simple();
      await client.take(1);
    }
    expect(most()).toBe(4);
  });

  it('run up to the limit of bytes, and one that is larger runs alone', async () => {
    const { backend, waiting } = gated();
    const server = newServer({ exports: { '': backend }, maxInFlightBytes: 1000 });
    const client = await RawClient.of(server).handshake();
    for (const [offset, count] of [
      [0, 600],
      [1, 400],
      [2, 1],
      [3, 5000],
    ] as const) {
      client.send(CMD.READ, { offset, count });
    }
    await settled();
    expect([...waiting.keys()]).toEqual([0, 1]);
    waiting.get(0)!();
    await settled();
    expect([...waiting.keys()]).toEqual([1, 2]);
    waiting.get(1)!();
    await settled();
    expect([...waiting.keys()]).toEqual([2]);
    waiting.get(2)!();
    await settled();
    expect([...waiting.keys()]).toEqual([3]);
    waiting.get(3)!();
    await client.take(4 * 16 + 600 + 400 + 1 + 5000);
  });

  it('V18 are answered before the end that DISC requests, and everything after it is ignored', async () => {
    const { backend, waiting } = gated();
    const client = await open(backend);
    client.write(
      client.request(CMD.READ, { offset: 1, count: 1 }),
      client.request(CMD.READ, { offset: 2, count: 1 }),
      client.request(CMD.DISC),
      client.request(CMD.READ, { offset: 3, count: 1 }),
      'and nonsense',
    );
    await settled();
    expect([...waiting.keys()]).toEqual([1, 2]);
    for (const go of waiting.values()) go();
    expect((await client.rest()).length).toBe(34);
  });

  it('are answered to a client that has half-closed', async () => {
    const { backend, waiting } = gated();
    const client = await open(backend);
    client.send(CMD.READ, { offset: 1, count: 1 });
    client.stream.end();
    await settled();
    waiting.get(1)!();
    expect((await client.rest()).length).toBe(17);
  });
});
