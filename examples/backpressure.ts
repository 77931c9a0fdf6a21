// Events, tracing, and a line of bounded length: the producer waits when the connection says so.
import { subscribe } from 'node:diagnostics_channel';
import { type CommandTrace, NbdConnection, NbdQueueFullError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const BLOCK = Buffer.alloc(4096, 'x');

await using server = new NbdServer({ exports: { '': new MemoryBackend(1024 * 1024) } });
server.faults.push({ command: 'write', delay: 5 });

const traced = new Map<string, number>();
subscribe('nbd:command:end', (message) => {
  const { method } = message as CommandTrace;
  traced.set(method, (traced.get(method) ?? 0) + 1);
});

// Two commands on the wire and four that wait; the seventh is refused with EAGAIN.
const connection = new NbdConnection({ maxInFlight: 2, maxQueued: 4 });
connection.on('stateChange', (state, previous) => console.log(`${previous} -> ${state}`));
connection.on('close', (error) => console.log('closed', error ?? 'in good order'));
await connection.connectSocket(server.connectMemory());

let most = 0;
let refused = 0;
let failed = 0;
for (let i = 0; i < 40; i++) {
  while (!write(i)) {
    refused++;
    await new Promise<void>((resolve) => connection.once('drain', resolve));
  }
  most = Math.max(most, connection.aioInFlight());
}
await connection.shutdown();

console.log(
  `40 writes, ${failed} failed, at most ${most} at a time, ${refused > 0 ? 'some' : 'none'} refused at first`,
);
console.log('traced:', traced);

/** False when the line is full. The raw calls throw that at once, so no promise has to be looked at. */
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
