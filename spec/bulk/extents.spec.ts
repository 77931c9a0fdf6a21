import { extents, NbdConnection, STATE_HOLE, STATE_ZERO } from '../../lib/index.js';
import { MemoryBackend, NbdServer, type NbdBackend } from '../../lib/server/index.js';

const HOLE = BigInt(STATE_HOLE | STATE_ZERO);

/** An export whose map is given, reported a few extents at a time. */
function mapped(runs: readonly (readonly [length: number, flags: number])[], atATime: number): NbdBackend {
  return {
    size: runs.reduce((sum, [length]) => sum + length, 0),
    read: (buffer) => void buffer.fill(0),
    extents(offset) {
      let at = 0;
      const found: { length: number; flags: number }[] = [];
      for (const [length, flags] of runs) {
        if (at + length > Number(offset) && found.length < atATime) {
          found.push({ length: at + length - Math.max(at, Number(offset)), flags });
        }
        at += length;
      }
      return found;
    },
  };
}

async function serve(backend: NbdBackend): Promise<NbdServer> {
  return new NbdServer({ exports: { '': backend } }).listenTcp();
}

const connect = (server: NbdServer, extended = false): Promise<NbdConnection> =>
  NbdConnection.connect(server.uri(), {
    metaContexts: ['base:allocation'],
    requestExtendedHeaders: extended,
  });

describe('extents', () => {
  const RUNS = [
    [4096, 0],
    [4096, 0],
    [8192, 3],
    [4096, 3],
    [1000, 2],
    [24, 0],
  ] as const;

  it.each([1, 2, 100])('loops over replies of %i extents and joins neighbours', async (atATime) => {
    await using server = await serve(mapped(RUNS, atATime));
    await using connection = await connect(server);
    const found = [];
    for await (const extent of extents(connection)) found.push(extent);
    expect(found).toEqual([
      { offset: 0n, length: 8192n, flags: 0n },
      { offset: 8192n, length: 12288n, flags: 3n },
      { offset: 20480n, length: 1000n, flags: 2n },
      { offset: 21480n, length: 24n, flags: 0n },
    ]);
  });

  it('cuts to the range and can leave neighbours apart', async () => {
    await using server = await serve(mapped(RUNS, 100));
    await using connection = await connect(server, true);
    const found = [];
    for await (const extent of extents(connection, { offset: 5000, length: 5000n })) found.push(extent);
    expect(found).toEqual([
      { offset: 5000n, length: 3192n, flags: 0n },
      { offset: 8192n, length: 1808n, flags: HOLE },
    ]);
    let count = 0;
    for await (const { length } of extents(connection, { merge: false })) count += length > 0n ? 1 : 0;
    expect(count).toBeGreaterThanOrEqual(4);
  });

  it('covers exports beyond 4 GiB without extended headers', async () => {
    await using server = await serve(new MemoryBackend(20n * 2n ** 30n));
    await using connection = await connect(server);
    const found = [];
    for await (const extent of extents(connection)) found.push(extent);
    expect(found).toEqual([{ offset: 0n, length: 20n * 2n ** 30n, flags: HOLE }]);
  });

  it('yields nothing for nothing', async () => {
    await using server = await serve(new MemoryBackend(0));
    await using connection = await connect(server);
    expect((await extents(connection).next()).done).toBe(true);
  });

  it('refuses ranges outside, invalid counts, and contexts that were not negotiated', async () => {
    await using server = await serve(new MemoryBackend(1 << 20));
    await using connection = await connect(server);
    await expect(extents(connection, { offset: 2 ** 20 + 1 }).next()).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(extents(connection, { length: 2 ** 21 }).next()).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(extents(connection, { offset: -1 }).next()).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(extents(connection, { offset: 1.5 }).next()).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(extents(connection, { context: 'a:b' }).next()).rejects.toMatchObject({ code: 'ENOTSUP' });
  });

  it('ends with the reason of its signal', async () => {
    await using server = await serve(new MemoryBackend(1 << 20));
    await using connection = await connect(server);
    const reason = new Error('enough');
    await expect(extents(connection, { signal: AbortSignal.abort(reason) }).next()).rejects.toBe(reason);
  });
});
