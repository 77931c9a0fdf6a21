// Uses option mode: lists the exports of a server, requests information about each, and opens one.
import { CONTEXT_BASE_ALLOCATION, NbdConnection, NbdOptionError } from 'nbd-sdk';
import { FileBackend, MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({
  exports: {
    scratch: { backend: new MemoryBackend(1024 * 1024), description: 'scratch space' },
    source: await FileBackend.open(process.argv[1] ?? '', { readOnly: true }),
  },
});

await using connection = new NbdConnection({ optMode: true });
await connection.connectSocket(server.connectMemory());
console.log(`negotiating: ${connection.aioIsNegotiating()}`);

for (const { name, description } of await connection.optList()) {
  connection.setExportName(name);
  await connection.optInfo();
  const facts = connection.isReadOnly() ? 'read-only' : 'writable';
  const contexts = await connection.optListMetaContextQueries([]);
  console.log(`${name}: ${facts}, ${description || 'no description'}, ${contexts.join(' ')}`);
}

// After a refusal, the connection is still in option mode.
connection.setExportName('nothing');
await connection.optGo().catch((error: unknown) => {
  console.log(error instanceof NbdOptionError ? `no such export: ${error.code}` : error);
});

connection.setExportName('source');
connection.addMetaContext(CONTEXT_BASE_ALLOCATION);
await connection.optSetMetaContext();
await connection.optGo();
console.log((await connection.pread(25, 0)).toString());
