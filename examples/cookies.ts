// Uses the raw calls (aio*): each returns a cookie at once, to be polled later, or takes a completion callback.
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection, NbdError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const MIB = 1024 * 1024;

await using server = new NbdServer({ exports: { '': new MemoryBackend(16 * MIB) } });
server.faults.push({ command: 'cache', nth: 3, error: 'EIO' }, { command: 'cache', delay: 50 });
await using connection = await NbdConnection.connect(server.connectMemory());

// Fire and forget: there is no promise to await.
const pending = new Set<bigint>();
for (let i = 0; i < 4; i++) pending.add(connection.aioCache(MIB, i * MIB));
console.log('issued', pending, 'in flight:', connection.aioInFlight());

while (pending.size > 0) {
  await sleep(10);
  for (const cookie of pending) {
    try {
      // Returns false while the command is pending. Then, once, returns true or throws its error; this retires it.
      if (!connection.aioCommandCompleted(cookie)) continue;
      console.log(`cookie ${cookie}: done`);
    } catch (error) {
      if (!(error instanceof NbdError)) throw error;
      console.log(`cookie ${cookie}: ${error.code}`);
    }
    pending.delete(cookie);
  }
}

// A callback instead of polling. If it returns true, the command is retired and need not be polled.
const cookie = await new Promise<bigint>((resolve, reject) => {
  connection.aioCache(MIB, 0, (error, completed) => {
    if (error === null) resolve(completed);
    else reject(error);
    return true;
  });
});
console.log(`cookie ${cookie}: callback called`);
console.log('after it was retired:', connection.aioCommandCompleted(cookie));
