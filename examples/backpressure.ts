// Limits the number of queued commands: when the queue is full, the producer waits for the `drain` event.
import { NbdConnection, NbdQueueFullError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const BLOCK = Buffer.alloc(4096, 'x');

await using server = new NbdServer({ exports: { '': new MemoryBackend(1024 * 1024) } });
server.faults.push({ command: 'write', delay: 5 });

// Up to two commands are in flight and four are queued. A seventh is refused with EAGAIN.
await using connection = await NbdConnection.connect(server.connectMemory(), { maxInFlight: 2, maxQueued: 4 });

let most = 0;
let waited = 0;
let failed = 0;
for (let i = 0; i < 40; i++) {
  while (!write(i)) {
    waited++;
    await new Promise<void>((resolve) => connection.once('drain', resolve));
  }
  most = Math.max(most, connection.aioInFlight());
}
// Resolves after all commands have completed.
await connection.shutdown();
console.log(`40 writes, ${failed} failed, at most ${most} at a time, ${waited > 0 ? 'some' : 'none'} had to wait`);

/** Starts a write. Returns false if the queue is full: the raw calls report that at once, by throwing. */
function write(i: number): boolean {
  try {
    connection.aioPwrite(BLOCK, i * BLOCK.length, (error) => {
      if (error !== null) failed++;
      return true;
    });
    return true;
  } catch (error) {
    if (error instanceof NbdQueueFullError) return false;
    throw error;
  }
}
