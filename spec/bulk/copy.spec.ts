import { copy, type CopyDestination, type CopySource, NbdConnection, nullDestination } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';

const MIB = 1 << 20;
const UNIT = 128 * MIB;

interface Written {
  readonly kind: 'write' | 'zero';
  readonly offset: number;
  readonly length: number;
}

/** A destination that records its calls. */
function noting(extra: Partial<CopyDestination> = {}): { log: Written[]; destination: CopyDestination } {
  const log: Written[] = [];
  const note = (kind: Written['kind'], offset: number, length: number): void => void log.push({ kind, offset, length });
  return {
    log,
    destination: {
      size: Infinity,
      write: async (buffer, offset) => note('write', offset, buffer.length),
      zero: async (offset, count) => {
        note('zero', offset, count);
        return true;
      },
      ...extra,
    },
  };
}

/** A source of ones, with zeroes at `runs`; `lies` reads zeroes elsewhere too. */
function source(
  size: number,
  zeroes: readonly (readonly [number, number])[] = [],
  extra: Partial<CopySource> = {},
): CopySource {
  return {
    size,
    read: async (buffer) => void buffer.fill(1),
    async *zeroRuns() {
      let at = 0;
      for (const [start, end] of zeroes) {
        if (start > at) yield { offset: at, length: start - at, isZero: false };
        yield { offset: start, length: end - start, isZero: true };
        at = end;
      }
      if (at < size) yield { offset: at, length: size - at, isZero: false };
    },
    ...extra,
  };
}

const inOrder = (log: readonly Written[]): Written[] => [...log].sort((a, b) => a.offset - b.offset);

describe('copy', () => {
  it('joins zeroes into one command for each 128 MiB, never across', async () => {
    const { log, destination } = noting();
    const result = await copy(source(3 * UNIT + 5000, [[MIB, 3 * UNIT + 5000]]), destination);
    expect(inOrder(log).filter(({ kind }) => kind === 'zero')).toEqual([
      { kind: 'zero', offset: MIB, length: UNIT - MIB },
      { kind: 'zero', offset: UNIT, length: UNIT },
      { kind: 'zero', offset: 2 * UNIT, length: UNIT },
      { kind: 'zero', offset: 3 * UNIT, length: 5000 },
    ]);
    expect(result).toEqual({
      total: BigInt(3 * UNIT + 5000),
      read: BigInt(MIB),
      written: BigInt(MIB),
      zeroed: BigInt(3 * UNIT + 5000 - MIB),
      resumed: 0n,
      missing: [],
      inFlight: 32 * 262144,
    });
    expect(JSON.parse(JSON.stringify(result))).toMatchObject({ read: MIB, missing: [] });
  });

  it('reads a request that is only partly known to be zero, and the short last one', async () => {
    const { log, destination } = noting();
    await copy(source(600_000, [[100_000, 300_000]]), destination, { sparse: 0 });
    expect(inOrder(log)).toEqual([
      { kind: 'write', offset: 0, length: 262144 },
      { kind: 'write', offset: 262144, length: 262144 },
      { kind: 'write', offset: 524288, length: 75712 },
    ]);
  });

  it('finds zeroes in what it reads, in blocks, the unaligned tail excepted', async () => {
    const read: CopySource['read'] = async (buffer, offset) => {
      buffer.fill(0);
      if (offset === 0) buffer[10_000] = 1;
    };
    const { log, destination } = noting();
    await copy(source(262144 + 5000, [], { read }), destination);
    expect(inOrder(log)).toEqual([
      { kind: 'zero', offset: 0, length: 8192 },
      { kind: 'write', offset: 8192, length: 4096 },
      { kind: 'zero', offset: 12288, length: 262144 - 12288 },
      { kind: 'zero', offset: 262144, length: 4096 },
      { kind: 'write', offset: 262144 + 4096, length: 904 },
    ]);
    const all = noting();
    await copy(source(262144, [], { read }), all.destination, { allocated: true });
    expect(all.log).toEqual([{ kind: 'write', offset: 0, length: 262144 }]);
  });

  it('leaves zeroes out of a destination that is zero, and writes them where zero is refused', async () => {
    const zeroed = noting();
    await copy(source(MIB, [[0, MIB]]), zeroed.destination, { destinationIsZero: true });
    expect(zeroed.log).toEqual([]);
    const refused = noting({ zero: async () => false });
    await copy(source(MIB, [[0, MIB]]), refused.destination);
    expect(inOrder(refused.log).map(({ kind, length }) => [kind, length])).toEqual(
      Array.from({ length: 4 }, () => ['write', 262144]),
    );
  });

  it('keeps to the number of requests, and reports its progress', async () => {
    let running = 0;
    let most = 0;
    const slow: CopySource['read'] = async (buffer) => {
      most = Math.max(most, ++running);
      await new Promise((done) => setTimeout(done, 1));
      buffer.fill(1);
      running--;
    };
    const seen: bigint[] = [];
    await copy(source(4 * MIB, [], { read: slow }), nullDestination(), {
      requests: 3,
      onProgress: ({ done, total }) => {
        expect(total).toBe(BigInt(4 * MIB));
        seen.push(done);
      },
    });
    expect(most).toBe(3);
    expect(seen.at(-1)).toBe(BigInt(4 * MIB));
    expect(seen).toEqual([...seen].sort((a, b) => Number(a - b)));
  });

  it('reports where it failed, when everything that ran has settled', async () => {
    let running = 0;
    const read: CopySource['read'] = async (_buffer, offset) => {
      running++;
      await new Promise((done) => setTimeout(done, offset === 0 ? 1 : 20));
      running--;
      if (offset === 0) throw Object.assign(new Error('a bad sector'), { code: 'EIO' });
    };
    await expect(copy(source(4 * MIB, [], { read }), nullDestination())).rejects.toMatchObject({
      message: 'copy: read at offset 0 failed: a bad sector',
      code: 'EIO',
      offset: 0n,
    });
    expect(running).toBe(0);
  });

  it('ends with the reason of its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const read: CopySource['read'] = async () => abort.abort(reason);
    const copying = copy(source(64 * MIB, [], { read }), nullDestination(), { signal: abort.signal, requests: 1 });
    await expect(copying).rejects.toBe(reason);
  });

  it('refuses a smaller or read-only destination, and sizes that are not powers of 2', async () => {
    await expect(copy(source(2), { ...nullDestination(), size: 1 })).rejects.toMatchObject({ code: 'ENOSPC' });
    await expect(copy(source(2), nullDestination(), { requestSize: 1000 })).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(copy(source(2), nullDestination(), { sparse: 100 })).rejects.toMatchObject({ code: 'EINVAL' });
    await using server = await new NbdServer({
      exports: { '': new MemoryBackend(1024, { readOnly: true }) },
    }).listenTcp();
    await using connection = await NbdConnection.connect(server.uri());
    await expect(copy(source(2), connection)).rejects.toMatchObject({ code: 'EPERM' });
  });

  it('copies between exports over several connections', async () => {
    const bytes = Buffer.alloc(3 * MIB + 777);
    for (let at = MIB; at < 2 * MIB; at++) bytes[at] = at % 251;
    bytes.fill(9, 3 * MIB);
    const origin = new MemoryBackend(bytes.length);
    origin.write(Buffer.from(bytes.subarray(MIB, 2 * MIB)), MIB);
    origin.write(Buffer.from(bytes.subarray(3 * MIB)), 3 * MIB);
    const target = new MemoryBackend(4 * MIB);
    await using server = await new NbdServer({ exports: { a: origin, b: target } }).listenTcp();
    const open = (name: string): Promise<NbdConnection> =>
      NbdConnection.connect(server.uri(name), { metaContexts: ['base:allocation'] });
    const from = await Promise.all([open('a'), open('a')]);
    const to = await Promise.all([open('b'), open('b')]);
    const { read } = await copy(from, to, { flush: true });
    expect(read).toBeLessThan(bytes.length);
    const back = Buffer.alloc(4 * MIB);
    target.read(back, 0);
    expect(back.subarray(0, bytes.length).equals(bytes)).toBe(true);
    await Promise.all([...from, ...to].map((connection) => connection.shutdown()));
  });
});
