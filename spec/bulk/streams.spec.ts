import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  blockHash,
  compare,
  createReadStream,
  createWriteStream,
  hash,
  NbdConnection,
  prefetch,
} from '../../lib/index.js';
import { createHash } from 'node:crypto';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';

const SIZE = 3_000_001;

function sample(): Buffer {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 1_000_000; at < 1_500_000; at++) bytes[at] = (at * 7) % 251;
  bytes[SIZE - 1] = 5;
  return bytes;
}

/** Only what is not zero is held, so that the rest are holes. */
function sparse(bytes: Buffer): MemoryBackend {
  const backend = new MemoryBackend(bytes.length);
  backend.write(Buffer.from(bytes.subarray(1_000_000, 1_500_000)), 1_000_000);
  backend.write(Buffer.from(bytes.subarray(bytes.length - 1)), bytes.length - 1);
  return backend;
}

let server: NbdServer;
let connection: NbdConnection;
let target: MemoryBackend;

const open = (name: string): Promise<NbdConnection> =>
  NbdConnection.connect(server.uri(name), { metaContexts: ['base:allocation'] });

function contents(): Buffer {
  const bytes = Buffer.alloc(SIZE);
  target.read(bytes, 0);
  return bytes;
}

beforeEach(async () => {
  target = new MemoryBackend(SIZE);
  server = await new NbdServer({
    exports: {
      '': sparse(sample()),
      target,
      fixed: new MemoryBackend(10, { readOnly: true }),
      cold: { backend: MemoryBackend.from(Buffer.alloc(10, 1)), flags: { cache: false } },
    },
  }).listenTcp();
  connection = await open('');
});
afterEach(async () => {
  await connection.shutdown();
  await server.close();
});

describe('createReadStream', () => {
  it.each([{}, { requestSize: 1000, requests: 3 }, { extents: false }])(
    'reads everything in order: %j',
    async (options) => {
      const chunks: Buffer[] = [];
      for await (const chunk of createReadStream(connection, options) as AsyncIterable<Buffer>) chunks.push(chunk);
      expect(Buffer.concat(chunks).equals(sample())).toBe(true);
      expect(connection.aioIsReady()).toBe(true);
    },
  );

  it('reads a range', async () => {
    const stream = createReadStream(connection, { offset: 1_000_001, length: 1000n, requestSize: 64 });
    const chunks = (await stream.toArray()) as Buffer[];
    expect(Buffer.concat(chunks).equals(sample().subarray(1_000_001, 1_001_001))).toBe(true);
    expect(() => createReadStream(connection, { offset: SIZE + 1 })).toThrow(/leaves the export/);
  });

  it('leaves no read behind when its consumer stops', async () => {
    for await (const chunk of createReadStream(connection, { extents: false, requestSize: 4096 })) {
      expect(chunk).toHaveLength(4096);
      break;
    }
    await connection.flush();
    expect(connection.aioInFlight()).toBe(0);
  });

  it('is destroyed with the error of a read, and by its signal', async () => {
    server.faults.push({ command: 'read', error: 'EIO', times: 1 });
    await expect(createReadStream(connection).toArray()).rejects.toMatchObject({ code: 'EIO' });
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(createReadStream(connection, { signal }).toArray()).rejects.toMatchObject({
      name: 'AbortError',
      cause: reason,
    });
  });
});

describe('createWriteStream', () => {
  it.each([{}, { sparse: 4096 }, { requestSize: 4096, requests: 2, flush: true }])(
    'writes chunks of any size: %j',
    async (options) => {
      const to = await open('target');
      const bytes = sample();
      const chunks = [];
      for (let at = 0; at < SIZE; at += 77_777) chunks.push(bytes.subarray(at, at + 77_777));
      await pipeline(Readable.from(chunks), createWriteStream(to, options));
      expect(contents().equals(bytes)).toBe(true);
      if ('sparse' in options) expect(target.allocated).toBeLessThan(1_000_000);
      await to.shutdown();
    },
  );

  it('begins at an offset, and fails with ENOSPC at the end of the export', async () => {
    const to = await open('target');
    await pipeline(Readable.from([Buffer.from('hello')]), createWriteStream(to, { offset: 100 }));
    expect(contents().toString('latin1', 100, 105)).toBe('hello');
    const late = pipeline(Readable.from([Buffer.alloc(10)]), createWriteStream(to, { offset: SIZE - 5 }));
    await expect(late).rejects.toMatchObject({ code: 'ENOSPC' });
    await to.shutdown();
  });

  it('refuses a read-only export', async () => {
    const fixed = await open('fixed');
    expect(() => createWriteStream(fixed)).toThrow(expect.objectContaining({ code: 'EPERM' }) as Error);
    await fixed.shutdown();
  });
});

describe('compare, hash, prefetch', () => {
  it('finds the first difference and counts them', async () => {
    const to = await open('target');
    await pipeline(createReadStream(connection), createWriteStream(to, { sparse: 4096 }));
    const same = await compare(connection, to);
    expect(same).toMatchObject({ equal: true, firstDifference: null, differing: 0n, compared: BigInt(SIZE) });
    expect(same.skipped).toBeGreaterThan(1_000_000);
    await to.pwrite(Buffer.from([1]), 200);
    await to.pwrite(Buffer.from([255, 255]), 1_200_000);
    const different = await compare(connection, to, { requestSize: 4096 });
    expect(different).toMatchObject({ equal: false, firstDifference: 200n, differing: 3n });
    expect(await compare(connection, to, { stopAtFirst: true, extents: false })).toMatchObject({
      firstDifference: 200n,
    });
    await to.shutdown();
  });

  it('hashes bytes as crypto does, and blocks whatever holds their zeroes', async () => {
    expect(await hash(connection)).toBe(createHash('sha256').update(sample()).digest('hex'));
    const digest = await blockHash(connection);
    expect(await blockHash(connection, { extents: false })).toBe(digest);
    expect(await blockHash(connection, { algorithm: 'md5' })).toHaveLength(32);
  });

  it('prefetches data only, by reading where asked', async () => {
    const seen: bigint[] = [];
    const result = await prefetch(connection, {
      read: true,
      requestSize: 65536,
      requests: 2,
      onProgress: ({ cached, skipped }) => seen.push(cached + skipped),
    });
    expect(result.cached + result.skipped).toBe(BigInt(SIZE));
    expect(result.cached).toBeLessThan(1_000_000n);
    expect(seen.at(-1)).toBe(BigInt(SIZE));
    const all = await prefetch(connection, { read: true, dataOnly: false, offset: 5, length: 1000 });
    expect(all).toEqual({ cached: 1000n, skipped: 0n, commands: 1, inFlight: 8 << 22 });
    const cold = await open('cold');
    await expect(prefetch(cold)).rejects.toMatchObject({ code: 'EINVAL' });
    await cold.shutdown();
  });
});
