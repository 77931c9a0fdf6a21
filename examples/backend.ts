// Serves a custom backend, a slow store, and shows how the cache command hides its latency.
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection } from 'nbd-sdk';
import { type NbdBackend, NbdServer } from 'nbd-sdk/server';

const BLOCK = 64 * 1024;

/** A store with slow access. A backend needs only `size` and `read`; commands that it lacks are not advertised. */
class SlowBackend implements NbdBackend {
  readonly size = 64 * BLOCK;
  readonly blockSize = { minimum: BLOCK, preferred: BLOCK, maximum: 16 * BLOCK };
  readonly #cached = new Map<number, Buffer>();
  fetched = 0;

  async read(buffer: Buffer, offset: number): Promise<void> {
    await this.cache(offset, buffer.length);
    for (let at = 0; at < buffer.length; at += BLOCK) this.#cached.get(offset + at)?.copy(buffer, at);
  }

  async cache(offset: number, count: number): Promise<void> {
    const fetches = [];
    for (let at = offset; at < offset + count; at += BLOCK) fetches.push(this.#fetch(at));
    await Promise.all(fetches);
  }

  async #fetch(offset: number): Promise<void> {
    if (this.#cached.has(offset)) return;
    this.fetched++;
    await sleep(50);
    // An error thrown here with a `code` such as 'EIO' would be sent to the client with that code.
    this.#cached.set(offset, Buffer.alloc(BLOCK, offset / BLOCK));
  }
}

const backend = new SlowBackend();
await using server = new NbdServer({ exports: { '': backend } });
await using connection = await NbdConnection.connect(server.connectMemory());
console.log(`can cache: ${connection.canCache()}, can flush: ${connection.canFlush()}`);
console.log(`read-only: ${connection.isReadOnly()}`);

async function count(what: string, work: Promise<unknown>): Promise<void> {
  const before = backend.fetched;
  await work;
  console.log(`${what}: fetched ${backend.fetched - before} blocks`);
}

await count('first read', connection.pread(BLOCK, 0));
await count('second read', connection.pread(BLOCK, 0));
await count('prefetch', connection.cache(16 * BLOCK, BLOCK));
await count('read of prefetched blocks', connection.pread(16 * BLOCK, BLOCK));
