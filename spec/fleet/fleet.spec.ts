// What a fleet does where nothing goes wrong, and what it refuses: with a real Redis and real servers.

import { describe, expect, it } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  cancel,
  type FleetJob,
  type FleetProgress,
  pause,
  plan,
  remove,
  report,
  resume,
  retry,
  watch,
  work,
  type WorkOptions,
  type WorkResult,
} from '../../lib/fleet/index.js';
import { blockHash, NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { rejection } from '../support/caught.js';
import { leftovers, resources } from '../support/leftovers.js';
import { describeWith, runTool, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { until } from '../support/waiting.js';
import { FAST, MIB, Site } from './site.js';

let number = 0;
/** A fleet for each test. */
const fleetName = (): string => `spec-${++number}`;

describeWith(['redis-server', 'nbdkit', 'qemu-nbd'], withSeed('a fleet'), () => {
  let redis: RedisServer;
  let url = '';
  beforeAll(async () => {
    redis = await startRedis();
    url = redis.url;
  });
  afterAll(() => redis.stop());

  /** A worker until all is settled. */
  const run = async (fleet: string, options: WorkOptions = {}): Promise<WorkResult> =>
    (await work(url, { ...FAST, fleet, concurrency: 8, ...options })).done;

  it('copies, verifies, and does nothing twice', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    // A planner that comes second, one that comes at the same time, and one that comes when all is done.
    const [one, other] = await Promise.all([plan(url, site.job(), { fleet }), plan(url, site.job(), { fleet })]);
    expect([one.planned + other.planned, one.already + other.already]).toEqual([1, 1]);
    expect(one.id).toBe(other.id);
    expect(await plan(url, [site.job()], { fleet })).toMatchObject({ planned: 0, already: 1, failed: 0 });
    // Three cells with data, one without: four ranges, and as many to verify.
    expect((await report(url, { fleet })).ranges).toEqual({ total: 8, done: 0, failed: 0, running: 0 });
    expect(await run(fleet)).toMatchObject({ ranges: 8, failures: 0 });
    expect(await site.isEqual()).toBe(true);
    await plan(url, site.job(), { fleet });
    expect(await run(fleet)).toMatchObject({ ranges: 0 });
    const found = await report(url, { fleet });
    expect(found).toMatchObject({
      settled: true,
      counts: { total: 1, done: 1, failed: 0 },
      ranges: { total: 8, done: 8, failed: 0, running: 0 },
      failures: [],
    });
    expect(found.exports[0]).toMatchObject({
      state: 'done',
      size: BigInt(4 * MIB),
      ranges: { total: 4, done: 4 },
      verified: { total: 4, done: 4 },
    });
    expect(JSON.parse(JSON.stringify(found))).toMatchObject({ bytes: { total: 6 * MIB, done: 6 * MIB } });
  });

  it('prefetches, hashes as blockHash does, and compares', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    const { source, destination = '' } = site.job();
    const jobs: FleetJob[] = [
      { kind: 'prefetch', source, rangeSize: MIB },
      { kind: 'hash', source, rangeSize: MIB },
      { kind: 'compare', source, destination, rangeSize: MIB, readHoles: true },
    ];
    await plan(url, jobs, { fleet });
    await run(fleet);
    const found = await report(url, { fleet });
    await using connection = await NbdConnection.connect(source);
    const expected = await blockHash(connection, { blockSize: MIB });
    expect(found.exports.map(({ state, hash }) => [state, hash])).toEqual([
      ['done', null],
      ['done', expected],
      ['failed', null],
    ]);
    // All ranges differ, the one that is a hole in the source too.
    expect(found.failures.map(({ code, kind }) => [code, kind])).toEqual(Array(4).fill(['EBADMSG', 'compare']));
    // What differs is no longer there, and what failed is tried again.
    await writeFile(site.destinationFile, site.data);
    expect(await retry(url, { fleet })).toMatchObject({ exports: 1, failed: 4, ranges: 4 });
    await run(fleet);
    expect(await report(url, { fleet })).toMatchObject({ counts: { done: 3, failed: 0 }, failures: [] });
  });

  it('copies a range again whose verification found a difference', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job({ limits: { source: 1 } }), { fleet });
    const worker = await work(url, { ...FAST, fleet, concurrency: 1 });
    // Between copying and verifying, something else writes to the destination.
    worker.on('done', ({ phase }) => {
      if (phase === 'work') writeFileSync(site.destinationFile, Buffer.alloc(4 * MIB, 1));
    });
    expect(await worker.done).toMatchObject({ failures: 4 });
    expect(await retry(url, { fleet })).toMatchObject({ exports: 1, failed: 4, ranges: 4 });
    await run(fleet);
    expect(await report(url, { fleet })).toMatchObject({
      counts: { done: 1 },
      failures: [],
      ranges: { total: 8, done: 8 },
    });
    expect(await site.isEqual()).toBe(true);
  });

  it('backs up what a bitmap of QEMU marks', async () => {
    const fleet = fleetName();
    const size = 4 * MIB;
    await using source = await startQemuNbd({ size, bitmap: 'b0' });
    await using target = await startNbdkit({ args: [String(size)] });
    {
      await using writer = await NbdConnection.connect(source.uri());
      await writer.pwrite(Buffer.alloc(65_536, 1), MIB);
      await writer.pwrite(Buffer.alloc(65_536, 2), 3 * MIB);
      await using other = await NbdConnection.connect(target.uri());
      await other.pwrite(Buffer.alloc(65_536, 9), 0);
    }
    const job: FleetJob = {
      kind: 'backup',
      source: source.uri(),
      destination: target.uri(),
      bitmap: 'b0',
      rangeSize: MIB,
    };
    expect(await plan(url, job, { fleet })).toMatchObject({ planned: 1, ranges: 2, bytes: 131_072n });
    await run(fleet);
    expect(await report(url, { fleet })).toMatchObject({ counts: { done: 1 }, ranges: { done: 4 } });
    await using reader = await NbdConnection.connect(target.uri());
    const bytes = await reader.pread(size, 0);
    expect([bytes[0], bytes[MIB], bytes[3 * MIB], bytes[2 * MIB]]).toEqual([9, 1, 2, 0]);
  });

  it('does not take a bitmap that was cleared for a backup that is done', async () => {
    const fleet = fleetName();
    let isDirty = true;
    const extents = (offset: number | bigint, count: number | bigint): { length: number; flags: number }[] => [
      { length: Number(count), flags: isDirty && Number(offset) < MIB ? 1 : 0 },
    ];
    await using server = new NbdServer({
      exports: {
        from: { backend: new MemoryBackend(MIB), metaContexts: { 'qemu:dirty-bitmap:b0': { extents } } },
        to: new MemoryBackend(MIB),
      },
    });
    await server.listenTcp();
    const job: FleetJob = {
      ...{ kind: 'backup', source: server.uri('from'), destination: server.uri('to') },
      ...{ bitmap: 'b0', rangeSize: MIB },
    };
    await plan(url, job, { fleet });
    isDirty = false;
    await run(fleet);
    expect((await report(url, { fleet })).failures).toMatchObject([{ code: 'ESTALE', attempts: 1 }]);
  });

  it('pauses, resumes, cancels and continues', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job({ limits: { rate: 2 * MIB } }), { fleet });
    await pause(url, { fleet });
    const worker = await work(url, { ...FAST, fleet, concurrency: 2 });
    const begun: unknown[] = [];
    worker.on('begin', (range) => begun.push(range));
    await sleep(300);
    expect([begun, (await report(url, { fleet })).paused]).toEqual([[], true]);
    await resume(url, { fleet });
    await until(() => begun.length > 0);
    expect(await cancel(url, { fleet })).toMatchObject({ exports: 1 });
    await worker.done;
    const found = await report(url, { fleet });
    expect(found).toMatchObject({ settled: true, counts: { cancelled: 1, done: 0 } });
    expect(found.ranges.done).toBeLessThan(8);
    expect(await retry(url, { fleet, ids: [found.exports[0]?.id ?? ''] })).toMatchObject({ exports: 1 });
    await run(fleet);
    expect(await report(url, { fleet })).toMatchObject({ counts: { cancelled: 0, done: 1 }, ranges: { done: 8 } });
    expect(await site.isEqual()).toBe(true);
  });

  it('holds the limit of a server in all workers together', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job({ limits: { destination: 2, rate: 8 * MIB } }), { fleet });
    let most = 0;
    let now = 0;
    const workers = await Promise.all([1, 2, 3].map(() => work(url, { ...FAST, fleet, concurrency: 4 })));
    for (const worker of workers) {
      worker.on('begin', () => (most = Math.max(most, ++now)));
      for (const event of ['done', 'retry', 'failed', 'lost'] as const) worker.on(event, () => now--);
    }
    await Promise.all(workers.map(({ done }) => done));
    expect(most).toBe(2);
    expect(await report(url, { fleet })).toMatchObject({ counts: { done: 1 } });
  });

  it('is watched until it is settled', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job({ limits: { rate: 2 * MIB } }), { fleet });
    const seen: FleetProgress[] = [];
    const watching = (async () => {
      for await (const progress of watch(url, { fleet, every: 50 })) seen.push(progress);
    })();
    await run(fleet, { name: 'worker' });
    await watching;
    expect(seen[0]).toMatchObject({ settled: false, bytes: { total: BigInt(6 * MIB), done: 0n } });
    expect(seen.at(-1)).toMatchObject({ settled: true, eta: 0, bytes: { done: BigInt(6 * MIB) } });
    expect(seen.some(({ workers }) => workers[0]?.name === 'worker')).toBe(true);
    expect(seen.some(({ rate }) => rate > 0)).toBe(true);
    const done = seen.map(({ bytes }) => bytes.done);
    expect(done.filter((bytes, index) => bytes > 0n && bytes < BigInt(6 * MIB) && index > 0).length).toBeGreaterThan(0);
  });

  it('masks what may be secret, the same everywhere', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    const secret = 'token-4711';
    const jobs: FleetJob[] = [site.job(), { kind: 'hash', source: `nbd://127.0.0.1:1/${secret}` }];
    await plan(url, jobs, { fleet });
    await run(fleet);
    const found = await report(url, { fleet, mask: true });
    const text = JSON.stringify(found);
    for (const name of [secret, '127.0.0.1', site.folder, 'nbd+unix', 'nbd:']) expect(text).not.toContain(name);
    expect(found.failures).toMatchObject([{ code: 'ECONNREFUSED', message: 'connect: ECONNREFUSED' }]);
    const again = await report(url, { fleet, mask: true });
    expect(again.exports.map(({ source }) => source)).toEqual(found.exports.map(({ source }) => source));
    expect(new Set(found.exports.map(({ source }) => source)).size).toBe(2);
  });

  it('keeps URIs out of Redis where names are resolved', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    const { source, destination = '' } = site.job();
    const resolve = (name: string): string => (name === 'golden' ? source : destination);
    await plan(url, { kind: 'copy', source: 'golden', destination: 'vm-17', rangeSize: MIB }, { fleet, resolve });
    await run(fleet, { resolve });
    expect(await site.isEqual()).toBe(true);
    const { stdout } = await runTool('redis-cli', ['-p', String(redis.port), '--scan']);
    const keys = stdout.split('\n').filter((key) => key.startsWith(`{nbd:${fleet}}`));
    const strings = await Promise.all(
      keys.map((key) => runTool('redis-cli', ['-p', String(redis.port), 'DUMP', key]).then((dump) => dump.stdout)),
    );
    expect(strings.join().includes('golden')).toBe(true);
    expect(strings.filter((dump) => dump.includes(source) || dump.includes(destination))).toEqual([]);
  });

  it('leaves nothing in Redis when it is removed, and no timers and sockets here', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    const before = resources();
    await plan(url, site.job({ limits: { rate: MIB } }), { fleet });
    {
      await using worker = await work(url, { ...FAST, fleet, untilSettled: false });
      await new Promise((resolve) => worker.once('begin', resolve));
    }
    const abort = new AbortController();
    const aborted = await work(url, { fleet, signal: abort.signal });
    abort.abort();
    await aborted.done;
    for await (const progress of watch(url, { fleet })) if (!progress.away) break;
    await remove(url, { fleet });
    const { stdout } = await runTool('redis-cli', ['-p', String(redis.port), '--scan', '--pattern', `*${fleet}*`]);
    expect(stdout.trim()).toBe('');
    expect(await leftovers(before)).toEqual([]);
  });

  it('plans what comes from an iterable a few at a time', async () => {
    const fleet = fleetName();
    await using server = new NbdServer({ exports: { '': new MemoryBackend(MIB) } });
    await server.listenTcp();
    let asked = 0;
    let most = 0;
    const jobs = async function* (): AsyncGenerator<FleetJob> {
      for (let index = 0; index < 30; index++) {
        await sleep(1);
        most = Math.max(most, ++asked);
        yield { kind: 'compare', source: server.uri(), destination: `${server.uri()}?n=${index}` };
      }
    };
    const planned: number[] = [];
    const onProgress = ({ jobs: done }: { readonly jobs: number }): void => {
      planned.push(done);
      asked--;
    };
    const result = await plan(url, jobs(), { fleet, concurrency: 3, onProgress });
    expect(result.jobs).toBe(30);
    expect(planned.at(-1)).toBe(30);
    expect(most).toBeLessThanOrEqual(4);
  });

  it('can be aborted at any moment of connecting to Redis, and nothing else fails', async () => {
    const job = { kind: 'hash', source: 'nbd://127.0.0.1:1' } as const;
    let given = 0;
    for (let moment = 0; moment < 60; moment++) {
      const abort = new AbortController();
      const planned = Promise.allSettled([plan(redis.url, [job], { fleet: `abort-${moment}`, signal: abort.signal })]);
      // Turns of the event loop, then microtasks.
      await sleep(moment % 2 === 1 ? moment / 8 : 0);
      for (let at = 0; at < moment; at++) await Promise.resolve();
      abort.abort();
      const [outcome] = await planned;
      // A plan may be ready before.
      if (outcome.status !== 'rejected') continue;
      expect(outcome.reason).toBe(abort.signal.reason);
      given++;
    }
    expect(given).toBeGreaterThan(0);
  });

  it('refuses a Redis that does not answer', async () => {
    expect(await rejection(report('redis://127.0.0.1:1', { connectTimeout: 200 }))).toMatchObject({
      code: 'ETIMEDOUT',
      message: expect.stringContaining('ECONNREFUSED') as unknown,
    });
  });
});

describe('the options of a fleet', () => {
  const job: FleetJob = { kind: 'hash', source: 'nbd://localhost' };
  it.each<[string, () => Promise<unknown>, string]>([
    ['an unknown kind', () => plan('redis://x', { ...job, kind: 'move' as 'copy' }), 'kind'],
    ['an unknown key of a job', () => plan('redis://x', { ...job, chunk: 1 } as FleetJob), 'chunk'],
    ['a copy without a destination', () => plan('redis://x', { ...job, kind: 'copy' }), 'destination'],
    ['a copy to itself', () => plan('redis://x', { ...job, kind: 'copy', destination: job.source }), 'same'],
    ['a hash with a destination', () => plan('redis://x', { ...job, destination: 'nbd://b' }), 'destination'],
    [
      'a backup without a bitmap',
      () => plan('redis://x', { ...job, kind: 'backup', destination: 'nbd://b' }),
      'bitmap',
    ],
    ['a range of 3 MiB', () => plan('redis://x', { ...job, rangeSize: 3 * MIB }), 'rangeSize'],
    ['a hash in ranges of 2 GiB', () => plan('redis://x', { ...job, rangeSize: 2 ** 31 }), 'rangeSize'],
    ['a limit of 0', () => plan('redis://x', { ...job, limits: { source: 0 } }), 'limits: source'],
    ['a rate for a hash', () => plan('redis://x', { ...job, limits: { rate: 1 } }), 'limits.rate'],
    ['no job', () => plan('redis://x', null as unknown as FleetJob), 'jobs'],
    ['no Redis', () => report(undefined as unknown as string), 'redis'],
    ['a URL that is not of Redis', () => report('http://x'), 'redis'],
    ['a wrong port', () => report({ port: 0 }), 'port'],
    ['a name with a colon', () => report('redis://x', { fleet: 'a:b' }), 'fleet'],
    ['a lease of 1 ms', () => work('redis://x', { lease: 1 }), 'lease'],
    ['a lease without an end', () => work('redis://x', { lease: Infinity }), 'lease'],
    ['half a worker', () => work('redis://x', { concurrency: 0.5 }), 'concurrency'],
    ['an unknown option', () => work('redis://x', { color: 1 } as WorkOptions), 'color'],
    ['a wrong backoff', () => work('redis://x', { backoff: { delay: NaN } }), 'backoff: delay'],
    ['a pause of 0', () => watch('redis://x', { every: 0 }).next(), 'every'],
    ['ids that are none', () => retry('redis://x', { ids: [1 as unknown as string] }), 'ids'],
  ])('refuse %s', async (_name, call, key) => {
    expect(await rejection(call())).toMatchObject({
      name: 'NbdStrictError',
      code: 'EINVAL',
      message: expect.stringContaining(key) as unknown,
    });
  });
});
