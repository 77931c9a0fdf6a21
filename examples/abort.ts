// Aborts a command that is still queued, one that has already been sent, and one that takes too long.
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({ exports: { '': new MemoryBackend(1024 * 1024) } });
server.faults.push({ command: 'cache', delay: 200 });
await using connection = await NbdConnection.connect(server.connectMemory(), { maxInFlight: 1 });

const controller = new AbortController();
// With one command in flight at a time, the second one waits in the queue.
const sent = connection.cache(4096, 0, 0, controller.signal);
const queued = connection.cache(4096, 4096, 0, controller.signal);
await sleep(50);
controller.abort(new Error('changed my mind'));

for (const [name, promise] of Object.entries({ sent, queued })) {
  // The rejection is signal.reason itself.
  await promise.catch((error: unknown) => {
    console.log(`${name}: rejected, ${error === controller.signal.reason ? 'with the reason' : String(error)}`);
  });
}

// The queued command was never sent. NBD cannot cancel the other one: it stays in flight until the server replies.
console.log('requests received by the server:', server.statistics.requests.cache);
console.log('still in flight:', connection.aioInFlight());
await sleep(250);
console.log('after the reply:', connection.aioInFlight());

// A timeout for one call.
await connection.cache(4096, 0, 0, AbortSignal.timeout(20)).catch((error: unknown) => {
  console.log('too slow:', error instanceof Error ? error.name : error);
});
