// A Redis server for specs: on a free port, in a folder of its own, ended by its pid.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { launch, type RealServer } from './server-process.js';

export interface RedisOptions {
  /** A fixed port, for a server that comes back where it was. */
  port?: number;
  /** Where it keeps its data, for one that comes back with them; it stays. Default: a folder of its own that goes. */
  folder?: string;
  /** Write every change to disk before it is answered. Default false: it comes back empty. */
  persistent?: boolean;
}

export interface RedisServer extends RealServer {
  readonly url: string;
}

/** Starts redis-server in the foreground. */
export async function startRedis({ port, folder, persistent = false }: RedisOptions = {}): Promise<RedisServer> {
  const own = folder === undefined ? await mkdtemp(join(tmpdir(), 'nbd-redis-data-')) : null;
  const server = await launch({
    name: 'redis-server',
    tls: false,
    transport: 'tcp',
    port,
    arguments: (address, pidfile) => [
      ...['--bind', '127.0.0.1', '--port', 'port' in address ? String(address.port) : '0'],
      ...['--pidfile', pidfile, '--dir', folder ?? own ?? '', '--save', '', '--maxmemory-policy', 'noeviction'],
      ...(persistent ? ['--appendonly', 'yes', '--appendfsync', 'always'] : ['--appendonly', 'no']),
    ],
  });
  const stop = async (): Promise<void> => {
    await server.stop();
    if (own !== null) await rm(own, { recursive: true, force: true });
  };
  if (own !== null) void server.ended.then(() => rm(own, { recursive: true, force: true }));
  return { ...server, url: `redis://127.0.0.1:${server.port ?? 0}`, stop, [Symbol.asyncDispose]: stop };
}
