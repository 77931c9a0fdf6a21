// `npm run soak -- --fleet`: copies of many sizes with workers in processes of their own, while workers, servers and Redis
// are killed, stopped, slowed down and emptied at random. After every round each copy is compared byte by byte.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { type FleetJob, plan, report, type WorkOptions } from '../../lib/fleet/index.js';
import { FAST, LEASE, MIB, Site } from '../fleet/site.js';
import { WorkerProcess } from '../fleet/worker-process.js';
import type { Random } from '../fuzz/random.js';
import { freePort, runTool } from '../support/real-servers.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';

const WORKERS = 3;
const HARMS = [
  'worker killed',
  'worker frozen',
  'worker terminated',
  'server killed',
  'Redis killed',
  'Redis emptied',
  'Redis slow',
] as const;
type Harm = (typeof HARMS)[number];

/** A round that is not done after this many milliseconds has stopped. */
const ROUND_LIMIT = 600_000;

/** One fleet and what it works with. */
class Round implements AsyncDisposable {
  readonly #random: Random;
  readonly #fleet: string;
  readonly #folder: string;
  readonly #port: number;
  readonly #sites: readonly Site[];
  readonly #workers: WorkerProcess[] = [];
  #redis: RedisServer;

  private constructor(random: Random, fleet: string, folder: string, port: number, sites: Site[], redis: RedisServer) {
    this.#random = random;
    this.#fleet = fleet;
    this.#folder = folder;
    this.#port = port;
    this.#sites = sites;
    this.#redis = redis;
  }

  static async start(random: Random, fleet: string): Promise<Round> {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-fleet-soak-'));
    const port = await freePort();
    const redis = await startRedis({ port, folder, persistent: true });
    const sites: Site[] = [];
    for (let index = random.between(1, 4); index > 0; index--) {
      const destination = random.pick(['nbdkit', 'qemu-nbd'] as const);
      sites.push(await Site.make({ seed: random.below(2 ** 30), size: random.between(1, 8) * MIB, destination }));
    }
    return new Round(random, fleet, folder, port, sites, redis);
  }

  get url(): string {
    return this.#redis.url;
  }

  get jobs(): FleetJob[] {
    return this.#sites.map((site) => site.job({ rangeSize: MIB / 2, limits: { rate: MIB, destination: 4 } }));
  }

  async plan(): Promise<void> {
    await plan(this.url, this.jobs, { fleet: this.#fleet });
  }

  /** There are as many workers as there should be. */
  async staff(): Promise<void> {
    const alive = this.#workers.filter((worker) => worker.isAlive);
    this.#workers.splice(0, this.#workers.length, ...alive);
    const options: WorkOptions = { ...FAST, fleet: this.#fleet, attempts: 1000, untilSettled: false };
    while (this.#workers.length < WORKERS) this.#workers.push(await WorkerProcess.start(this.url, options));
  }

  async harm(harm: Harm): Promise<void> {
    const random = this.#random;
    const worker = random.pick(this.#workers);
    switch (harm) {
      case 'worker killed':
        return worker.kill('SIGKILL');
      case 'worker terminated':
        return worker.kill('SIGTERM');
      case 'worker frozen':
        worker.kill('SIGSTOP');
        await sleep(random.between(0, 2 * LEASE));
        return worker.kill('SIGCONT');
      case 'server killed': {
        const site = random.pick(this.#sites);
        await site.killDestination();
        await sleep(random.between(0, 3000));
        return site.startDestination();
      }
      case 'Redis slow':
        await runTool('redis-cli', [
          '-p',
          String(this.#port),
          'CLIENT',
          'PAUSE',
          String(random.between(1, LEASE)),
          'ALL',
        ]);
        return;
      case 'Redis killed':
        return this.#restart();
      case 'Redis emptied':
        await runTool('redis-cli', ['-p', String(this.#port), 'FLUSHALL']);
        // Workers that had ranges have noticed by then.
        await sleep(LEASE);
        await this.plan();
    }
  }

  async #restart(): Promise<void> {
    this.#redis.kill('SIGKILL');
    await this.#redis.stop();
    await sleep(this.#random.between(0, 2000));
    this.#redis = await startRedis({ port: this.#port, folder: this.#folder, persistent: true });
  }

  /** Whether all is settled. */
  async isDone(): Promise<boolean> {
    const { settled, failures } = await report(this.url, { fleet: this.#fleet });
    // A range that differs was harmed by a server that has lost what it had acknowledged, which no server here does.
    if (failures.length > 0)
      throw new Error(
        `failed: ${JSON.stringify(failures, (_key, value: unknown) => (typeof value === 'bigint' ? Number(value) : value))}`,
      );
    return settled;
  }

  async verify(): Promise<number> {
    for (const site of this.#sites) if (!(await site.isEqual())) throw new Error(`${site.destinationFile} differs`);
    const { counts, ranges } = await report(this.url, { fleet: this.#fleet });
    if (counts.done !== this.#sites.length) throw new Error(`${counts.done} of ${this.#sites.length} are done`);
    return ranges.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.stop()));
    await this.#redis.stop();
    for (const site of this.#sites) await site[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export interface FleetSoakOptions {
  readonly random: Random;
  /** On the clock of performance.now(). */
  readonly until: number;
}

/** How often what was done; throws at the first difference. */
export async function soakFleet({ random, until }: FleetSoakOptions): Promise<Record<string, number>> {
  const counts: Record<string, number> = { rounds: 0, ranges: 0 };
  while (performance.now() < until) {
    await using round = await Round.start(random, `soak-${counts['rounds'] ?? 0}`);
    await round.plan();
    await round.staff();
    const begun = performance.now();
    while (!(await round.isDone())) {
      if (performance.now() - begun > ROUND_LIMIT) throw new Error('a round does not end');
      await sleep(random.between(200, 2000));
      const harm = random.pick(HARMS);
      counts[harm] = (counts[harm] ?? 0) + 1;
      await round.harm(harm);
      await round.staff();
      // Every other harm is left alone, so that the work can go on.
      if (random.oneIn(2)) await sleep(2 * LEASE);
    }
    counts['ranges'] = (counts['ranges'] ?? 0) + (await round.verify());
    counts['rounds'] = (counts['rounds'] ?? 0) + 1;
  }
  return counts;
}
