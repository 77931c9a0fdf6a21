// Uses a pool: a server dies and comes back, and the writes that were not flushed are written again.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdPool, NbdUnflushedError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const folder = await mkdtemp(join(tmpdir(), 'nbd-pool-'));
const path = join(folder, 'socket');
const disk = new MemoryBackend(2 ** 20);

async function startServer(): Promise<NbdServer> {
  const server = new NbdServer({ exports: { '': disk }, closeTimeout: 1 });
  return server.listenUnix(path);
}

let server = await startServer();
{
  await using pool = await NbdPool.connect({ path }, { reconnect: { within: 30_000 } });
  pool.on('away', () => console.log('the server is away'));
  pool.on('back', () => console.log('it is back'));

  const text = Buffer.from('Written once, wanted for ever.\n'.padEnd(512));
  await pool.pwrite(text, 0);

  await server.close();
  const reading = pool.pread(512, 0); // waits for the server
  setTimeout(() => void startServer().then((started) => (server = started)), 200);
  console.log((await reading).toString().trim());

  // Nobody knows whether the write was on permanent storage when the server died.
  try {
    await pool.flush();
  } catch (error) {
    if (!(error instanceof NbdUnflushedError)) throw error;
    for (const { offset, length } of error.ranges) {
      console.log(`to be written again: ${length} bytes at ${offset}`);
      await pool.pwrite(text.subarray(Number(offset), Number(offset + length)), offset);
    }
    await pool.flush();
  }
  console.log(`reconnects: ${pool.statistics.reconnects}`);
}
await server.close();
await rm(folder, { recursive: true });
