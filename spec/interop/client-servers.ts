// The servers that the client is tried on, each started alike: an export of zeroes of a given size, writable.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { NbdConnection, type NbdConnectionOptions, type NbdTarget } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';

export interface Served extends AsyncDisposable {
  readonly connect: (options?: NbdConnectionOptions) => Promise<NbdConnection>;
  /** The same to an export of another name. */
  readonly connectTo: (exportName: string) => Promise<NbdConnection>;
}

export interface Kind {
  readonly name: string;
  /** Programs that it needs. */
  readonly needs: readonly string[];
  /** What it does not have. */
  readonly lacks: readonly ('cache' | 'structured' | 'contexts' | 'fastZero' | 'df' | 'exactErrors')[];
  readonly start: (size: number) => Promise<Served>;
}

type Starter = (options: {
  transport: 'unix' | 'tcp';
  size: number;
}) => Promise<{ uri: (exportName?: string) => string; stop: () => Promise<void> }>;

/** One kind per transport. Connections are ended before their server is. */
const kinds = (name: string, needs: string[], lacks: Kind['lacks'], start: Starter): Kind[] =>
  (['unix', 'tcp'] as const).map((transport) => ({
    ...{ name: `${name} over ${transport}`, needs, lacks },
    start: async (size) => {
      const { uri, stop } = await start({ transport, size });
      return served(uri, stop);
    },
  }));

function served(target: (exportName?: string) => NbdTarget, stop: () => Promise<void>): Served {
  const connections: NbdConnection[] = [];
  const connect = async (to: NbdTarget, options?: NbdConnectionOptions): Promise<NbdConnection> => {
    const connection = await NbdConnection.connect(to, options);
    connections.push(connection);
    return connection;
  };
  return {
    connect: (options) => connect(target(), options),
    connectTo: (exportName) => connect(target(exportName), { exportName }),
    [Symbol.asyncDispose]: async () => {
      for (const connection of connections) connection.close();
      await stop();
    },
  };
}

export const KINDS: readonly Kind[] = [
  ...kinds('nbdkit', ['nbdkit'], [], async ({ transport, size }) => {
    const server = await startNbdkit({ transport, args: [String(size)] });
    return { uri: (name) => server.uri(name), stop: () => server.stop() };
  }),
  ...kinds('qemu-nbd', ['qemu-nbd', 'qemu-img'], [], async ({ transport, size }) => {
    const server = await startQemuNbd({ transport, size, args: ['--discard=unmap'] });
    return { uri: (name) => server.uri(name), stop: () => server.stop() };
  }),
  ...kinds(
    'nbd-server',
    ['nbd-server'],
    ['cache', 'structured', 'contexts', 'fastZero', 'df', 'exactErrors'],
    async ({ transport, size }) => {
      const server = await startNbdServer({ transport, size });
      return { uri: (name = 'export') => server.uri(name), stop: () => server.stop() };
    },
  ),
  ...kinds('the embedded server', [], [], async ({ transport, size }) => {
    const server = new NbdServer({ exports: { '': new MemoryBackend(size) }, closeTimeout: 500 });
    const folder = await mkdtemp(join(tmpdir(), 'nbd-client-'));
    await (transport === 'tcp' ? server.listenTcp() : server.listenUnix(join(folder, 's')));
    const stop = async (): Promise<void> => {
      await server.close();
      await rm(folder, { recursive: true, force: true });
    };
    return { uri: (name) => server.uri(name), stop };
  }),
  {
    ...{ name: 'the embedded server in memory', needs: [], lacks: [] },
    start: async (size) => {
      const server = new NbdServer({ exports: { '': new MemoryBackend(size) }, closeTimeout: 500 });
      return served(
        () => server.connectMemory(),
        () => server.close(),
      );
    },
  },
];
