// `npm run soak`: hours of verified work on a real and on the embedded server, with memory, handles and listeners
// watched. Prints one summary in JSON; the exit code is 1 on any difference. See spec/reliability.md.

import { getEventListeners } from 'node:events';
import { parseArgs } from 'node:util';

import { NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { collectGarbage } from '../fuzz/memory.js';
import { Random, seedOf } from '../fuzz/random.js';
import { describeSystem } from '../perf/harness/system.js';
import { hasTool, startNbdkit, stopAllServers } from '../support/real-servers.js';
import { whyNoTrixie } from '../support/trixie.js';
import { cliPath } from '../cli/support.js';
import { soakChain } from './chain-soak.js';
import { soakCopy } from './copy-soak.js';
import { soakFleet } from './fleet-soak.js';
import { soakPool } from './pool-soak.js';
import { Disk, Workload } from './workload.js';

const SIZE = 16 * 2 ** 20;
const ROUND = 400;
/** A connection is ended and a new one made after this many rounds. */
const ROUNDS_OF_CONNECTION = 25;
const SAMPLES = 40;
/** Beyond the middle of the early samples. */
const MAY_GROW = 8 * 2 ** 20;

interface Sample {
  readonly second: number;
  /** Heap and buffers, after garbage was collected. */
  readonly bytes: number;
  readonly rss: number;
  /** Sockets, pipes, timers and the like. */
  readonly handles: number;
  readonly listeners: number;
}

interface Target {
  readonly name: string;
  readonly connect: (maxInFlight: number) => Promise<NbdConnection>;
  readonly stop: () => Promise<void>;
}

async function targets(): Promise<Target[]> {
  const server = new NbdServer({ exports: { '': new MemoryBackend(SIZE) } });
  await server.listenTcp();
  const uris: [string, () => string, () => Promise<void>][] = [
    ['the embedded server', () => server.uri(), () => server.close()],
  ];
  if (hasTool('nbdkit')) {
    const nbdkit = await startNbdkit({ transport: 'unix', args: [String(SIZE)] });
    uris.unshift(['nbdkit', () => nbdkit.uri(), () => nbdkit.stop()]);
  }
  return uris.map(([name, uri, stop]) => ({
    ...{ name, stop },
    connect: (maxInFlight) => NbdConnection.connect(uri(), { maxInFlight, maxInFlightBytes: 512 * 1024 }),
  }));
}

async function soak(
  target: Target,
  seed: number,
  until: number,
  signal: AbortSignal,
  rest: () => Promise<void>,
): Promise<Record<string, number>> {
  const random = new Random(seed);
  const counts: Record<string, number> = { connections: 0 };
  const disk = new Disk(SIZE);
  while (performance.now() < until) {
    const connection = await target.connect(random.between(1, 32));
    counts['connections'] = (counts['connections'] ?? 0) + 1;
    const workload = new Workload(connection, random, disk, counts, signal);
    for (let round = 0; round < ROUNDS_OF_CONNECTION && performance.now() < until; round++) {
      await workload.round(ROUND);
      await rest();
    }
    await workload.verify();
    if (connection.aioInFlight() !== 0) throw new Error('commands in flight at rest');
    await connection.shutdown();
    if (!connection.aioIsClosed()) throw new Error(`${connection.connectionState()} after shutdown()`);
  }
  return counts;
}

/** All workloads rest at the same time while a sample is taken: with commands in flight nothing can be compared. */
class Sampler {
  readonly samples: Sample[] = [];
  readonly #begun = performance.now();
  readonly #every: number;
  readonly #signal: AbortSignal;
  #parties: number;
  #waiting: (() => void)[] = [];

  constructor(seconds: number, parties: number, signal: AbortSignal) {
    this.#every = (seconds * 1000) / SAMPLES;
    this.#parties = parties;
    this.#signal = signal;
  }

  get #isDue(): boolean {
    return performance.now() - this.#begun >= this.samples.length * this.#every;
  }

  async rest(): Promise<void> {
    if (!this.#isDue) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length >= this.#parties) void this.#take();
    });
  }

  /** One workload is over. */
  async leave(): Promise<void> {
    this.#parties--;
    if (this.#parties > 0 && this.#waiting.length >= this.#parties) await this.#take();
  }

  async #take(): Promise<void> {
    const bytes = await collectGarbage();
    this.samples.push({
      second: Math.round((performance.now() - this.#begun) / 1000),
      ...{ bytes, rss: process.memoryUsage.rss() },
      handles: process.getActiveResourcesInfo().filter((name) => name !== 'Immediate').length,
      listeners: getEventListeners(this.#signal, 'abort').length,
    });
    for (const resume of this.#waiting.splice(0)) resume();
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;

/** What has grown between the second quarter of the run and its last. */
function growth(samples: readonly Sample[]): string[] {
  const quarter = samples.length >> 2;
  if (quarter === 0) return [];
  const [early, late] = [samples.slice(quarter, 2 * quarter), samples.slice(-quarter)];
  const problems: string[] = [];
  const middle = (list: readonly Sample[], key: keyof Sample): number => median(list.map((sample) => sample[key]));
  const grown = middle(late, 'bytes') - middle(early, 'bytes');
  if (grown > MAY_GROW) problems.push(`memory grew by ${(grown / 2 ** 20).toFixed(1)} MiB`);
  for (const key of ['handles', 'listeners'] as const) {
    const [before, after] = [middle(early, key), middle(late, key)];
    if (after > before) problems.push(`${after} ${key} in place of ${before}`);
  }
  if (samples.some(({ listeners }) => listeners > 0)) problems.push('listeners were left on the signal');
  return problems;
}

async function main(seconds: number, seed: number): Promise<void> {
  const { signal } = new AbortController();
  const all = await targets();
  const sampler = new Sampler(seconds, all.length, signal);
  const until = performance.now() + seconds * 1000;
  const problems: string[] = [];
  process.on('warning', (warning) => problems.push(`warning: ${warning.message}`));
  const results = await Promise.all(
    all.map(async (target, index) => {
      try {
        return [target.name, await soak(target, seedOf(seed, index), until, signal, () => sampler.rest())] as const;
      } catch (error) {
        problems.push(`${target.name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
        return [target.name, {}] as const;
      } finally {
        await sampler.leave();
      }
    }),
  );
  for (const { stop } of all) await stop();
  await stopAllServers();
  problems.push(...growth(sampler.samples));
  const samples = sampler.samples;
  const mib = (bytes: number | undefined): number => Math.round(((bytes ?? 0) / 2 ** 20) * 10) / 10;
  const summary = {
    ...{ seconds, seed, system: await describeSystem(), done: Object.fromEntries(results) },
    ...{ missing: hasTool('nbdkit') ? [] : ['nbdkit'] },
    memoryMib: samples.map(({ bytes }) => mib(bytes)),
    rssMib: {
      first: mib(samples[0]?.rss),
      last: mib(samples.at(-1)?.rss),
      most: mib(Math.max(...samples.map(({ rss }) => rss))),
    },
    handles: [...new Set(samples.map(({ handles }) => handles))],
    problems,
  };
  process.stdout.write(`${JSON.stringify(summary, null, 2)}\n`);
  if (problems.length > 0) process.exitCode = 1;
}

/** `--pool`: the same number of deaths for each kind of server and of pool. */
async function poolMain(kills: number, seconds: number, seed: number): Promise<void> {
  const done: Record<string, unknown> = {};
  const problems: string[] = [];
  const kinds = [true, false].flatMap((isMultiConn) =>
    [true, false].map((isRewriting) => ({ isMultiConn, isRewriting })),
  );
  for (const [index, kind] of kinds.entries()) {
    const name = `multi-conn ${kind.isMultiConn ? 'on' : 'off'}, ${kind.isRewriting ? 'with' : 'without'} rewrite`;
    const until = performance.now() + (seconds * 1000) / kinds.length;
    const random = new Random(seedOf(seed, index));
    try {
      done[name] = await soakPool({ random, kills: Math.ceil(kills / kinds.length), until, ...kind });
    } catch (error) {
      problems.push(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
  }
  await stopAllServers();
  process.stdout.write(`${JSON.stringify({ kills, seed, system: await describeSystem(), done, problems }, null, 2)}\n`);
  if (problems.length > 0) process.exitCode = 1;
}

/** `--copy`: checkpointed copies that are killed and run again. */
async function copyMain(kills: number, seconds: number, seed: number): Promise<void> {
  const problems: string[] = [];
  const done = await soakCopy({
    ...{ random: new Random(seed), cli: await cliPath(), kills },
    until: performance.now() + seconds * 1000,
    onCopy: (line) => process.stderr.write(`${line}\n`),
  }).catch((error: unknown) => {
    problems.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
    return null;
  });
  await stopAllServers();
  process.stdout.write(`${JSON.stringify({ kills, seed, system: await describeSystem(), done, problems }, null, 2)}\n`);
  if (problems.length > 0) process.exitCode = 1;
}

/** `--chains`: chains of increments, each with qemu-nbd of this system and of the trixie root. */
async function chainMain(chains: number, seconds: number, seed: number): Promise<void> {
  const problems: string[] = [];
  const done: Record<string, unknown>[] = [];
  const until = performance.now() + seconds * 1000;
  const missing = whyNoTrixie();
  const cli = await cliPath();
  for (let number = 0; number < chains && performance.now() < until && problems.length === 0; number++) {
    for (const isTrixie of missing === null ? [false, true] : [false]) {
      try {
        const random = new Random(seedOf(seed, number));
        done.push({ number, isTrixie, ...(await soakChain({ random, isTrixie, cli })) });
      } catch (error) {
        problems.push(`chain ${number}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      }
    }
  }
  await stopAllServers();
  const system = await describeSystem();
  process.stdout.write(`${JSON.stringify({ chains, seed, system, missing, done, problems }, null, 2)}\n`);
  if (problems.length > 0) process.exitCode = 1;
}

/** `--fleet`: fleets, with harm at random. */
async function fleetMain(seconds: number, seed: number): Promise<void> {
  const problems: string[] = [];
  let done: unknown = {};
  try {
    done = await soakFleet({ random: new Random(seed), until: performance.now() + seconds * 1000 });
  } catch (error) {
    problems.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  await stopAllServers();
  process.stdout.write(
    `${JSON.stringify({ seconds, seed, system: await describeSystem(), done, problems }, null, 2)}\n`,
  );
  if (problems.length > 0) process.exitCode = 1;
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string' },
    seed: { type: 'string' },
    pool: { type: 'boolean' },
    copy: { type: 'boolean' },
    chains: { type: 'string' },
    fleet: { type: 'boolean' },
    kills: { type: 'string' },
  },
});
const seconds = Number(values.seconds ?? 3600);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
const kills = Number(values.kills ?? (values.copy === true ? 200 : 1000));
if (!(seconds > 0 && kills > 0 && Number.isSafeInteger(seed))) {
  process.stderr.write(
    'npm run soak -- [--seconds S] [--seed N] [--pool | --copy] [--kills N] [--chains N] [--fleet]\n',
  );
  process.exitCode = 2;
} else if (values.chains !== undefined) await chainMain(Number(values.chains), seconds, seed);
else if (values.copy === true) await copyMain(kills, seconds, seed);
else if (values.fleet === true) await fleetMain(seconds, seed);
else if (values.pool === true) await poolMain(kills, seconds, seed);
else await main(seconds, seed);
