// The raw calls: each returns a cookie at once, and is asked about later.
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection, NbdError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const MIB = 1024 * 1024;

await using server = new NbdServer({ exports: { '': new MemoryBackend(16 * MIB) } });
server.faults.push({ command: 'cache', nth: 3, error: 'EIO' }, { command: 'cache', delay: 50 });
await using connection = await NbdConnection.connect(server.connectMemory());

// Fire and forget: nothing to await.
const pending = new Set<bigint>();
for (let i = 0; i < 4; i++) pending.add(connection.aioCache(MIB, i * MIB));
console.log('issued', pending, 'in flight:', connection.aioInFlight());

while (pending.size > 0) {
  await sleep(10);
  for (const cookie of pending) {
    try {
      // False while it is pending. True, or a throw, tells once: the command is retired then.
      if (!connection.aioCommandCompleted(cookie)) continue;
      console.log(`cookie ${cookie}: done`);
    } catch (error) {
      if (!(error instanceof NbdError)) throw error;
      console.log(`cookie ${cookie}: ${error.code}`);
    }
    pending.delete(cookie);
  }
}

// A callback instead of polling. Returning true retires the command, so that nobody has to ask.
const cookie = await new Promise<bigint>((resolve, reject) => {
  connection.aioCache(MIB, 0, (error, completed) => {
    if (error === null) resolve(completed);
    else reject(error);
    return true;
  });
});
console.log(`cookie ${cookie}: called back`);
console.log('unknown by now:', connection.aioCommandCompleted(cookie));
