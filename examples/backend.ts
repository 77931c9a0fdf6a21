// An export of one's own: a slow store, and what the cache command is for.
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdConnection } from 'nbd-sdk';
import { type NbdBackend, NbdServer } from 'nbd-sdk/server';

const BLOCK = 64 * 1024;

/** Blocks that are far away. `size` and `read` are all that a backend needs; what it lacks is not advertised. */
class FarAway implements NbdBackend {
  readonly size = 64 * BLOCK;
  readonly blockSize = { minimum: BLOCK, preferred: BLOCK, maximum: 16 * BLOCK };
  readonly #near = new Map<number, Buffer>();
  fetched = 0;

  async read(buffer: Buffer, offset: number): Promise<void> {
    await this.cache(offset, buffer.length);
    for (let at = 0; at < buffer.length; at += BLOCK) this.#near.get(offset + at)?.copy(buffer, at);
  }

  async cache(offset: number, count: number): Promise<void> {
    const fetches = [];
    for (let at = offset; at < offset + count; at += BLOCK) fetches.push(this.#fetch(at));
    await Promise.all(fetches);
  }

  async #fetch(offset: number): Promise<void> {
    if (this.#near.has(offset)) return;
    this.fetched++;
    await sleep(50);
    // An error with a `code` such as 'EIO' would reach the client as that.
    this.#near.set(offset, Buffer.alloc(BLOCK, offset / BLOCK));
  }
}

const backend = new FarAway();
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
await count('same again', connection.pread(BLOCK, 0));
await count('prefetch', connection.cache(16 * BLOCK, BLOCK));
await count('read what was prefetched', connection.pread(16 * BLOCK, BLOCK));
