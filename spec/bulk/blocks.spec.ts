// Minimum block sizes: a requested range may begin and end anywhere, what is sent is whole blocks. nbdkit's
// blocksize-policy refuses everything else, and so does the server of this package.

import { once } from 'node:events';

import { afterAll, describe, expect, it } from '@jest/globals';

import {
  blockHash,
  compare,
  copy,
  type CopyDestination,
  createReadStream,
  createWriteStream,
  extents,
  hash,
  NbdConnection,
  prefetch,
} from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { rejection } from '../support/caught.js';
import { describeWith, startNbdkit, stopAllServers } from '../support/real-servers.js';

const MINIMUM = 4096;
const POLICY = [
  ...['blocksize-error-policy=error', `blocksize-minimum=${MINIMUM}`],
  ...['blocksize-preferred=4096', 'blocksize-maximum=1M'],
];

/** Bytes that differ everywhere, with stretches of zeroes at no multiple of anything. */
function contents(random: Random, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size;) {
    const end = Math.min(at + random.pick([1, 511, 1536, 4096, 20_000]), size);
    if (!random.oneIn(3)) for (let byte = at; byte < end; byte++) bytes[byte] = ((byte * 7) % 251) + 1;
    at = end;
  }
  return bytes;
}

/** A source with a map as fine as its bytes. */
const fine = (bytes: Buffer) => ({
  size: bytes.length,
  read: async (buffer: Buffer, offset: number): Promise<void> => void bytes.copy(buffer, 0, offset),
  async *zeroRuns() {
    for (let offset = 0; offset < bytes.length;) {
      let end = offset + 1;
      while (end < bytes.length && (bytes[end] === 0) === (bytes[offset] === 0)) end++;
      yield { offset, length: end - offset, isZero: bytes[offset] === 0 };
      offset = end;
    }
  },
});

const collect = async (stream: AsyncIterable<unknown>): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};

interface Served {
  readonly connect: () => Promise<NbdConnection>;
  readonly close: () => Promise<unknown>;
}

const ours = async (size: number): Promise<Served> => {
  const blockSize = { minimum: MINIMUM, preferred: MINIMUM, maximum: 1 << 20 };
  const server = await new NbdServer({ exports: { '': new MemoryBackend(size, { blockSize }) } }).listenTcp();
  const connect = () => NbdConnection.connect(server.uri(), { metaContexts: ['base:allocation'] });
  return { connect, close: () => server.close() };
};

const nbdkits = async (size: number): Promise<Served> => {
  const server = await startNbdkit({ args: [String(size), ...POLICY], filters: ['blocksize-policy'] });
  return {
    connect: () => NbdConnection.connect(server.uri(), { metaContexts: ['base:allocation'] }),
    close: () => server.stop(),
  };
};

afterAll(stopAllServers);

function cases(serve: (size: number) => Promise<Served>, count: number): void {
  const SIZE = 64 * MINIMUM;

  it(
    withSeed('copy, compare, hashes and streams are exact at any byte'),
    async () => {
      const served = await serve(SIZE);
      await using to = await served.connect();
      let model = Buffer.alloc(SIZE);
      for (let number = 0; number < count; number++) {
        const random = new Random(seedOf(SEED, number));
        const bytes = contents(random, random.between(0, SIZE));
        const label = [SEED, number, bytes.length];
        const options = { requestSize: random.pick([512, 4096, 65_536]), sparse: random.pick([0, 512, 65_536]) };
        await copy(fine(bytes), to, { ...options, extents: random.oneIn(2) });
        bytes.copy(model);
        expect([label, (await to.pread(SIZE, 0)).equals(model)]).toEqual([label, true]);
        expect([label, await compare(fine(bytes), to, { requestSize: random.pick([512, 65_536]) })]).toMatchObject([
          label,
          { differing: 0n, compared: BigInt(bytes.length) },
        ]);

        const [start, end] = [random.between(0, SIZE), random.between(0, SIZE)].sort((a, b) => a - b) as [
          number,
          number,
        ];
        const requests = { requestSize: random.pick([1, 5000, 65_536]), requests: random.between(1, 8) };
        const range = { offset: start, length: end - start };
        expect([
          label,
          (await collect(createReadStream(to, { ...range, ...requests }))).equals(model.subarray(start, end)),
        ]).toEqual([label, true]);
        let reached = BigInt(start);
        for await (const extent of extents(to, range)) {
          expect(extent.offset).toBe(reached);
          reached += extent.length;
        }
        expect(reached).toBe(BigInt(end));
        const { cached, skipped } = await prefetch(to, { ...range, read: random.oneIn(2) });
        expect([label, cached + skipped]).toEqual([label, BigInt(end - start)]);

        const patch = contents(random, Math.min(random.pick([1, 100, 4097, 30_000]), SIZE - start));
        const stream = createWriteStream(to, { offset: start, ...requests, sparse: options.sparse });
        for (let at = 0; at < patch.length; at += 777) stream.write(patch.subarray(at, at + 777));
        await once(stream.end(), 'finish');
        model = Buffer.from(model);
        patch.copy(model, start);
        expect([label, (await to.pread(SIZE, 0)).equals(model)]).toEqual([label, true]);
      }
      await to.flush();
      expect(await hash(to)).toBe(await hash(to, { extents: false }));
      expect(await blockHash(to)).toBe(await blockHash(to, { extents: false, blockSize: 65_536 }));
      await to.shutdown();
      await served.close();
    },
    600_000,
  );

  it('the extents of an export whose end is not a whole block can be listed', async () => {
    const served = await serve(SIZE + 512);
    await using connection = await served.connect();
    const found = [];
    for await (const { offset, length } of extents(connection)) found.push([offset, offset + length]);
    expect([found[0]?.[0], found.at(-1)?.[1]]).toEqual([0n, BigInt(SIZE + 512)]);
    await connection.shutdown();
    await served.close();
  });
}

describe('a server of this package', () => {
  cases(ours, 12);

  it('writes to one block from several sides are all there', async () => {
    const served = await ours(4 * MINIMUM);
    await using to = await served.connect();
    const streams = [0, 1, 2, 3].map((part) => {
      const stream = createWriteStream(to, { offset: MINIMUM + part * 1000 });
      return once(stream.end(Buffer.alloc(1000, part + 1)), 'finish');
    });
    await Promise.all(streams);
    const parts = await to.pread(MINIMUM, MINIMUM);
    for (const part of [0, 1, 2, 3]) {
      const bytes = parts.subarray(part * 1000, (part + 1) * 1000);
      expect([part, bytes.every((byte) => byte === part + 1)]).toEqual([part, true]);
    }
    await copy({ size: 5000, read: async (buffer, offset) => void buffer.fill(offset >= 4096 ? 9 : 8) }, to, {
      requestSize: 512,
      sparse: 0,
    });
    const bytes = await to.pread(2 * MINIMUM, 0);
    expect(bytes.subarray(0, 4096).every((byte) => byte === 8)).toBe(true);
    expect(bytes.subarray(4096, 5000).every((byte) => byte === 9)).toBe(true);
    await to.shutdown();
    await served.close();
  });
});

describeWith(['nbdkit'], 'nbdkit with blocksize-policy', () => {
  cases(nbdkits, 3);
});

describe('a destination of whole blocks that cannot be read', () => {
  const written: number[] = [];
  const destination = (fields: Partial<CopyDestination> = {}): CopyDestination => ({
    size: 8192,
    minimumBlock: 4096,
    write: async (buffer) => void written.push(buffer.length),
    ...fields,
  });
  const source = (size: number) => ({ size, read: async (buffer: Buffer) => void buffer.fill(1) });

  it('is refused before anything is written, where the end needs a part of a block', async () => {
    const error = await rejection(copy(source(5000), destination()));
    expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL', offset: 4096n });
    const failing = destination({ read: () => Promise.reject(Object.assign(new Error('no'), { code: 'EIO' })) });
    await expect(copy(source(5000), failing)).rejects.toMatchObject({ code: 'EIO' });
    expect(written).toEqual([]);
  });

  it('takes whole blocks, and the end of its own size', async () => {
    await copy(source(8192), destination(), { sparse: 0 });
    await copy(source(5000), destination({ size: 5000 }), { sparse: 0 });
    expect(written).toEqual([8192, 5000]);
  });
});
