// Observes a connection: its state, its end, and every command by node:diagnostics_channel.
import { subscribe } from 'node:diagnostics_channel';
import { type CommandTrace, NbdConnection, NbdError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({ exports: { '': new MemoryBackend(1024 * 1024) } });
server.faults.push({ command: 'read', error: 'EIO' });

// All messages about one command are the same object, so it can be the key of your own data.
const startTimes = new WeakMap<object, number>();
subscribe('nbd:command:start', (message) => startTimes.set(message as CommandTrace, performance.now()));
subscribe('nbd:command:end', (message) => {
  const trace = message as CommandTrace;
  const duration = performance.now() - (startTimes.get(trace) ?? NaN);
  const outcome = `${trace.error === undefined ? 'succeeded' : 'failed'} after ${duration.toFixed(1)} ms`;
  const code = trace.error instanceof NbdError ? `: ${trace.error.code}` : '';
  console.log(`trace: ${trace.method} of ${trace.count} bytes at ${trace.offset} ${outcome}${code}`);
});

const connection = new NbdConnection();
connection.on('stateChange', (state, previous) => console.log(`state: ${previous} -> ${state}`));
connection.on('close', (error) => console.log('close:', error ?? 'without an error'));
await connection.connectSocket(server.connectMemory());

await connection.pwrite(Buffer.alloc(512, 'x'), 0);
await connection.pread(512, 512).catch(() => undefined);
await connection.shutdown();
