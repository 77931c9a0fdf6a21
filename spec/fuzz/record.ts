// `npm run fuzz -- --record`: writes transcripts/ anew, from the servers that this machine has.

import { writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';

import { NbdConnection, type NbdConnectionOptions } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { lifecycleOf } from '../../lib/client/api/settings.js';
import { duplexPair } from '../../lib/transport/memory.js';
import { startNbdkit, startNbdServer, startQemuNbd, stopAllServers } from '../support/real-servers.js';
import { startTrixieQemuNbd, whyNoTrixie } from '../support/trixie.js';
import { type Asked, type ReplyMode } from './reply-reference.js';
import { type StoredTranscript, TRANSCRIPTS } from './transcripts.js';

const SIZE = 65536;
const NO_STRICT_CHECKS = 0x40;
const ALLOCATION = 'base:allocation';

/** Good ones and bad ones; all are sent at once. */
const ASKED: readonly (readonly [Asked['method'], count: number, offset: number, flags?: number])[] = [
  ['pwrite', 512, 8192, 1],
  ['pread', 256, 0],
  ['flush', 0, 0],
  ['preadStructured', 300, 4000],
  ['zero', 4096, 16384, 2],
  ['trim', 4096, 32768],
  ['cache', 4096, 0],
  ['pread', 512, SIZE - 256],
  ['pwrite', 16, SIZE],
  ['preadStructured', 128, 8192, 4],
  ['pread', 64, 40000],
];
const STATUS: typeof ASKED = [
  ['blockStatus', SIZE, 0],
  ['blockStatus64', 8192, 4096, 8],
  ['blockStatus', 512, SIZE],
];

interface Talk {
  readonly name: string;
  readonly open: () => Promise<{ socketPath: string; stop: () => Promise<void> }>;
  readonly client: NbdConnectionOptions;
}

const UNIX = { transport: 'unix' } as const;
const nbdkit =
  (...options: string[]): Talk['open'] =>
  async () => {
    const server = await startNbdkit({ ...UNIX, args: [String(SIZE)], options });
    return socketOf(server);
  };

const TALKS: readonly Talk[] = [
  { name: 'nbdkit-oldstyle', open: nbdkit('-o'), client: {} },
  { name: 'nbdkit-export-name', open: nbdkit('--mask-handshake=0'), client: {} },
  { name: 'nbdkit-simple', open: nbdkit(), client: { requestStructuredReplies: false } },
  { name: 'nbdkit-structured', open: nbdkit(), client: { metaContexts: [ALLOCATION], fullInfo: true } },
  { name: 'nbdkit-read-only', open: nbdkit('-r'), client: { metaContexts: [ALLOCATION] } },
  {
    name: 'nbd-server-simple',
    open: async () => socketOf(await startNbdServer({ ...UNIX, size: SIZE })),
    client: { exportName: 'export' },
  },
  {
    name: 'qemu-nbd-structured',
    open: async () => socketOf(await startQemuNbd({ ...UNIX, size: SIZE, bitmap: 'b0', description: 'a disk' })),
    client: { metaContexts: [ALLOCATION, 'qemu:dirty-bitmap:b0'], fullInfo: true },
  },
  {
    name: 'qemu-nbd-simple',
    open: async () => socketOf(await startQemuNbd({ ...UNIX, size: SIZE })),
    client: { requestStructuredReplies: false },
  },
  ...(whyNoTrixie() === null
    ? [
        {
          name: 'qemu-nbd-extended',
          open: async () => socketOf(await startTrixieQemuNbd({ transport: 'unix', makeImage, exportName: 'disk' })),
          client: { exportName: 'disk', metaContexts: [ALLOCATION], fullInfo: true },
        },
      ]
    : []),
  {
    name: 'embedded-extended',
    open: async () => {
      const server = new NbdServer({ exports: { '': new MemoryBackend(SIZE) } });
      const socketPath = join(process.env['TMPDIR'] ?? '/tmp', `nbd-record-${process.pid}`);
      await server.listenUnix(socketPath);
      return { socketPath, stop: () => server.close() };
    },
    client: { metaContexts: [ALLOCATION] },
  },
];

const makeImage = async (path: string): Promise<void> => {
  writeFileSync(path, 'begins with text');
  await truncate(path, SIZE);
};

function socketOf(server: Awaited<ReturnType<typeof startNbdkit>>): Awaited<ReturnType<Talk['open']>> {
  if (!('socketPath' in server.address)) throw new Error('not on a Unix socket');
  return { socketPath: server.address.socketPath, stop: () => server.stop() };
}

async function record({ open, client: options }: Talk): Promise<StoredTranscript> {
  const { socketPath, stop } = await open();
  const [near, far] = duplexPair();
  const socket = connect({ path: socketPath });
  const said: { by: 'client' | 'server'; bytes: Buffer }[] = [];
  far.on('data', (bytes: Buffer) => {
    said.push({ by: 'client', bytes });
    socket.write(bytes);
  });
  socket.on('data', (bytes: Buffer) => {
    said.push({ by: 'server', bytes: Buffer.from(bytes) });
    far.write(bytes);
  });
  const connection = new NbdConnection({ ...options, strictMode: NO_STRICT_CHECKS });
  await connection.connectSocket(near);
  const split = said.length;
  const session = lifecycleOf(connection).session;
  if (session === null) throw new Error('no session');
  const { negotiated, info, request } = session;
  const mode: ReplyMode = negotiated.extendedHeaders
    ? 'extended'
    : negotiated.structuredReplies
      ? 'structured'
      : 'simple';
  const asked = [...ASKED, ...((negotiated.contexts?.size ?? 0) > 0 ? STATUS : [])];
  await Promise.allSettled(asked.map((each) => call(connection, each)));
  connection.close();
  socket.destroy();
  await stop();
  const turns: Buffer[] = [];
  let last: string | undefined;
  for (const { by, bytes } of said.slice(0, split)) {
    if (by === 'server' && last === 'server') turns.push(Buffer.concat([turns.pop() ?? Buffer.alloc(0), bytes]));
    else if (by === 'server') turns.push(bytes);
    last = by;
  }
  const all = (by: string, part: typeof said): string =>
    Buffer.concat(part.filter((each) => each.by === by).map(({ bytes }) => bytes)).toString('hex');
  return {
    mode,
    exportSize: String(info?.size),
    contexts: [...(negotiated.contexts ?? [])],
    request: {
      ...{ exportName: request.exportName, structuredReplies: request.structuredReplies },
      ...{ extendedHeaders: request.extendedHeaders, metaContexts: request.metaContexts, fullInfo: request.fullInfo },
    },
    handshake: turns.map((turn) => turn.toString('hex')),
    options: all('client', said.slice(0, split)),
    asked: asked.map(([method, count, offset, flags = 0]) => [method, String(count), String(offset), flags]),
    requests: all('client', said.slice(split)),
    replies: all('server', said.slice(split)),
  };
}

function call(c: NbdConnection, [method, count, offset, flags = 0]: (typeof ASKED)[number]): Promise<unknown> {
  switch (method) {
    case 'pread':
      return c.pread(count, offset, flags);
    case 'preadStructured':
      return c.preadStructured(count, offset, () => undefined, flags);
    case 'pwrite':
      return c.pwrite(Buffer.alloc(count, 'NBD'), offset, flags);
    case 'flush':
      return c.flush(flags);
    default:
      return c[method](count, offset, flags);
  }
}

/** Writes every transcript that this machine can make. */
export async function recordTranscripts(): Promise<void> {
  for (const talk of TALKS) {
    const transcript = await record(talk);
    const file = join(TRANSCRIPTS, `${talk.name}.json`);
    writeFileSync(file, `${JSON.stringify(transcript, null, 2)}\n`);
    process.stdout.write(`${file}: ${transcript.mode}, ${transcript.replies.length / 2} bytes of replies\n`);
  }
  await stopAllServers();
}
