// What works on every runtime, in steps. Arguments: a JSON object with the addresses of servers that another runtime
// runs. Prints the name of each step that passed, then `steps: N`; a step that fails ends it with status 1. It does not
// call exit(): that it ends by itself is the last step.

/* global AbortController, AbortSignal, clearTimeout, setImmediate, setTimeout, TransformStream, WebSocket */

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as sdk from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';
import { ScriptedPeer, stall } from 'nbd-sdk/testing';
import * as web from 'nbd-sdk/web';
import { copy as copyOnWeb } from 'nbd-sdk/web/bulk';

const { tcp, unix, tls, psk, webSocket, media, ca, wrongCa, cert, key, refusing, hasPsk } = JSON.parse(process.argv[2]);
const MIB = 1024 * 1024;
const SIZE = 16 * MIB;
const contexts = { metaContexts: [sdk.CONTEXT_BASE_ALLOCATION] };
const folder = await mkdtemp(join(tmpdir(), 'nbd-smoke-'));
let passed = 0;

async function step(name, act) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: no end within 30 s`)), 30_000);
  });
  try {
    await Promise.race([act(), late]);
  } catch (error) {
    console.log(`FAILED: ${name}: ${error?.stack ?? error}`);
    process.exit(1);
  } finally {
    clearTimeout(timer);
  }
  passed++;
  console.log(name);
}

const bytes = (length, seed) => Buffer.from({ length }, () => 0).map((_, index) => (index * 31 + seed) & 0xff);
const fails = (code) => (error) => {
  assert.equal(error?.code, code, `${error?.name}: ${error?.message}`);
  return true;
};

let connection;
await step('connects over TCP', async () => {
  connection = await sdk.NbdConnection.connect(tcp, contexts);
  assert.equal(connection.getSize(), BigInt(SIZE));
});
const block = bytes(64 * 1024, 1);
await step('writes', () => connection.pwrite(block, 4096));
await step('reads', async () => assert.deepEqual(await connection.pread(block.length, 4096), block));
await step('reads into a buffer', async () => {
  const buffer = new Uint8Array(block.length);
  await connection.preadInto(buffer, 4096);
  assert.deepEqual(Buffer.from(buffer), block);
});
await step('reads in chunks', async () => {
  const seen = [];
  await connection.preadStructured(8192, 0, (chunk, offset, status) => void seen.push([chunk.length, offset, status]));
  assert.equal(
    seen.reduce((sum, [length]) => sum + length, 0),
    8192,
  );
});
await step('writes with FUA in options', () => connection.pwrite(block, 1 << 20, { flags: sdk.CMD_FLAG_FUA }));
await step('zeroes', async () => {
  await connection.zero(4096, 4096);
  assert.deepEqual(await connection.pread(4096, 4096), Buffer.alloc(4096));
});
await step('trims', () => connection.trim(4096, 8192));
await step('caches', () => connection.cache(4096, 8192));
await step('flushes', () => connection.flush());
await step('asks for block status', async () => {
  assert.ok((await connection.blockStatus(65_536, 0)).get(sdk.CONTEXT_BASE_ALLOCATION).length > 0);
  assert.ok((await connection.blockStatus64(65_536, 0)).get(sdk.CONTEXT_BASE_ALLOCATION).length > 0);
});
await step('filters block status', async () => {
  const found = await connection.blockStatusFilter(65_536, 0, [sdk.CONTEXT_BASE_ALLOCATION]);
  assert.deepEqual([...found.keys()], [sdk.CONTEXT_BASE_ALLOCATION]);
});
await step('issues raw commands and polls their cookies', async () => {
  const cookie = connection.aioCache(4096, 0);
  assert.equal(typeof cookie, 'bigint');
  while (!connection.aioCommandCompleted(cookie)) await new Promise((resolve) => setImmediate(resolve));
});
await step('calls completion callbacks', async () => {
  const buffer = Buffer.alloc(4096);
  const error = await new Promise((resolve) =>
    connection.aioPread(buffer, 1 << 20, (failure) => (resolve(failure), true)),
  );
  assert.equal(error, null);
  assert.deepEqual(buffer, block.subarray(0, 4096));
});
await step('has 1,000 reads in flight', async () => {
  const found = await Promise.all(Array.from({ length: 1000 }, (_, index) => connection.pread(16, (1 << 20) + index)));
  found.forEach((each, index) => assert.deepEqual(each, block.subarray(index, index + 16)));
});
await step('moves 8 MiB in one command', async () => {
  const large = bytes(8 * MIB, 5);
  await connection.pwrite(large, 4 * MIB);
  assert.ok((await connection.pread(8 * MIB, 4 * MIB)).equals(large));
});
await step('refuses what cannot succeed', () => assert.rejects(connection.pread(1, SIZE), fails('EINVAL')));
await step('rejects an aborted command, and goes on', async () => {
  const abort = new AbortController();
  const pending = connection.pread(1 << 20, 0, { signal: abort.signal });
  abort.abort(new Error('enough'));
  await assert.rejects(pending, /enough/);
  await connection.pread(512, 0);
});
await step('ends a command in time where the server does not reply', async () => {
  const peer = await ScriptedPeer.listen(() => ({ reply: { steps: stall() } }));
  const stalled = await sdk.NbdConnection.connect(peer.uri());
  await assert.rejects(stalled.pread(512, 0, { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
  stalled.close();
  await peer.stop();
});
await step('reports a refused connection', () =>
  assert.rejects(sdk.NbdConnection.connect(refusing), fails('ECONNREFUSED')),
);
await step('prefetches', async () => assert.ok((await sdk.prefetch(connection, { length: MIB })).cached > 0n));
await step('streams out and in', async () => {
  await pipeline(Readable.from([block, block]), sdk.createWriteStream(connection, { offset: 1 << 20 }));
  const read = [];
  for await (const chunk of sdk.createReadStream(connection, { offset: 1 << 20, length: 2 * block.length }))
    read.push(chunk);
  assert.deepEqual(Buffer.concat(read), Buffer.concat([block, block]));
});
await step('copies to a file, and compares', async () => {
  const path = join(folder, 'copy');
  {
    await using file = await sdk.fileDestination(path, { size: SIZE });
    await sdk.copy(connection, file);
  }
  assert.ok((await readFile(path)).subarray(1 << 20, (1 << 20) + block.length).equals(block));
  await using source = await sdk.fileSource(path);
  assert.equal((await sdk.compare(connection, source)).equal, true);
});
await step('shuts down', async () => {
  await connection.shutdown();
  assert.equal(connection.connectionState(), 'closed');
});
await step('connects over a Unix socket', async () => {
  await using own = await sdk.NbdConnection.connect(unix);
  assert.equal((await own.pread(512, 0)).length, 512);
});
await step('connects with TLS, verified', async () => {
  await using own = await sdk.NbdConnection.connect(tls, { ca, tlsHostname: 'localhost' });
  const large = bytes(MIB, 9);
  await own.pwrite(large, 0);
  assert.ok((await own.pread(MIB, 0)).equals(large));
});
await step('refuses a certificate of another authority', () =>
  assert.rejects(sdk.NbdConnection.connect(tls, { ca: wrongCa, tlsHostname: 'localhost' }), (error) => {
    assert.ok(error instanceof sdk.NbdConnectionError, `${error?.name}: ${error?.message}`);
    return true;
  }),
);
await step('uses pre-shared keys, or says that the runtime has none', async () => {
  const connect = () => sdk.NbdConnection.connect(psk, { tlsPsk: { identity: 'alice', key: 'ab'.repeat(16) } });
  if (hasPsk) {
    await using own = await connect();
    assert.equal((await own.pread(512, 0)).length, 512);
    return;
  }
  const serve = () => new NbdServer({ tls: 'require', tlsOptions: { psk: { alice: Buffer.alloc(16) } } });
  for (const refusal of [connect(), (async () => serve())()]) {
    await assert.rejects(refusal, (error) => {
      assert.match(error.message, /Bun|Deno/);
      return fails('ENOTSUP')(error);
    });
  }
});
await step('has a pool', async () => {
  await using pool = await sdk.NbdPool.connect(tcp, { connections: 3 });
  const found = await Promise.all(Array.from({ length: 100 }, (_, index) => pool.pread(4096, index * 4096)));
  assert.equal(found.length, 100);
});
await step('serves over TCP and Unix sockets', async () => {
  await using server = new NbdServer({ exports: { '': MemoryBackend.from(block) } });
  await server.listenTcp();
  await using own = await sdk.NbdConnection.connect(server.uri());
  assert.deepEqual(await own.pread(block.length, 0), block);
  await using other = new NbdServer({ exports: { '': MemoryBackend.from(block) } });
  await other.listenUnix(join(folder, 'socket'));
  await using second = await sdk.NbdConnection.connect(other.uri());
  assert.deepEqual(await second.pread(block.length, 0), block);
});
await step('serves with TLS', async () => {
  await using server = new NbdServer({
    exports: { '': MemoryBackend.from(block) },
    tls: 'require',
    tlsOptions: { cert, key },
  });
  await server.listenTcp();
  await using own = await sdk.NbdConnection.connect(server.uri(), { ca, tlsHostname: 'localhost' });
  assert.deepEqual(await own.pread(block.length, 0), block);
});
await step('lists exports in option mode', async () => {
  const own = new sdk.NbdConnection({ optMode: true });
  await own.connectUri(tcp);
  assert.deepEqual(
    (await own.optList()).map(({ name }) => name),
    [''],
  );
  await own.optAbort();
  own.close();
});
await step('nbd-sdk/web: reads and writes over a WebSocket', async () => {
  if (typeof WebSocket === 'undefined') return assert.rejects(web.NbdConnection.connect(webSocket), fails('ENOTSUP'));
  await using own = await web.NbdConnection.connect(webSocket);
  const large = new Uint8Array(bytes(4 * MIB, 3));
  await own.pwrite(large, 4096);
  const read = await own.pread(large.length, 4096);
  assert.equal(read.constructor, Uint8Array);
  assert.deepEqual(read, large);
  await assert.rejects(own.pread(512, 0, { signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  const target = { size: Infinity, write: async () => undefined };
  assert.equal((await copyOnWeb(own, target)).total, BigInt(SIZE));
});
await step('nbd-sdk/web: serves over a WebSocket', async () => {
  if (typeof WebSocket === 'undefined') return;
  // The other side copies the first 64 KiB behind themselves.
  const backend = web.MemoryBackend.from(bytes(128 * 1024, 8));
  await using server = new web.NbdServer({ exports: { '': backend } });
  server.serve(new WebSocket(media, ['binary']));
  while (server.statistics.requests.disconnect !== 1) await new Promise((resolve) => setTimeout(resolve, 5));
  const found = new Uint8Array(128 * 1024);
  backend.read(found, 0n);
  assert.deepEqual(found.subarray(64 * 1024), found.subarray(0, 64 * 1024));
});
await step('nbd-sdk/web: both ends over web streams', async () => {
  const [there, back] = [new TransformStream(), new TransformStream()];
  await using server = new web.NbdServer({ exports: { '': new web.MemoryBackend(MIB) } });
  server.serve({ readable: there.readable, writable: back.writable });
  await using own = await web.NbdConnection.connect({ readable: back.readable, writable: there.writable });
  await own.pwrite(new Uint8Array(block), 4096);
  assert.deepEqual(Buffer.from(await own.pread(block.length, 4096)), block);
});
await rm(folder, { recursive: true, force: true });
console.log(`steps: ${passed}`);
