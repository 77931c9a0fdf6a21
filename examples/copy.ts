// Copies an export to another one, and uses streams to hash an export and to write a file to it.
import { createHash } from 'node:crypto';
import { createReadStream as readFile } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { CONTEXT_BASE_ALLOCATION, copy, createReadStream, createWriteStream, NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const MIB = 1024 * 1024;
const from = new MemoryBackend(1024 * MIB);
from.write(Buffer.alloc(3 * MIB, 'data'), 512 * MIB);
const to = new MemoryBackend(1024 * MIB);

await using server = new NbdServer({ exports: { from, to } });
const open = (exportName: string): Promise<NbdConnection> =>
  NbdConnection.connect(server.connectMemory(), { exportName, metaContexts: [CONTEXT_BASE_ALLOCATION] });
await using source = await open('from');
await using destination = await open('to');

// Holes are neither read nor sent: only 3 MiB of this GiB are.
const { read, written } = await copy(source, destination, { flush: true });
console.log(`copied: read ${read} bytes, wrote ${written}`);
console.log(`allocated at the destination: ${to.allocated / MIB} MiB`);

async function hash(connection: NbdConnection): Promise<string> {
  const digest = createHash('sha256');
  await pipeline(createReadStream(connection, { offset: 512 * MIB, length: 4 * MIB }), digest);
  return digest.digest('hex');
}
console.log(`same hash: ${(await hash(source)) === (await hash(destination))}`);

// Writes a file to the export, starting at an offset.
await pipeline(readFile(process.argv[1] ?? ''), createWriteStream(destination, { offset: 100 * MIB }));
console.log((await destination.pread(27, 100 * MIB)).toString());
