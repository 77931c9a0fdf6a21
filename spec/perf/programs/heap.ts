// What a waiting command costs: 100,000 preads behind a window of 64, the heap before and after. Run with --expose-gc.
// Nothing is answered meanwhile: it all happens before the event loop turns.

import { NbdConnection } from 'nbd-sdk';
import { readWork } from './work.js';

const COUNT = 100_000;
const work = readWork(process.argv.slice(2));
const collect = (globalThis as { gc?: () => void }).gc ?? (() => undefined);

interface Memory {
  readonly heap: number;
  readonly external: number;
}
function look(): Memory {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return { heap: heapUsed, external };
}

const connection = await NbdConnection.connect(work.uri, { maxInFlight: work.window });
// Everything has been compiled and allocated once.
await Promise.all(Array.from({ length: 2000 }, (_, i) => connection.pread(4096, i * 4096)));

const nothing = Promise.resolve();
const promises = new Array<Promise<unknown>>(COUNT).fill(nothing);
const before = look();
for (let i = 0; i < COUNT; i++) promises[i] = connection.pread(4096, (i % 16384) * 4096);
const after = look();
// Waiting, when the turn in which they were issued is over.
await Promise.resolve();
await Promise.resolve();
const later = look();

const settled = Promise.allSettled(promises);
connection.close();
await settled;
const waiting = COUNT - work.window;
process.stdout.write(
  `${JSON.stringify({
    heapPerCommand: (later.heap - before.heap) / waiting,
    heapPerCommandAtOnce: (after.heap - before.heap) / waiting,
    externalPerCommand: (later.external - before.external) / waiting,
  })}\n`,
);
