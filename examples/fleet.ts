// Copies and verifies eight exports with two workers that share the work through Redis (npm install bullmq).
import { type FleetJob, plan, remove, report, watch, work } from 'nbd-sdk/fleet';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const redis = process.argv[2] ?? 'redis://localhost';
const fleet = `example-${process.pid}`;

// In earnest, servers and workers are on many machines.
const NAMES = Array.from({ length: 8 }, (_, index) => `vm-${index}`);
const golden = new MemoryBackend(8 * 2 ** 20);
golden.write(Buffer.alloc(2 ** 20, 'golden image '), 0);
golden.write(Buffer.alloc(2 ** 20, 'and its end '), 7 * 2 ** 20);
const copies = new Map(NAMES.map((name) => [name, new MemoryBackend(8 * 2 ** 20)]));
await using server = new NbdServer({ exports: { golden, ...Object.fromEntries(copies) } });
await server.listenTcp();

const jobs = NAMES.map((name): FleetJob => ({
  kind: 'copy',
  source: server.uri('golden'),
  destination: server.uri(name),
  rangeSize: 2 ** 20,
  limits: { destination: 4 }, // ranges at a time on that server, of all workers together
}));
const planned = await plan(redis, jobs, { fleet });
console.log(`${planned.planned} exports, ${planned.ranges} ranges, ${planned.bytes} bytes of data`);

// Planning again plans nothing twice, and is how one goes on after an interruption.
console.log(`${(await plan(redis, jobs, { fleet })).already} were planned already`);

const workers = await Promise.all([
  work(redis, { fleet, concurrency: 2, lease: 2000, untilSettled: true }),
  work(redis, { fleet, concurrency: 2, lease: 2000, untilSettled: true }),
]);
process.once('SIGTERM', () => workers.forEach((worker) => void worker.shutdown({ within: 10_000 })));

for await (const { exports, ranges } of watch(redis, { fleet, every: 100 })) {
  if (exports.done === exports.total) console.log(`${ranges.done} of ${ranges.total} ranges are done`);
}
const results = await Promise.all(workers.map(({ done }) => done));
console.log(`ranges of the two workers: ${results.reduce((sum, { ranges }) => sum + ranges, 0)}`);

const { counts, failures } = await report(redis, { fleet });
console.log(`copied and verified: ${counts.done}, failed: ${failures.length}`);
await remove(redis, { fleet });
