// Prefetches an export: of an embedded server (`npm start`), or of your server (`npm start -- URI`).
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection, NbdError, prefetch } from 'nbd-sdk';
import { fillPattern, NbdServer, PatternBackend } from 'nbd-sdk/server';
import { formatBytes, showProgress } from './support/progress.js';

const MIB = 1024 * 1024;
const uri = process.argv[2];

try {
  await (uri === undefined ? demonstrate() : prefetchExport(uri));
} catch (error) {
  if (!(error instanceof NbdError)) throw error;
  console.error(`${error.name} ${error.code}: ${error.message}`);
  process.exitCode = 1;
}

async function prefetchExport(uri: string): Promise<void> {
  await using connection = await NbdConnection.connect(uri);
  console.log(`Connected to an export of ${formatBytes(connection.getSize())}.`);
  if (!connection.canCache()) {
    console.error('This server does not support the cache command, which prefetching needs. (nbdkit: --filter=cache)');
    process.exitCode = 1;
    return;
  }
  const show = showProgress('Prefetched', connection.getSize());
  // Sends a few commands at a time, so that an export of a TiB does not become a million promises.
  const { commands } = await prefetch(connection, { requestSize: MIB, onProgress: ({ cached }) => show(cached) });
  console.log(`The server accepted ${commands} cache commands.`);
}

async function demonstrate(): Promise<void> {
  await using server = new NbdServer({ exports: { '': new PatternBackend(64 * MIB) } });
  server.faults.push({ command: 'cache', delay: 100 });
  await server.listenTcp();
  console.log('Started a server in this process with an export of 64 MiB. Each cache command takes 0.1 s.');
  await prefetchExport(server.uri());

  await using connection = await NbdConnection.connect(server.uri());
  const cookies = new Set([0, 1, 2].map((i) => connection.aioCache(MIB, i * MIB)));
  console.log(`Fire and forget: cookies ${[...cookies].join(', ')} are in flight, without a promise.`);
  while (cookies.size > 0) {
    for (const cookie of cookies) if (connection.aioCommandCompleted(cookie)) cookies.delete(cookie);
    await sleep(10);
  }
  console.log('Polled every 10 ms until all three had completed.');

  const controller = new AbortController();
  const cancelled = connection.cache(MIB, 0, 0, controller.signal);
  setTimeout(() => controller.abort(new Error('no longer wanted')), 20);
  const outcome = await cancelled.then(String, (reason: unknown) => String(reason));
  console.log(`Aborted a command: it rejected with "${outcome}". The server still completes it.`);

  const expected = Buffer.alloc(MIB);
  for (let offset = 0; offset < 64 * MIB; offset += MIB) {
    fillPattern(expected, offset);
    if (!expected.equals(await connection.pread(MIB, offset))) throw new Error(`wrong bytes at ${offset}`);
  }
  console.log('Read all 64 MiB back: every byte is correct. Done.');
}
