// AbortSignal: what it does to a command that waits, and to one that is on the wire.
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({ exports: { '': new MemoryBackend(1024 * 1024) } });
server.faults.push({ command: 'cache', delay: 200 });
await using connection = await NbdConnection.connect(server.connectMemory(), { maxInFlight: 1 });

const controller = new AbortController();
const onTheWire = connection.cache(4096, 0, 0, controller.signal);
const waiting = connection.cache(4096, 4096, 0, controller.signal);
await sleep(50);
controller.abort(new Error('changed my mind'));

for (const [name, promise] of Object.entries({ onTheWire, waiting })) {
  // The rejection is signal.reason itself.
  await promise.catch((error: unknown) => {
    console.log(`${name}: rejected, ${error === controller.signal.reason ? 'with the reason' : String(error)}`);
  });
}

// The one that waited was never sent. NBD cannot take back the other: it holds its place until the server answers.
console.log('the server got', server.statistics.requests.cache);
console.log('still in flight:', connection.aioInFlight());
await sleep(250);
console.log('after the reply:', connection.aioInFlight());

// A time limit for one call.
await connection.cache(4096, 0, 0, AbortSignal.timeout(20)).catch((error: unknown) => {
  console.log('too slow:', error instanceof Error ? error.name : error);
});
