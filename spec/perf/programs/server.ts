// The embedded server in a process of its own, for machines without nbdkit. It prints its URI and ends with its stdin.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryBackend, type NbdBackend, NbdServer, PatternBackend } from 'nbd-sdk/server';

interface Wanted {
  readonly server: string;
  readonly transport: string;
  readonly replies: string;
}

const IMAGE = 64 * 1024 * 1024;

function backend({ server }: Wanted): NbdBackend {
  return server === 'pattern' ? new PatternBackend(IMAGE) : new MemoryBackend(IMAGE);
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
