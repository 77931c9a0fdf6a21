// Runs a connection in a worker thread, so that its work never delays the main thread, and transfers what it reads.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { NbdConnection, NbdError } from 'nbd-sdk';
import { NbdServer, PatternBackend } from 'nbd-sdk/server';

interface Request {
  readonly id: number;
  readonly offset: number;
  readonly count: number;
}
type Reply = { readonly id: number } & ({ readonly buffer: ArrayBuffer } | { readonly code: string });

/** In the worker: answers each message, in the order in which the reads complete. */
async function serveReads(uri: string): Promise<void> {
  const connection = await NbdConnection.connect(uri);
  parentPort?.on('message', (message: Request | 'close') => {
    if (message === 'close') {
      parentPort?.close();
      void connection.shutdown();
      return;
    }
    const { id, offset, count } = message;
    // A buffer of its own: small results of pread() share memory, which cannot be transferred.
    const buffer = new ArrayBuffer(count);
    connection.preadInto(new Uint8Array(buffer), offset).then(
      () => parentPort?.postMessage({ id, buffer } satisfies Reply, [buffer]),
      (error: unknown) =>
        parentPort?.postMessage({ id, code: error instanceof NbdError ? error.code : 'EIO' } satisfies Reply),
    );
  });
}

async function main(): Promise<void> {
  await using server = new NbdServer({ exports: { '': new PatternBackend(1024 * 1024) } });
  await server.listenTcp();
  // With compiled JavaScript: new Worker(new URL(import.meta.url), …). Node.js 20 starts workers without tsx.
  const start = `import('tsx/esm/api').then(({ register }) => { register(); import('${import.meta.url}'); })`;
  const worker = new Worker(start, { eval: true, workerData: server.uri() });
  const pending = new Map<number, (reply: Reply) => void>();
  worker.on('message', (reply: Reply) => {
    pending.get(reply.id)?.(reply);
    pending.delete(reply.id);
  });
  const read = (offset: number, count: number): Promise<Reply> =>
    new Promise((resolve) => {
      const id = offset;
      pending.set(id, resolve);
      worker.postMessage({ id, offset, count } satisfies Request);
    });

  for (const reply of await Promise.all([read(0, 16), read(4096, 65_536), read(1024 * 1024, 1)])) {
    const what = 'code' in reply ? reply.code : `${reply.buffer.byteLength} bytes`;
    console.log(`read at ${reply.id}: ${what}`);
  }
  worker.postMessage('close');
  await new Promise((resolve) => worker.once('exit', resolve));
}

await (isMainThread ? main() : serveReads(workerData as string));
