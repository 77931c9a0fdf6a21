// Backends that do not keep to their interface: the client gets an error or an answer within the protocol, and the
// server lives.

import { describe, expect, it } from '@jest/globals';
import { alignedExtents } from '../../lib/server/backends/aligned-extents.js';
import type { BackendExtent, BackendExtents, NbdBackend } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { newServer, RawClient } from '../support/raw-client.js';

const { CMD } = g;
const SIZE = 1 << 20;

async function ask(more: Partial<NbdBackend>, type: number, count = 4096): Promise<number> {
  const backend: NbdBackend = {
    size: SIZE,
    read: (buffer) => void buffer.fill(1),
    write: () => undefined,
    flush: () => undefined,
    ...more,
  };
  const server = newServer({ exports: { '': backend } });
  const client = await RawClient.of(server).handshake({ style: 'structured', contexts: ['base:allocation'] });
  const payload = type === CMD.WRITE ? Buffer.alloc(count) : undefined;
  const ranged = type === CMD.FLUSH ? {} : payload === undefined ? { count } : { payload };
  const error = await client.ask(type, ranged);
  // It goes on, whatever that was.
  expect(await client.ask(99)).toBe(22);
  return error;
}

const odd = (value: unknown): never => value as never;
const thenable = (value?: unknown) => odd({ then: (done: (value: unknown) => void) => void done(value) });

describe('a backend that throws, or returns what it should not', () => {
  const boom = (): never => {
    throw new Error('boom');
  };
  it.each<[string, Partial<NbdBackend>, number, number]>([
    ['read throws', { read: boom }, CMD.READ, 5],
    ['read throws nothing in particular', { read: () => odd(Promise.reject(undefined)) }, CMD.READ, 5],
    ['read rejects with a text', { read: () => Promise.reject('x') }, CMD.READ, 5],
    ['read returns a number', { read: () => odd(4096) }, CMD.READ, 0],
    ['read returns a thenable', { read: () => thenable() }, CMD.READ, 0],
    ['write throws', { write: boom }, CMD.WRITE, 5],
    ['write returns null', { write: () => odd(null) }, CMD.WRITE, 0],
    ['flush throws', { flush: boom }, CMD.FLUSH, 5],
    ['zero throws', { zero: boom }, CMD.ZERO, 5],
    ['zero by writes that throw', { write: boom }, CMD.ZERO, 5],
    ['trim throws', { trim: boom }, CMD.TRIM, 5],
    [
      'cache rejects',
      { cache: () => Promise.reject(Object.assign(new Error('no'), { code: 'ENOSPC' })) },
      CMD.CACHE,
      28,
    ],
    ['extents throws', { extents: boom }, CMD.STATUS, 5],
    ['extents returns nothing', { extents: () => odd(undefined) }, CMD.STATUS, 0],
    ['extents returns no list', { extents: () => odd(7) }, CMD.STATUS, 5],
    ['extents returns an empty list', { extents: () => [] }, CMD.STATUS, 5],
    ['extents returns a thenable', { extents: () => thenable([{ length: 4096, flags: 3 }]) }, CMD.STATUS, 0],
    ['extents returns a thenable, in a read', { extents: () => thenable([{ length: 4096, flags: 3 }]) }, CMD.READ, 0],
    ['extents fails while reading', { extents: boom }, CMD.READ, 5],
  ])('%s', async (_, backend, type, expected) => {
    expect(await ask(backend, type)).toBe(expected);
  });

  it.each([
    [NaN, 0],
    [-4096, 0],
    [1.5, 0],
    [Infinity, 0],
    ['4096', 0],
    [undefined, 0],
    [-1n, 0],
    [1n << 64n, 0],
    [4096, NaN],
    [4096, -1],
    [4096, 0.5],
    [4096, '3'],
  ])('an extent of length %p and flags %p is an error', async (length, flags) => {
    expect(await ask({ extents: () => [odd({ length, flags })] }, CMD.STATUS)).toBe(5);
    expect(await ask({ extents: () => Promise.resolve([odd({ length, flags })]) }, CMD.STATUS)).toBe(5);
  });
});

describe('block status with a minimum block size', () => {
  const flat = (extents: BackendExtents): unknown[] =>
    [...(extents as Iterable<BackendExtent>)].map(({ length, flags }) => [length, flags]);

  it.each<[string, [number, number][], [number, number][]]>([
    ['whole blocks stay', [[8192, 3], [4096, 0]], [[8192, 3], [4096, 0]]], // prettier-ignore
    ['a block that is partly data is data', [[5000, 3], [3192, 0], [4096, 3]], [[4096, 3], [4096, 0], [4096, 3]]], // prettier-ignore
    ['a block has what all of it has', [[2048, 3], [2048, 2], [4096, 3]], [[4096, 2], [4096, 3]]], // prettier-ignore
    ['many in one block', [[1024, 3], [1024, 3], [1024, 0], [1024, 3], [4096, 3]], [[4096, 0], [4096, 3]]], // prettier-ignore
    [
      'the rest of the range is requested again',
      [
        [4096, 3],
        [100, 3],
      ],
      [[4096, 3]],
    ],
    ['unless that is all', [[100, 3]], [[4096, 0]]],
  ])('%s', (_, runs, expected) => {
    expect(
      flat(
        alignedExtents(
          runs.map(([length, flags]) => ({ length, flags })),
          4096,
        ),
      ),
    ).toEqual(expected);
  });

  it('reaches the client', async () => {
    const extents = (): BackendExtent[] => [
      { length: 1000, flags: 3 },
      { length: 1000, flags: 0 },
      { length: SIZE, flags: 3 },
    ];
    const blockSize = { minimum: 4096, preferred: 4096, maximum: 65536 };
    const backend: NbdBackend = { size: SIZE, read: () => undefined, extents: async () => Promise.resolve(extents()) };
    const server = newServer({ exports: { '': { backend, blockSize } } });
    const client = await RawClient.of(server).handshake({ style: 'structured', contexts: ['base:allocation'] });
    client.send(CMD.STATUS, { count: SIZE });
    const { payload } = await client.chunk();
    const words = Array.from({ length: payload.length / 4 }, (_, i) => payload.readUInt32BE(i * 4));
    expect(words).toEqual([1, 4096, 0, SIZE - 4096, 3]);
  });
});
