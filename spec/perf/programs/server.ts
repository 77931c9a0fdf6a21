// The embedded server in a process of its own, for machines without nbdkit. It prints its URI and ends with its stdin.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BackendExtent, MemoryBackend, type NbdBackend, NbdServer, PatternBackend } from 'nbd-sdk/server';

interface Wanted {
  readonly server: string;
  readonly transport: string;
  readonly replies: string;
  readonly extents?: number;
}

const IMAGE = 64 * 1024 * 1024;
const EXTENT = 4096;

/** Data and holes in turn. */
class ExtentsBackend extends MemoryBackend {
  override *extents(offset: number | bigint, count: number | bigint): Generator<BackendExtent, void> {
    const end = Number(offset) + Number(count);
    for (let at = Number(offset); at < end; at += EXTENT) {
      yield { length: Math.min(EXTENT, end - at), flags: (at / EXTENT) % 2 === 0 ? 0 : 3 };
    }
  }
}

function backend({ server, extents = 0 }: Wanted): NbdBackend {
  if (server === 'pattern') return new PatternBackend(IMAGE);
  return server === 'extents' ? new ExtentsBackend(extents * EXTENT) : new MemoryBackend(IMAGE);
}

const wanted = JSON.parse(process.argv[2] ?? '{}') as Wanted;
const server = new NbdServer({
  exports: { '': backend(wanted) },
  ...(wanted.replies === 'no-sr' ? { features: { structuredReply: false, extendedHeaders: false } } : {}),
});
const folder = await mkdtemp(join(tmpdir(), 'nbd-sdk-bench-server-'));
if (wanted.transport === 'tcp') await server.listenTcp();
else await server.listenUnix(join(folder, 'socket'));
process.stdout.write(`${server.uri()}\n`);
process.stdin.resume().once('end', () => {
  void server.close().then(() => rm(folder, { recursive: true, force: true }));
});
