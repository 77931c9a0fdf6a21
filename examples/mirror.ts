// Mirrors an export to a file: a pool tries again what fails, and a checkpoint lets an interrupted copy go on.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  compare,
  CONTEXT_BASE_ALLOCATION,
  copy,
  type CopyResult,
  fileCheckpoint,
  fileDestination,
  fileSource,
  NbdPool,
} from 'nbd-sdk';
import { NbdServer, RandomBackend } from 'nbd-sdk/server';

const MIB = 1024 * 1024;
const folder = await mkdtemp(join(tmpdir(), 'nbd-mirror-'));
const path = join(folder, 'mirror.img');

/** Goes on where an earlier run has stopped; run it again until it succeeds. */
async function mirror(uri: string, stopAt: number): Promise<CopyResult> {
  await using pool = await NbdPool.connect(uri, {
    metaContexts: [CONTEXT_BASE_ALLOCATION],
    waitFor: 10_000,
    retry: { attempts: 10, codes: ['EIO'], delay: 10 },
  });
  await using file = await fileDestination(path, { size: pool.getSize() });
  const controller = new AbortController();
  return await copy(pool, file, {
    checkpoint: fileCheckpoint(join(folder, 'checkpoint'), { every: MIB }),
    requestSize: MIB / 4,
    requests: 4,
    signal: controller.signal,
    onProgress: ({ done }) => {
      if (done >= stopAt) controller.abort(new Error(`interrupted after ${stopAt / MIB} MiB`));
    },
  });
}

try {
  // One request in ten fails, and the server cuts its connections while it works.
  await using server = new NbdServer({ exports: { '': new RandomBackend(16 * MIB, { percent: 50 }) } });
  server.faults.push({ command: 'pread', nth: 20, cut: 'reset' }, { command: 'pread', probability: 0.1, error: 'EIO' });
  await server.listenUnix(join(folder, 'socket'));

  await mirror(server.uri(), 8 * MIB).catch((error: unknown) => console.log(String(error)));
  const { total, resumed } = await mirror(server.uri(), Infinity);
  console.log(`resumed: ${resumed > 0n && resumed < total}, of ${total} bytes`);
  console.log(`requests that failed: ${server.statistics.errors > 0}`);

  await using pool = await NbdPool.connect(server.uri(), { retry: { codes: ['EIO'] } });
  await using file = await fileSource(path);
  console.log(`the mirror is equal: ${(await compare(pool, file)).equal}`);
} finally {
  await rm(folder, { recursive: true });
}
