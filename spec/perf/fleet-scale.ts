// How a fleet scales, by simulation: many small sparse exports of embedded servers, workers in processes of their own, one
// Redis. Prints JSON: exports and ranges planned per second, ranges done per second, what Redis needs for a range, and
// how long it takes until a worker that was killed is noticed. The figures are in lib/fleet/README.md.
//   npx tsx spec/perf/fleet-scale.ts [--exports 1000] [--workers 8] [--lease 5000]

import { parseArgs } from 'node:util';
import { plan, report, watch } from '../../lib/fleet/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { stopAllWorkers, WorkerProcess } from '../fleet/worker-process.js';
import { startRedis } from '../support/redis-server.js';
import { describeSystem } from './harness/system.js';

const MIB = 2 ** 20;
/** Each export has data in the first, the middle and the last MiB, and so three ranges. */
const SIZE = 64 * MIB;
const RANGE = 16 * MIB;
const PLACES = [0, 32 * MIB, SIZE - MIB];

const { values } = parseArgs({
  options: {
    exports: { type: 'string', default: '1000' },
    workers: { type: 'string', default: '8' },
    lease: { type: 'string', default: '5000' },
  },
});
const count = Number(values.exports);
const workers = Number(values.workers);
const lease = Number(values.lease);

/** The used memory of Redis, in bytes. */
async function redisMemory(port: number): Promise<number> {
  const { createConnection } = await import('node:net');
  const socket = createConnection(port, '127.0.0.1');
  socket.write('INFO memory\r\nQUIT\r\n');
  let text = '';
  for await (const chunk of socket.setEncoding('utf8')) text += String(chunk);
  return Number(/used_memory:(\d+)/.exec(text)?.[1] ?? NaN);
}

const seconds = (from: number): number => (performance.now() - from) / 1000;

await using redis = await startRedis();
const port = Number(new URL(redis.url).port);
const servers: NbdServer[] = [];
const jobs: { kind: 'copy'; source: string; destination: string; rangeSize: number }[] = [];
for (let at = 0; at < 2; at++) servers.push(await new NbdServer({ maxConnections: 10_000 }).listenTcp());
const [from, to] = servers as [NbdServer, NbdServer];
for (let at = 0; at < count; at++) {
  const source = new MemoryBackend(SIZE);
  for (const place of PLACES) source.write(Buffer.alloc(64 * 1024, `export ${at}`), place);
  from.addExport(`e${at}`, source);
  to.addExport(`e${at}`, new MemoryBackend(SIZE));
  jobs.push({ kind: 'copy', source: from.uri(`e${at}`), destination: to.uri(`e${at}`), rangeSize: RANGE });
}

try {
  const empty = await redisMemory(port);
  const begun = performance.now();
  const planned = await plan(redis.url, jobs, { concurrency: 32 });
  const planning = seconds(begun);
  const memory = (await redisMemory(port)) - empty;
  const again = performance.now();
  await plan(redis.url, jobs, { concurrency: 32 });
  const replanning = seconds(again);

  const all = await Promise.all(
    Array.from({ length: workers }, () =>
      WorkerProcess.start(redis.url, { lease, concurrency: 8, untilSettled: true, backoff: { delay: 200 } }),
    ),
  );
  await Promise.all(all.map((worker) => worker.reported('ready')));
  const working = performance.now();
  const [victim] = all as [WorkerProcess];
  await victim.reported('begin', 20);
  victim.kill('SIGKILL');
  const killed = performance.now();
  const done = new Set(victim.all('done').map(({ detail }) => `${detail?.id} ${detail?.offset} ${detail?.phase}`));
  const orphans = new Set(
    victim
      .all('begin')
      .map(({ detail }) => `${detail?.id} ${detail?.offset} ${detail?.phase}`)
      .filter((range) => !done.has(range)),
  );
  let noticed: number | null = null;
  for await (const progress of watch(redis.url, { every: 50 })) {
    const taken = all
      .slice(1)
      .some((worker) =>
        worker.all('begin').some(({ detail }) => orphans.has(`${detail?.id} ${detail?.offset} ${detail?.phase}`)),
      );
    if (taken) noticed ??= seconds(killed);
    if (progress.settled) break;
  }
  const time = seconds(working);
  const found = await report(redis.url);
  const ends = await Promise.all(all.slice(1).map(({ ended }) => ended));
  process.stdout.write(
    `${JSON.stringify(
      {
        system: await describeSystem(),
        ...{ exports: count, workers, lease, ranges: planned.ranges },
        done: found.counts.done,
        failures: found.failures.length,
        planning: { seconds: planning, exportsPerSecond: count / planning, rangesPerSecond: planned.ranges / planning },
        planningAgain: { seconds: replanning, exportsPerSecond: count / replanning },
        // Each range is copied and verified.
        working: { seconds: time, rangesPerSecond: found.ranges.done / time },
        redisBytesPerRange: memory / planned.ranges,
        redisBytesPerExport: memory / count,
        orphans: orphans.size,
        secondsUntilDeadWorkerIsNoticed: noticed,
      },
      null,
      2,
    )}\n`,
  );
  if (found.counts.done !== count || ends.some((code) => code !== 0)) process.exitCode = 1;
} finally {
  await stopAllWorkers();
  await Promise.all(servers.map((server) => server.close()));
}
