// Runs a client and a server in one process without a socket, for example in tests, and injects a fault.
import { NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer, PatternBackend } from 'nbd-sdk/server';

await using server = new NbdServer({
  exports: {
    scratch: { backend: new MemoryBackend(2n ** 40n), description: 'a sparse TiB' },
    pattern: new PatternBackend(1024 * 1024),
  },
  defaultExport: 'scratch',
});

await using scratch = await NbdConnection.connect(server.connectMemory(), { fullInfo: true });
console.log(`${scratch.getCanonicalExportName()}: ${scratch.getExportDescription()}`);
await scratch.pwrite(Buffer.from('far out'), 2n ** 39n);
console.log((await scratch.pread(7, 2n ** 39n)).toString());

await using pattern = await NbdConnection.connect(server.connectMemory(), { exportName: 'pattern' });
console.log(
  `pattern: read-only ${pattern.isReadOnly()}, 8 bytes at 512: ${(await pattern.pread(8, 512)).toString('hex')}`,
);

// Fault injection: the next read fails.
server.faults.push({ command: 'read', nth: 1, error: 'EIO', message: 'a bad sector' });
await pattern.pread(512, 0).catch((error: unknown) => {
  console.log(String(error));
});
console.log('requests:', server.statistics.requests.pread, 'errors:', server.statistics.errors);
