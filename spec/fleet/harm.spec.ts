// Harm to workers, servers and Redis: whatever happens, what is reported is true, and a copy that is done has every byte
// of its source. Each test is a line of the table in README.md. The tests run side by side: most of each is waiting.

import { expect } from '@jest/globals';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  type FleetReport,
  type FleetWorker,
  plan,
  report,
  watch,
  work,
  type WorkOptions,
} from '../../lib/fleet/index.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { rejection } from '../support/caught.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { describeWith, freePort, runTool } from '../support/real-servers.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { until } from '../support/waiting.js';
import { FAST, LEASE, MIB, Site } from './site.js';
import { WorkerProcess } from './worker-process.js';

/** Bytes per second of a range: slow enough to be harmed in the middle. */
const SLOW = { limits: { rate: MIB } };

let number = 0;
const fleetName = (): string => `harm-${++number}`;

describeWith(['redis-server', 'nbdkit', 'qemu-nbd'], withSeed('harm to a fleet'), () => {
  let redis: RedisServer;
  let url = '';
  beforeAll(async () => {
    redis = await startRedis();
    url = redis.url;
  });
  afterAll(() => redis.stop());

  const start = (fleet: string, options: WorkOptions = {}, at = url): Promise<FleetWorker> =>
    work(at, { ...FAST, fleet, ...options });

  const verified = async (site: Site, fleet: string, at = url): Promise<FleetReport> => {
    const found = await report(at, { fleet });
    expect(found).toMatchObject({ settled: true, counts: { total: 1, done: 1 }, failures: [] });
    expect(found.ranges.done).toBe(found.ranges.total);
    expect(await site.isEqual()).toBe(true);
    return found;
  };

  it.concurrent('a worker dies: another one takes its range', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job(SLOW), { fleet });
    const dead = await WorkerProcess.start(url, { ...FAST, fleet, concurrency: 2 });
    await dead.reported('begin');
    dead.kill('SIGKILL');
    await dead.ended;
    await (
      await start(fleet)
    ).done;
    await verified(site, fleet);
  });

  it.concurrent('a worker freezes, returns when its range is done, and writes nothing', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job(SLOW), { fleet });
    const frozen = await WorkerProcess.start(url, { ...FAST, fleet, concurrency: 2 });
    await frozen.reported('begin');
    await sleep(300);
    await frozen.freeze();
    await (
      await start(fleet)
    ).done;
    await verified(site, fleet);
    // A guest has booted, and writes.
    const guest = Buffer.alloc(4 * MIB, 0xaa);
    await writeFile(site.destinationFile, guest);
    frozen.kill('SIGCONT');
    await frozen.ended;
    expect(frozen.all('lost').length).toBeGreaterThan(0);
    expect((await readFile(site.destinationFile)).equals(guest)).toBe(true);
  });

  it.concurrent('a worker freezes for longer than its lease: its watchdog kills it', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job(SLOW), { fleet });
    const frozen = await WorkerProcess.start(url, { ...FAST, fleet, concurrency: 2, watchdog: true });
    await frozen.reported('begin');
    const stopped = performance.now();
    frozen.kill('SIGSTOP');
    await frozen.ended;
    expect(frozen.isAlive).toBe(false);
    // Not by a signal of ours, and not because it had ended.
    expect(performance.now() - stopped).toBeGreaterThan(LEASE / 2);
    await (
      await start(fleet)
    ).done;
    await verified(site, fleet);
  });

  it.concurrent('a worker loses its network to Redis: it stops before another one begins', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await using proxy = await FaultProxy.start({ host: '127.0.0.1', port: redis.port ?? 0 });
    await plan(url, site.job(SLOW), { fleet });
    const away = await start(
      fleet,
      { concurrency: 2 },
      `redis://127.0.0.1:${'port' in proxy.address ? proxy.address.port : 0}`,
    );
    const lost = new Map<bigint, number>();
    away.on('lost', ({ offset }) => lost.set(offset, performance.now()));
    await new Promise((resolve) => away.once('begin', resolve));
    const other = await start(fleet, { concurrency: 2 });
    const begun = new Map<bigint, number>();
    other.on('begin', ({ offset, phase }) => phase === 'work' && begun.set(offset, performance.now()));
    for (const link of proxy.links) await link.strikeNow('black-hole');
    await other.done;
    away.close();
    expect(lost.size).toBeGreaterThan(0);
    for (const [offset, time] of lost) expect(begun.get(offset)).toBeGreaterThan(time);
    await verified(site, fleet);
  });

  it.concurrent('SIGTERM: a worker hands back its range, which goes on at its checkpoint', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED, size: 4 * MIB });
    await plan(url, site.job({ rangeSize: 4 * MIB, limits: { rate: MIB } }), { fleet });
    const leaving = await WorkerProcess.start(url, { ...FAST, fleet, checkpointEvery: MIB / 2 });
    await leaving.reported('begin');
    while (!(await hasKey(redis, `*${fleet}*checkpoint*`))) await sleep(50);
    leaving.kill('SIGTERM');
    expect(await leaving.ended).toBe(0);
    expect(leaving.all('lost').map(({ detail }) => detail?.why)).toEqual(['shutdown']);
    // At once, and not when the lease is over.
    expect((await report(url, { fleet })).ranges).toMatchObject({ running: 0, done: 0 });
    const { moved } = await (await start(fleet)).done;
    // Both phases read 3 MiB of data, less what the checkpoint has.
    expect(moved).toBeLessThan(BigInt(7 * MIB));
    await verified(site, fleet);
  });

  it.concurrent.each(['nbdkit', 'qemu-nbd'] as const)('the server %s dies and comes back', async (destination) => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED, destination });
    await plan(url, site.job(SLOW), { fleet });
    const worker = await start(fleet, { concurrency: 2 });
    const retried: string[] = [];
    worker.on('retry', ({ reason }) => retried.push(reason.code));
    await new Promise((resolve) => worker.once('begin', resolve));
    await site.killDestination();
    // Longer than a pool waits.
    await until(() => retried.length > 0, 'a range is tried again');
    await site.startDestination();
    await worker.done;
    await verified(site, fleet);
    expect((await report(url, { fleet })).retries).toBeGreaterThan(0);
  });

  it.concurrent.each([
    [
      'is full',
      'ENOSPC',
      {
        filters: ['error'],
        args: ['error-pwrite=ENOSPC', 'error-pwrite-rate=100%', 'error-zero=ENOSPC', 'error-zero-rate=100%'],
      },
    ],
    ['became read-only', 'EPERM', { readOnly: true }],
  ] as const)('a server %s: its ranges fail at once, with the reason', async (_what, code, options) => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job(), { fleet });
    await site.killDestination();
    await site.startDestination(options);
    await (
      await start(fleet)
    ).done;
    const found = await report(url, { fleet });
    expect(found).toMatchObject({ settled: true, counts: { failed: 1 }, ranges: { failed: 4, done: 0 }, retries: 0 });
    expect(found.failures.map((failure) => [failure.code, failure.attempts])).toEqual(Array(4).fill([code, 1]));
  });

  it.concurrent('a server changes its size: its ranges fail, and data of two exports is not mixed', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await plan(url, site.job(), { fleet });
    await site.killDestination();
    await truncate(site.destinationFile, 8 * MIB);
    const before = await readFile(site.destinationFile);
    await site.startDestination();
    await (
      await start(fleet)
    ).done;
    expect((await report(url, { fleet })).failures.map(({ code }) => code)).toEqual(Array(4).fill('ESTALE'));
    expect((await readFile(site.destinationFile)).equals(before)).toBe(true);
  });

  it.concurrent('a server fails now and then: what may succeed is tried again', async () => {
    const fleet = fleetName();
    const args = ['error=EIO', 'error-pwrite-rate=30%', 'error-zero-rate=30%'];
    await using site = await Site.make({ seed: SEED, filters: ['error'], args });
    await plan(url, site.job({ rangeSize: MIB / 4 }), { fleet });
    await (
      await start(fleet, { attempts: 100, backoff: { delay: 20, maxDelay: 50 } })
    ).done;
    expect((await verified(site, fleet)).retries).toBeGreaterThan(0);
  });

  it.concurrent('a server fails always: its ranges are dead letters after their attempts', async () => {
    const fleet = fleetName();
    await using site = await Site.make({
      seed: SEED,
      filters: ['error'],
      args: ['error=EIO', 'error-pwrite-rate=100%'],
    });
    await plan(url, site.job({ rangeSize: 4 * MIB }), { fleet });
    await (
      await start(fleet, { attempts: 3, backoff: { delay: 20, maxDelay: 50 } })
    ).done;
    const found = await report(url, { fleet });
    expect(found.failures).toMatchObject([{ code: 'EIO', attempts: 3, phase: 'work', start: 0n }]);
    expect(found).toMatchObject({ retries: 2, counts: { failed: 1 } });
  });

  it.concurrent('Redis dies and comes back with what it had', async () => {
    const fleet = fleetName();
    const folder = await mkdtemp(join(tmpdir(), 'nbd-fleet-redis-'));
    const port = await freePort();
    await using site = await Site.make({ seed: SEED });
    let own = await startRedis({ port, folder, persistent: true });
    await plan(own.url, site.job(SLOW), { fleet });
    const worker = await start(fleet, { concurrency: 2 }, own.url);
    const heard: string[] = [];
    worker.on('away', () => heard.push('away')).on('back', () => heard.push('back'));
    await new Promise((resolve) => worker.once('begin', resolve));
    await sleep(200);
    own.kill('SIGKILL');
    await own.stop();
    await until(() => heard.includes('away'), 'the worker reports it');
    own = await startRedis({ port, folder, persistent: true });
    await worker.done;
    expect(heard).toEqual(['away', 'back']);
    await verified(site, fleet, own.url);
    await own.stop();
    await rm(folder, { recursive: true });
  });

  it.concurrent('Redis restarts empty: it is reported, and what is planned again is done', async () => {
    const fleet = fleetName();
    const port = await freePort();
    await using site = await Site.make({ seed: SEED });
    let own = await startRedis({ port });
    await plan(own.url, site.job(SLOW), { fleet });
    const worker = await start(fleet, { concurrency: 2 }, own.url);
    const watching = (async () => {
      for await (const progress of watch(own.url, { fleet, every: 100 })) if (progress.settled) break;
    })();
    const watched = rejection(watching);
    await new Promise((resolve) => worker.once('begin', resolve));
    await sleep(300);
    own.kill('SIGKILL');
    await own.stop();
    own = await startRedis({ port });
    expect(await rejection(worker.done)).toMatchObject({
      code: 'ESTALE',
      message: expect.stringContaining('plan again') as unknown,
    });
    expect(await watched).toMatchObject({ code: 'ESTALE' });
    await plan(own.url, site.job(), { fleet });
    await (
      await start(fleet, {}, own.url)
    ).done;
    await verified(site, fleet, own.url);
    await own.stop();
  });

  it.concurrent('Redis is slow: a worker that cannot renew its leases stops, and goes on later', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    await using own = await startRedis();
    await plan(own.url, site.job(SLOW), { fleet });
    const worker = await start(fleet, { concurrency: 2 }, own.url);
    const lost: string[] = [];
    worker.on('lost', ({ why }) => lost.push(why));
    await new Promise((resolve) => worker.once('begin', resolve));
    await runTool('redis-cli', ['-p', String(own.port), 'CLIENT', 'PAUSE', String(LEASE), 'ALL']);
    await worker.done;
    expect(new Set(lost)).toEqual(new Set(['expired']));
    await verified(site, fleet, own.url);
  });

  it.concurrent('planners die and meet: every range is planned once', async () => {
    const fleet = fleetName();
    await using site = await Site.make({ seed: SEED });
    const abort = new AbortController();
    const dying = rejection(plan(url, site.job(), { fleet, signal: abort.signal }));
    setTimeout(() => abort.abort(), 10);
    await Promise.all([dying, plan(url, site.job(), { fleet }), plan(url, site.job(), { fleet })]).catch(
      () => undefined,
    );
    await plan(url, site.job(), { fleet });
    expect(await (await start(fleet)).done).toMatchObject({ ranges: 8 });
    await verified(site, fleet);
  });
});

async function hasKey(redis: RedisServer, pattern: string): Promise<boolean> {
  const { stdout } = await runTool('redis-cli', ['-p', String(redis.port), '--scan', '--pattern', pattern]);
  return stdout.trim() !== '';
}
