// How long the event loop is held while block maps of a million extents arrive.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection } from 'nbd-sdk';
import { readWork } from './work.js';

const MAPS = 7;
const work = readWork(process.argv.slice(2));
const connection = await NbdConnection.connect(work.uri, { metaContexts: ['base:allocation'] });

async function map(): Promise<void> {
  const extents = (await connection.blockStatus(work.image, 0)).get('base:allocation');
  if (extents?.length !== work.extents) throw new Error(`${extents?.length} extents, not ${work.extents}`);
}

/** The longest turn of the loop meanwhile, in milliseconds. */
async function longest(during: () => Promise<void>): Promise<number> {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await sleep(20);
  histogram.reset();
  await during();
  await sleep(5);
  histogram.disable();
  return histogram.max / 1e6;
}

// What the machine does to a program that waits for nothing, for comparison.
const idle: number[] = [];
const maps: number[] = [];
for (let i = 0; i < MAPS; i++) {
  idle.push(await longest(() => sleep(100)));
  maps.push(await longest(map));
}
await connection.shutdown();
process.stdout.write(`${JSON.stringify({ maps, idle })}\n`);
