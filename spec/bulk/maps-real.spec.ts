// Maps of real servers, held against what nbdinfo and qemu-img report: QEMU's dirty bitmaps, extended headers, short
// answers of plugins, and block status that fails.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';

import {
  type Change,
  changes,
  extents,
  hash,
  mergedExtents,
  NbdConnection,
  STATE_ZERO,
  totals,
} from '../../lib/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { rejection } from '../support/caught.js';
import { describeWith, runTool, startNbdkit, startQemuNbd, stopAllServers } from '../support/real-servers.js';
import { startTrixieQemuNbd, whyNoTrixie } from '../support/trixie.js';
import { all } from './fake-export.js';

const A = 'base:allocation';
const B = 'qemu:dirty-bitmap:b0';
const CLUSTER = 65_536;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-maps-spec-'));
});
afterEach(stopAllServers);
afterAll(() => rm(folder, { recursive: true, force: true }));

const run = async (tool: string, ...words: string[]): Promise<string> => {
  const { code, stdout, stderr } = await runTool(tool, words);
  if (code !== 0) throw new Error(`${tool} ${words.join(' ')}: ${stderr}`);
  return stdout;
};

const open = (uri: string, ...metaContexts: string[]): Promise<NbdConnection> =>
  NbdConnection.connect(uri, { metaContexts });

interface NbdinfoExtent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}
const nbdinfo = async (uri: string, context: string): Promise<NbdinfoExtent[]> =>
  JSON.parse(await run('nbdinfo', `--map=${context}`, '--json', uri)) as NbdinfoExtent[];

/** What of an image is dirty and what of it is zero, cluster by cluster, as nbdinfo reports it. */
async function changesByNbdinfo(uri: string, size: number): Promise<Change[]> {
  const grain = 512;
  const types = async (context: string): Promise<Uint8Array> => {
    const found = new Uint8Array(Math.ceil(size / grain));
    for (const { offset, length, type } of await nbdinfo(uri, context)) {
      found.fill(type, offset / grain, Math.ceil((offset + length) / grain));
    }
    return found;
  };
  const [allocation, dirty] = [await types(A), await types(B)];
  const found: { offset: bigint; length: bigint; zero: boolean }[] = [];
  for (const [index, isDirty] of dirty.entries()) {
    if (isDirty === 0) continue;
    const offset = BigInt(index * grain);
    const zero = ((allocation[index] as number) & STATE_ZERO) !== 0;
    const last = found.at(-1);
    if (last?.zero === zero && last.offset + last.length === offset) last.length += BigInt(grain);
    else found.push({ offset, length: BigInt(grain), zero });
  }
  return found;
}

/** A qcow2 image with a bitmap, written to before and after the bitmap was added. */
async function makeImage(image: string, random: Random, size: number): Promise<void> {
  const writes = (): string[] =>
    Array.from({ length: random.between(0, 12) }, () => {
      const offset = 512 * random.below(size / 512);
      const length = Math.min(512 * random.between(1, 600), size - offset);
      const how = random.pick(['write -P 7', 'write -P 9', 'write -z', 'write -zu', 'discard']);
      return ['-c', `${how} ${offset} ${length}`];
    }).flat();
  const write = async (): Promise<void> => {
    const words = writes();
    if (words.length > 0) await run('qemu-io', '-f', 'qcow2', ...words, image);
  };
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, String(size));
  await write();
  await run('qemu-img', 'bitmap', '--add', '-g', String(random.pick([512, 4096, CLUSTER])), image, 'b0');
  await write();
}

describeWith(['qemu-nbd', 'qemu-img', 'qemu-io', 'nbdinfo'], withSeed('maps of qemu-nbd with dirty bitmaps'), () => {
  it('are what nbdinfo reports, for random dirty sets', async () => {
    for (let number = 0; number < 4; number++) {
      const random = new Random(seedOf(SEED, number));
      const size = 512 * random.between(10_000, 100_000);
      const image = join(folder, `random-${number}.qcow2`);
      await makeImage(image, random, size);
      await using server = await startQemuNbd({ file: image, format: 'qcow2', bitmap: 'b0', args: ['--read-only'] });
      const uri = server.uri();
      await using connection = await open(uri, A, B);
      const wanted = await changesByNbdinfo(uri, size);
      expect([number, await all(changes(connection, { bitmap: 'b0' }))]).toEqual([number, wanted]);
      expect([number, await all(changes(connection, { bitmap: B, step: 100_000 }))]).toEqual([number, wanted]);
      for (const [index, context] of [A, B].entries()) {
        const theirs = await nbdinfo(uri, context);
        const ours = await all(extents(connection, { context, step: 1 << 20 }));
        expect(ours.map(({ offset, length, flags }) => [offset, length, flags].map(Number))).toEqual(
          theirs.map(({ offset, length, type }) => [offset, length, type]),
        );
        const bytes = new Map<bigint, bigint>();
        for await (const { length, flags } of mergedExtents(connection, { contexts: [A, B], step: 77_777 })) {
          const flag = flags[index] as bigint;
          bytes.set(flag, (bytes.get(flag) ?? 0n) + length);
        }
        const [ascending] = [new Map([...bytes].sort(([a], [b]) => Number(a - b)))];
        expect((await totals(connection, { contexts: [A, B] })).get(context)).toEqual(ascending);
      }
    }
  }, 120_000);

  it('cover the same zeroes as qemu-img map', async () => {
    const image = join(folder, 'zeroes.qcow2');
    await makeImage(image, new Random(seedOf(SEED, 99)), 512 * 20_001);
    await using server = await startQemuNbd({ file: image, format: 'qcow2', bitmap: 'b0', args: ['--read-only'] });
    await using connection = await open(server.uri(), A, B);
    const theirs = JSON.parse(await run('qemu-img', 'map', '--output=json', '-f', 'qcow2', '-U', image)) as {
      start: number;
      length: number;
      zero: boolean;
    }[];
    const joined: [number, boolean][] = [];
    for (const { length, zero } of theirs) {
      const last = joined.at(-1);
      if (last?.[1] === zero) last[0] += length;
      else joined.push([length, zero]);
    }
    const ours: [number, boolean][] = [];
    for await (const { length, flags } of extents(connection)) {
      const zero = (flags & BigInt(STATE_ZERO)) !== 0n;
      const last = ours.at(-1);
      if (last?.[1] === zero) last[0] += Number(length);
      else ours.push([Number(length), zero]);
    }
    expect(ours).toEqual(joined);
  });

  it('refuse a bitmap that is not exported, and never pass for "nothing has changed"', async () => {
    await using server = await startQemuNbd({ bitmap: 'b0' });
    await using both = await open(server.uri(), A, B, 'qemu:dirty-bitmap:b1');
    expect(await all(changes(both, { bitmap: 'b0' }))).toEqual([]);
    expect(await rejection(all(changes(both, { bitmap: 'b1' })))).toMatchObject({ code: 'ENOTSUP' });
    await using without = await open(server.uri(), A);
    expect(await rejection(all(changes(without, { bitmap: 'b0' })))).toMatchObject({ code: 'ENOTSUP' });
  });
});

const lacking = whyNoTrixie();
if (lacking !== null) process.stderr.write(`skipped: maps over extended headers, ${lacking}\n`);
(lacking === null ? describe : describe.skip)('maps of qemu-nbd 10, with extended headers', () => {
  it('are what nbdinfo reports, and those of 32-bit block status', async () => {
    const size = 512 * 50_001;
    const server = await startTrixieQemuNbd({
      transport: 'unix',
      makeImage: (path) => makeImage(path, new Random(seedOf(SEED, 7)), size),
      args: ['--format=qcow2', '--bitmap=b0', '--read-only'],
    });
    await using wide = await open(server.uri(), A, B);
    expect(wide.getExtendedHeadersNegotiated()).toBe(true);
    await using narrow = await NbdConnection.connect(server.uri(), {
      metaContexts: [A, B],
      requestExtendedHeaders: false,
    });
    const wanted = await changesByNbdinfo(server.uri(), size);
    for (const connection of [wide, narrow]) {
      expect(await all(changes(connection, { bitmap: 'b0' }))).toEqual(wanted);
      expect(await all(changes(connection, { bitmap: 'b0', step: 65_536, questions: 4 }))).toEqual(wanted);
    }
  }, 60_000);
});

describeWith(['nbdkit', 'nbdinfo'], 'maps of nbdkit', () => {
  it('are what nbdinfo reports, of sparse exports beyond 4 GiB', async () => {
    await using server = await startNbdkit({ plugin: 'sparse-random', args: ['40G', 'runlength=33554432', 'seed=3'] });
    const theirs = await nbdinfo(server.uri(), A);
    expect(theirs.length).toBeGreaterThan(50);
    await using connection = await open(server.uri(), A);
    for (const options of [{}, { questions: 1 }, { step: 1n << 28n }]) {
      const ours = await all(extents(connection, options));
      expect(ours.map(({ offset, length, flags }) => [offset, length, flags].map(Number))).toEqual(
        theirs.map(({ offset, length, type }) => [offset, length, type]),
      );
    }
  });

  it('are complete although a plugin answers for one block at a time', async () => {
    const script = [
      'get_size=echo 16M',
      'pread=dd if=/dev/zero count=$3 iflag=count_bytes 2>/dev/null',
      'can_extents=exit 0',
      'extents=o=$(( $4 / 1048576 * 1048576 )); t=hole,zero; [ $(( o / 1048576 % 3 )) = 0 ] && t=; echo "$o 1048576 $t"',
    ];
    await using server = await startNbdkit({ plugin: 'eval', args: script });
    await using connection = await open(server.uri(), A);
    const ours = await all(extents(connection, { step: 1 << 21 }));
    expect(ours.map(({ length, flags }) => [Number(length) / 1048576, Number(flags)])).toEqual([
      [1, 0],
      [2, 3],
      [1, 0],
      [2, 3],
      [1, 0],
      [2, 3],
      [1, 0],
      [2, 3],
      [1, 0],
      [2, 3],
      [1, 0],
    ]);
  });

  it('are an error where block status fails, and are read over where they only save work', async () => {
    await using server = await startNbdkit({
      filters: ['error'],
      args: ['1M', 'error-extents=EIO', 'error-extents-rate=100%'],
    });
    await using connection = await open(server.uri(), A);
    for (const work of [
      all(extents(connection)),
      all(mergedExtents(connection, { contexts: [A] })),
      totals(connection, { contexts: [A] }),
    ]) {
      expect(await rejection(work)).toMatchObject({ name: 'NbdCommandError', code: 'EIO' });
    }
    expect(await hash(connection)).toBe(await hash(connection, { extents: false }));
  });
});
