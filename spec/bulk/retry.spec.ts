// Whole-export work over a pool whose server fails in passing, and whose connections die on the way: results are right,
// and where `retry` is used up, the error is the server's, with the place and the number of tries.

import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';

import {
  blockHash,
  changes,
  compare,
  copy,
  type CopySource,
  createReadStream,
  createWriteStream,
  extents,
  hash,
  mergedExtents,
  NbdCommandError,
  NbdPool,
  prefetch,
  totals,
} from '../../lib/index.js';
import { type BackendExtent, ExtentMap, type NbdBackend, type NbdServerOptions } from '../../lib/server/index.js';
import { Place } from '../pool/place.js';
import { rejection } from '../support/caught.js';

const ALLOCATION = 'base:allocation';
const DIRTY = 'qemu:dirty-bitmap:b0';
const SIZE = 3 * 2 ** 20 + 512;
const PIECE = 64 * 1024;

const contents = ((): Buffer => {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 512) bytes.fill(((at / 512) * 7 + 1) & 255, at, at + 512);
  bytes.fill(0, 2 ** 20, 2 * 2 ** 20);
  return bytes;
})();

/** Every range fails this many times before it succeeds, each command on its own; `Infinity`: those at `bad` alone. */
class FailingBackend implements NbdBackend {
  readonly size = SIZE;
  readonly multiConn = true;
  readonly bytes: Buffer;
  readonly #zeroes = new ExtentMap(SIZE);
  readonly #times: number;
  readonly #failed = new Map<string, number>();
  readonly #onCall: (calls: number) => void;
  calls = 0;
  failures = 0;

  constructor(times: number, bytes: Buffer = contents, onCall: (calls: number) => void = () => undefined) {
    this.bytes = Buffer.from(bytes);
    this.#times = times;
    this.#onCall = onCall;
    this.#zeroes.set(2 ** 20, 2 ** 20, 3);
  }

  #mayFail(what: string, offset: number): void {
    this.#onCall(++this.calls);
    if (this.#times === Infinity && offset < SIZE / 2) return;
    const key = `${what} ${offset}`;
    const failed = this.#failed.get(key) ?? 0;
    if (failed >= this.#times) return;
    this.#failed.set(key, failed + 1);
    this.failures++;
    throw Object.assign(new Error(`the ${what} failed in passing`), { code: failed % 2 === 0 ? 'EIO' : 'ENOMEM' });
  }

  async read(buffer: Buffer, offset: number): Promise<void> {
    await sleep(1);
    this.#mayFail('read', offset);
    this.bytes.copy(buffer, 0, offset, offset + buffer.length);
  }

  write(data: Buffer, offset: number): void {
    this.#mayFail('write', offset);
    data.copy(this.bytes, offset);
  }

  zero(offset: number, count: number): void {
    this.#mayFail('zero', offset);
    this.bytes.fill(0, offset, offset + count);
  }

  cache(offset: number): void {
    this.#mayFail('cache', offset);
  }

  flush(): void {
    this.#onCall(++this.calls);
  }

  extents(offset: number, count: number): Iterable<BackendExtent> {
    this.#mayFail('block status', offset);
    return this.#zeroes.extents(offset, count);
  }
}

const dirty = new ExtentMap(SIZE);
dirty.set(4096, 2 ** 20, 1);

const serve = (backend: NbdBackend): NbdServerOptions => ({
  exports: { '': { backend, metaContexts: { [DIRTY]: dirty } } },
});

async function connected(place: Place, retry: { attempts: number; codes: string[]; delay: number }): Promise<NbdPool> {
  return NbdPool.connect(place.target, { metaContexts: [ALLOCATION, DIRTY], connections: 3, retry });
}

async function collected<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** libblkhash's, by hand. */
const ofBlocks = (bytes: Buffer, blockSize: number): string => {
  const outer = createHash('sha256');
  for (let at = 0; at < bytes.length; at += blockSize) {
    outer.update(
      createHash('sha256')
        .update(bytes.subarray(at, at + blockSize))
        .digest(),
    );
  }
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(bytes.length));
  return outer.update(size).digest('hex');
};

const data = BigInt(SIZE - 2 ** 20);
const steps = { step: 2 ** 20 };

interface Work {
  /** Does it; resolves with what is compared with `wanted`. */
  readonly run: (pool: NbdPool, backend: FailingBackend) => Promise<unknown>;
  readonly wanted: unknown;
  /** What a message of its failure begins with. */
  readonly failure: RegExp;
}

const WORKS: Readonly<Record<string, Work>> = {
  createReadStream: {
    run: async (pool) => sha256(await buffer(createReadStream(pool, { requestSize: PIECE, ...steps }))),
    wanted: sha256(contents),
    failure: /^createReadStream: read at offset \d+ failed: pread/,
  },
  createWriteStream: {
    run: async (pool, backend) => {
      await pipeline(Readable.from(pieces()), createWriteStream(pool, { requestSize: PIECE }));
      return sha256(backend.bytes);
    },
    wanted: sha256(contents),
    failure: /^createWriteStream: (write|zero) at offset \d+ failed: (pwrite|zero)/,
  },
  hash: {
    run: (pool) => hash(pool, steps),
    wanted: sha256(contents),
    failure: /^hash: read at offset \d+ failed: pread/,
  },
  blockHash: {
    run: (pool) => blockHash(pool, { blockSize: PIECE, ...steps }),
    wanted: ofBlocks(contents, PIECE),
    failure: /^blockHash: read at offset \d+ failed: pread/,
  },
  compare: {
    run: async (pool) => {
      const same = await fileOf(contents);
      const { equal } = await compare(pool, same, steps);
      const other = Buffer.from(contents);
      other[SIZE - 1] = 0;
      const { equal: isEqual } = await compare(pool, await fileOf(other), steps);
      return [equal, isEqual];
    },
    wanted: [true, false],
    failure: /^compare: read at offset \d+ failed: pread/,
  },
  prefetch: {
    run: async (pool) => (await prefetch(pool, { dataOnly: true, requestSize: PIECE, ...steps })).cached,
    wanted: data,
    failure: /^prefetch: cache at offset \d+ failed: cache/,
  },
  extents: {
    run: async (pool) => (await collected(extents(pool, steps))).map(({ length, flags }) => [length, flags]),
    wanted: [
      [2n ** 20n, 0n],
      [2n ** 20n, 3n],
      [BigInt(SIZE) - 2n ** 21n, 0n],
    ],
    failure: /blockStatus64/,
  },
  mergedExtents: {
    run: async (pool) => {
      const found = await collected(mergedExtents(pool, { contexts: [ALLOCATION, DIRTY], ...steps }));
      return found.map(({ length, flags }) => [length, flags]);
    },
    wanted: [
      [4096n, [0n, 0n]],
      [2n ** 20n - 4096n, [0n, 1n]],
      [4096n, [3n, 1n]],
      [2n ** 20n - 4096n, [3n, 0n]],
      [BigInt(SIZE) - 2n ** 21n, [0n, 0n]],
    ],
    failure: /^mergedExtents: block status at offset \d+ failed: blockStatus64/,
  },
  totals: {
    run: async (pool) => totals(pool, { contexts: [ALLOCATION], ...steps }),
    wanted: new Map([
      [
        ALLOCATION,
        new Map([
          [0n, data],
          [3n, 2n ** 20n],
        ]),
      ],
    ]),
    failure: /^totals: block status at offset \d+ failed: blockStatus64/,
  },
  changes: {
    run: async (pool) =>
      (await collected(changes(pool, { bitmap: 'b0', ...steps }))).map(({ length, zero }) => [length, zero]),
    wanted: [
      [2n ** 20n - 4096n, false],
      [4096n, true],
    ],
    failure: /^changes: block status at offset \d+ failed: blockStatus64/,
  },
  'copy from it': {
    run: async (pool) => {
      const into = Buffer.alloc(SIZE, 1);
      await copy(
        pool,
        { size: SIZE, write: async (bytes, offset) => void bytes.copy(into, Number(offset)) },
        { requestSize: PIECE },
      );
      return sha256(into);
    },
    wanted: sha256(contents),
    failure: /^copy: read at offset \d+ failed: pread/,
  },
  'copy to it': {
    run: async (pool, backend) => {
      await copy(await fileOf(contents), pool, { requestSize: PIECE });
      return sha256(backend.bytes);
    },
    wanted: sha256(contents),
    failure: /^copy: (write|zero) at offset \d+ failed: (pwrite|zero)/,
  },
};

function* pieces(): Generator<Buffer> {
  for (let at = 0; at < SIZE; at += 100_000) yield contents.subarray(at, at + 100_000);
}

const fileOf = async (bytes: Buffer): Promise<CopySource> => ({
  size: bytes.length,
  read: async (into, offset) => void bytes.copy(into, 0, offset),
});

const OLD = Buffer.alloc(SIZE, 0xaa);
const startOf = (name: string): Buffer => (/Write|to it/.test(name) ? OLD : contents);

describe.each(Object.entries(WORKS))('%s over a pool', (name, { run, wanted, failure }) => {
  it('gets over errors that pass, with retry', async () => {
    const backend = new FailingBackend(2, startOf(name));
    await using place = await Place.open(serve(backend));
    // The server reads a long request in pieces, each of which fails.
    await using pool = await connected(place, { attempts: 100, codes: ['EIO', 'ENOMEM'], delay: 1 });
    expect(await run(pool, backend)).toEqual(wanted);
    expect(backend.failures).toBeGreaterThan(1);
    expect(pool.statistics.retries).toBe(backend.failures);
  });

  it('gets over connections that die on the way', async () => {
    const cuts = new Set([2, 5, 9, 30]);
    const backend = new FailingBackend(0, startOf(name), (calls) => {
      if (cuts.has(calls)) place.cut();
    });
    await using place = await Place.open(serve(backend));
    await using pool = await connected(place, { attempts: 1, codes: ['EIO'], delay: 1 });
    const done = run(pool, backend);
    if (name === 'createWriteStream') {
      // Acknowledged and not flushed: without `rewrite`, these writes may be lost.
      expect(await rejection(done)).toMatchObject({ name: 'NbdUnflushedError', code: 'EIO' });
    } else expect(await done).toEqual(wanted);
    expect(pool.statistics.reconnects).toBeGreaterThan(0);
  });

  it.each([
    ['an error that stays', Infinity],
    ['an error that passes too late', 5],
  ])('reports %s as it is, with the number of tries', async (_what, times) => {
    const backend = new FailingBackend(times, startOf(name));
    await using place = await Place.open(serve(backend));
    await using pool = await connected(place, { attempts: 3, codes: ['EIO', 'ENOMEM'], delay: 1 });
    const error = (await rejection(run(pool, backend))) as NbdCommandError;
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error.message).toMatch(failure);
    expect(error.message).toMatch(/failed in passing".*, after 4 tries$/);
    expect(['EIO', 'ENOMEM']).toContain(error.code);
    expect(typeof error.offset).toBe('bigint');
  });
});
