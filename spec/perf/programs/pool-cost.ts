// What a pool of one connection adds to a command: the processor time of the same commands on a connection and through a
// pool, in short slices in turn within one process, so that both meet the same machine.

import { NbdConnection, type NbdExport, NbdPool } from 'nbd-sdk';
import { readWork } from './work.js';

const SLICES = 60;
const WARM_UP = 6;

const work = readWork(process.argv.slice(2));
const { uri, op, size, depth, image } = work;
const connection = await NbdConnection.connect(uri);
const pool = await NbdPool.connect(uri, { connections: 1 });

const buffer = Buffer.alloc(size, 7);
const blocks = Math.floor(image / size);
let place = 1;
const next = (): number => {
  place = (place * 48271) % 0x7fff_ffff;
  return (place % blocks) * size;
};
const calls: Record<string, (to: NbdExport) => Promise<unknown>> = {
  cache: (to) => to.cache(size, next()),
  pread: (to) => to.pread(size, next()),
  pwrite: (to) => to.pwrite(buffer, next()),
};
const call = calls[op];
if (call === undefined) throw new Error(`op: ${op}`);

/** Microseconds of processor time per command. */
async function slice(to: NbdExport): Promise<number> {
  let ops = 0;
  const end = performance.now() + work.seconds * 150;
  const before = process.cpuUsage();
  await Promise.all(
    Array.from({ length: depth }, async () => {
      for (; performance.now() < end; ops++) await call?.(to);
    }),
  );
  const { user, system } = process.cpuUsage(before);
  return (user + system) / ops;
}

for (let i = 0; i < WARM_UP; i++) for (const to of [connection, pool]) await slice(to);
const ratios: number[] = [];
for (let i = 0; i < SLICES; i++) {
  const first = i % 2 === 0 ? connection : pool;
  const a = await slice(first);
  const b = await slice(first === connection ? pool : connection);
  ratios.push(first === connection ? b / a : a / b);
}
connection.close();
pool.close();
process.stdout.write(`${JSON.stringify({ ratios })}\n`);
