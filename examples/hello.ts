// Connects, writes, flushes, reads, trims and zeroes: a first program.
import { CMD_FLAG_FUA, NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({ exports: { hello: new MemoryBackend(1024 * 1024) } });
await server.listenTcp();

await using connection = await NbdConnection.connect(server.uri('hello'));
console.log(`the export has ${connection.getSize()} bytes`);

await connection.pwrite(Buffer.from('Hello, block device!'), 4096);
// With FUA, this write is on permanent storage when the promise resolves; flush() ensures this for all earlier writes.
await connection.pwrite(Buffer.from('Bye.'), 8192, connection.canFua() ? CMD_FLAG_FUA : 0);
await connection.flush();

console.log((await connection.pread(20, 4096)).toString());
console.log((await connection.pread(4, 8192)).toString());

// The contents of trimmed bytes are undefined; zeroed bytes read as zero.
await connection.trim(512, 4096);
await connection.zero(4, 8192);
console.log(await connection.pread(4, 8192));
