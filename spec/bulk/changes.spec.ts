// mergedExtents(), changes() and totals() over exports whose answers the spec makes up: real servers are in
// maps-real.spec.ts.

import { describe, expect, it } from '@jest/globals';

import {
  changes,
  type ChangesOptions,
  extents,
  mergedExtents,
  NbdCommandError,
  NbdConnection,
  NbdProtocolError,
  totals,
} from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { rejection } from '../support/caught.js';
import { all, FakeExport, type FakeOptions, type Runs, size } from './fake-export.js';

const A = 'base:allocation';
const B = 'qemu:dirty-bitmap:b0';

const runs = (...pairs: readonly (readonly [number, number])[]): Runs =>
  pairs.map(([length, flags]) => [BigInt(length), BigInt(flags)] as const);

const ALLOCATION = runs([4096, 0], [4096, 3], [8192, 0], [4096, 2], [4096, 0]);
const DIRTY = runs([2048, 0], [4096, 1], [8192, 0], [8192, 1], [2048, 0]);
const CONTEXTS = { [A]: ALLOCATION, [B]: DIRTY };

const faked = (options: Partial<FakeOptions> = {}): FakeExport => new FakeExport({ contexts: CONTEXTS, ...options });

const CHANGES = [
  { offset: 2048n, length: 2048n, zero: false },
  { offset: 4096n, length: 2048n, zero: true },
  { offset: 14_336n, length: 2048n, zero: false },
  { offset: 16_384n, length: 4096n, zero: true },
  { offset: 20_480n, length: 2048n, zero: false },
];

describe('mergedExtents', () => {
  const MERGED = [
    [0, 2048, 0, 0],
    [2048, 2048, 0, 1],
    [4096, 2048, 3, 1],
    [6144, 2048, 3, 0],
    [8192, 6144, 0, 0],
    [14_336, 2048, 0, 1],
    [16_384, 4096, 2, 1],
    [20_480, 2048, 0, 1],
    [22_528, 2048, 0, 0],
  ].map(([offset = 0, length = 0, ...flags]) => ({
    offset: BigInt(offset),
    length: BigInt(length),
    flags: flags.map(BigInt),
  }));

  it.each([[undefined], [512], [5000]])('lays contexts over each other, with step %p', async (step) => {
    const options = { contexts: [A, B], ...(step === undefined ? {} : { step }) };
    const fake = faked();
    expect(await all(mergedExtents(fake.connection, options))).toEqual(MERGED);
    if (step === undefined) expect(fake.asked).toHaveLength(1);
    const turned = await all(mergedExtents(faked().connection, { ...options, contexts: [B, A] }));
    expect(turned).toEqual(MERGED.map((extent) => ({ ...extent, flags: [...extent.flags].reverse() })));
  });

  it('asks again for what a context left out at the end of a reply', async () => {
    const fake = faked({
      answer: (found) => new Map([...found].map(([name, pairs]) => [name, name === B ? pairs.slice(0, 2) : pairs])),
    });
    expect(await all(mergedExtents(fake.connection, { contexts: [A, B] }))).toEqual(MERGED);
    expect(fake.asked.length).toBeGreaterThanOrEqual(DIRTY.length);
  });

  it('joins neighbours across answers, and leaves out contexts that were not asked for', async () => {
    const found = await all(mergedExtents(faked().connection, { contexts: [B], step: 512 }));
    expect(found.map(({ length, flags }) => [length, flags])).toEqual(
      DIRTY.map(([length, flags]) => [length, [flags]]),
    );
  });

  it('keeps 64 bits of flags and lengths', async () => {
    const wide: Runs = [
      [size(8, 'T'), 2n ** 63n],
      [size(8, 'T'), 2n ** 40n + 1n],
    ];
    const fake = new FakeExport({ contexts: { 'x:y': wide }, extendedHeaders: true });
    expect(await all(mergedExtents(fake.connection, { contexts: ['x:y'] }))).toEqual([
      { offset: 0n, length: size(8, 'T'), flags: [2n ** 63n] },
      { offset: size(8, 'T'), length: size(8, 'T'), flags: [2n ** 40n + 1n] },
    ]);
  });
});

describe('changes', () => {
  it.each([
    ['a name', { bitmap: 'b0' }],
    ['a whole name', { bitmap: B }],
    ['the allocation named', { bitmap: 'b0', allocation: A }],
    ['short questions', { bitmap: 'b0', step: 1024, questions: 3 }],
  ] as [string, ChangesOptions][])('reports what is dirty, and what of it is zero: %s', async (_what, options) => {
    expect(await all(changes(faked().connection, options))).toEqual(CHANGES);
  });

  it('reports a range, cut to it', async () => {
    const found = await all(changes(faked().connection, { bitmap: 'b0', offset: 5000, length: 12_000n }));
    expect(found).toEqual([
      { offset: 5000n, length: 1144n, zero: true },
      { offset: 14_336n, length: 2048n, zero: false },
      { offset: 16_384n, length: 616n, zero: true },
    ]);
  });

  it('joins what is dirty where nothing is known to be zero', async () => {
    const joined = [
      { offset: 2048n, length: 4096n, zero: false },
      { offset: 14_336n, length: 8192n, zero: false },
    ];
    expect(await all(changes(faked().connection, { bitmap: 'b0', allocation: false }))).toEqual(joined);
    const alone = new FakeExport({ contexts: { [B]: DIRTY } });
    expect(await all(changes(alone.connection, { bitmap: 'b0' }))).toEqual(joined);
  });

  it('takes bitmaps of other servers, and names with a colon', async () => {
    const other = new FakeExport({ contexts: { 'x-store:delta': runs([512, 0], [512, 6]) } });
    expect(await all(changes(other.connection, { bitmap: 'x-store:delta' }))).toEqual([
      { offset: 512n, length: 512n, zero: false },
    ]);
    const colon = new FakeExport({ contexts: { 'qemu:dirty-bitmap:a:b': DIRTY } });
    expect(await all(changes(colon.connection, { bitmap: 'a:b' }))).toHaveLength(2);
  });

  it('yields nothing, without an error, for a bitmap that is clean', async () => {
    const clean = new FakeExport({ contexts: { [A]: ALLOCATION, [B]: runs([24_576, 0]) } });
    expect(await all(changes(clean.connection, { bitmap: 'b0' }))).toEqual([]);
    const empty = new FakeExport({ contexts: { [B]: [] } });
    expect(await all(changes(empty.connection, { bitmap: 'b0' }))).toEqual([]);
  });

  it.each([
    ['was not negotiated', { bitmap: 'b1' }, 'ENOTSUP'],
    ['was not negotiated, by its whole name', { bitmap: 'qemu:dirty-bitmap:b1' }, 'ENOTSUP'],
    ['has no name', { bitmap: '' }, 'EINVAL'],
    ['is missing', {}, 'EINVAL'],
    ['is the allocation', { bitmap: A }, 'EINVAL'],
    ['is the depth', { bitmap: 'qemu:allocation-depth' }, 'EINVAL'],
    ['is its own allocation', { bitmap: 'b0', allocation: B }, 'EINVAL'],
    ['has an allocation that was not negotiated', { bitmap: 'b0', allocation: 'x:y' }, 'ENOTSUP'],
  ] as [string, ChangesOptions, string][])(
    'refuses a bitmap that %s, before anything is asked',
    async (_what, options, code) => {
      const fake = faked();
      expect(await rejection(all(changes(fake.connection, options)))).toMatchObject({ name: 'NbdStrictError', code });
      expect(fake.asked).toEqual([]);
    },
  );

  it.each([1, 3])('is an error where block status fails: question %i', async (nth) => {
    const fake = faked({
      answer: (found, { number }) => {
        if (number + 1 === nth) throw new NbdCommandError('no bitmap today', { code: 'EIO' });
        return found;
      },
    });
    const error = await rejection(all(changes(fake.connection, { bitmap: 'b0', step: 4096, questions: 1 })));
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error).toMatchObject({ code: 'EIO', syscall: 'changes', offset: BigInt(nth - 1) * 4096n });
    expect((error as Error).message).toMatch(/^changes: block status at offset \d+ failed: no bitmap today$/);
  });

  it.each([
    ['the bitmap', B],
    ['the allocation', A],
  ])('is EPROTO where a reply leaves out %s', async (_what, name) => {
    const fake = faked({
      answer: (found, { number }) => {
        if (number === 2) found.delete(name);
        return found;
      },
    });
    const error = await rejection(all(changes(fake.connection, { bitmap: 'b0', step: 4096 })));
    expect(error).toBeInstanceOf(NbdProtocolError);
    expect((error as Error).message).toContain(`no extent of "${name}"`);
  });

  it('is an error where the server refuses to report on the short last block: it is not known to be clean', async () => {
    const fake = new FakeExport({
      contexts: { [A]: runs([8292, 0]), [B]: runs([8292, 0]) },
      minimum: 4096,
      answer: (found, { offset }) => {
        if (offset === 8192n) throw new NbdCommandError('less than a block', { code: 'EINVAL' });
        return found;
      },
    });
    expect(await rejection(all(changes(fake.connection, { bitmap: 'b0' })))).toMatchObject({ code: 'EINVAL' });
  });
});

describe('totals', () => {
  it('adds up each context, flags in ascending order', async () => {
    const found = await totals(faked().connection, { contexts: [B, A], step: 1000 });
    expect([...found].map(([name, bytes]) => [name, [...bytes]])).toEqual([
      [
        B,
        [
          [0n, 12_288n],
          [1n, 12_288n],
        ],
      ],
      [
        A,
        [
          [0n, 16_384n],
          [2n, 4096n],
          [3n, 4096n],
        ],
      ],
    ]);
    const part = await totals(faked().connection, { contexts: [A], offset: 4000, length: 200 });
    expect([...(part.get(A) ?? [])]).toEqual([
      [0n, 96n],
      [3n, 104n],
    ]);
    expect(await totals(faked().connection, { contexts: [A], length: 0 })).toEqual(new Map([[A, new Map()]]));
  });

  it('does not add up what has no end', async () => {
    const endless: Runs = Array.from({ length: 70_000 }, (_, index) => [512n, BigInt(index)] as const);
    const fake = new FakeExport({ contexts: { 'x:y': endless } });
    const error = await rejection(totals(fake.connection, { contexts: ['x:y'] }));
    expect(error).toMatchObject({ code: 'EOVERFLOW', syscall: 'totals' });
  });
});

type Walk = (fake: FakeExport['connection'], options: object) => Promise<unknown>;
const WALKS: readonly (readonly [string, Walk])[] = [
  ['mergedExtents', (from, options) => all(mergedExtents(from, { contexts: [A, B], ...options }))],
  ['changes', (from, options) => all(changes(from, { bitmap: 'b0', ...options }))],
  ['totals', (from, options) => totals(from, { contexts: [A, B], ...options })],
];

describe.each(WALKS)('%s', (name, walk) => {
  it.each([
    [{ stepp: 1 }, 'EINVAL'],
    [{ step: 0 }, 'EINVAL'],
    [{ questions: 0 }, 'EINVAL'],
    [{ questions: 1.5 }, 'EINVAL'],
    [{ questions: Infinity }, 'EINVAL'],
    [{ offset: -1 }, 'EINVAL'],
    [{ offset: 24_577 }, 'EINVAL'],
    [{ offset: 1, length: 24_576 }, 'EINVAL'],
    [{ signal: 'now' }, 'EINVAL'],
    ...(name === 'changes'
      ? [[{ allocation: true }, 'EINVAL'] as const]
      : ([
          [{ contexts: [] }, 'EINVAL'],
          [{ contexts: A }, 'EINVAL'],
          [{ contexts: [A, A] }, 'EINVAL'],
          [{ contexts: undefined }, 'EINVAL'],
          [{ contexts: [A, 'x:y'] }, 'ENOTSUP'],
        ] as const)),
  ] as [object, string][])('refuses %j before anything is asked', async (options, code) => {
    const fake = faked();
    const error = await rejection(walk(fake.connection, options));
    expect(error).toMatchObject({ name: 'NbdStrictError', code, syscall: name });
    expect(fake.asked).toEqual([]);
  });

  it('refuses what is not an export', async () => {
    const error = await rejection(walk({} as FakeExport['connection'], {}));
    expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
  });

  it('ends with the reason of its signal at any moment, and leaves no command in flight', async () => {
    const reason = new Error('enough');
    const aborted = { signal: AbortSignal.abort(reason) };
    expect(await rejection(walk(faked().connection, aborted))).toBe(reason);
    for (let nth = 0; nth < 12; nth++) {
      const controller = new AbortController();
      const signals: AbortSignal[] = [];
      const fake = faked({
        answer: (found, { number }) => {
          if (number === nth) controller.abort(reason);
          return found;
        },
      });
      const { connection } = fake;
      const blockStatus = connection.blockStatus64 as unknown as (...args: unknown[]) => Promise<unknown>;
      const watched = {
        ...connection,
        blockStatus64: (...args: unknown[]) => {
          signals.push(args[3] as AbortSignal);
          return blockStatus(...args);
        },
      } as unknown as typeof connection;
      expect(await rejection(walk(watched, { signal: controller.signal, step: 1024 }))).toBe(reason);
      expect(signals.every(({ aborted: isAborted }) => isAborted)).toBe(true);
    }
  });

  it('ends with the reason of its signal although the export never answers', async () => {
    const stuck = { ...faked().connection, blockStatus64: () => new Promise(() => undefined) };
    const signal = AbortSignal.timeout(20);
    expect(await rejection(walk(stuck as never, { signal }))).toBe(signal.reason);
  });
});

describe('over connections', () => {
  it('works with contexts of a server of this package, with and without extended headers', async () => {
    const page = 65_536;
    const metaContexts = {
      [B]: {
        extents: (offset: number | bigint) =>
          [
            { length: page, flags: 0 },
            { length: 2 * page, flags: 1 },
            { length: page, flags: 0 },
          ].slice(offset === 0 ? 0 : 3),
      },
    };
    const backend = new MemoryBackend(4 * page);
    backend.write(Buffer.alloc(page, 1), page);
    await using server = new NbdServer({ exports: { '': { backend, metaContexts } } });
    for (const requestExtendedHeaders of [true, false]) {
      await using connection = await NbdConnection.connect(server.connectMemory(), {
        metaContexts: [A, B],
        requestExtendedHeaders,
      });
      expect(await all(changes(connection, { bitmap: 'b0' }))).toEqual([
        { offset: BigInt(page), length: BigInt(page), zero: false },
        { offset: BigInt(2 * page), length: BigInt(page), zero: true },
      ]);
    }
  });

  it('stops asking when the caller has stopped', async () => {
    await using server = new NbdServer({ exports: { '': new MemoryBackend(2 ** 40) } });
    await using connection = await NbdConnection.connect(server.connectMemory(), { metaContexts: [A] });
    for await (const _ of extents(connection, { step: 65_536, merge: false })) break;
    const { blockStatus } = server.statistics.requests;
    await connection.pread(1, 0);
    expect(server.statistics.requests.blockStatus).toBe(blockStatus);
    expect(connection.aioInFlight()).toBe(0);
  });
});
