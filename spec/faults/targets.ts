// The three servers on one image file, so that what was written is still there when a server was killed and comes
// back where it was.

import { readFileSync, readdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { NbdConnectionOptions } from '../../lib/index.js';
import { content } from '../support/golden.js';
import { type RealServer, startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';

export const MIB = 1 << 20;
export const IMAGE_LENGTH = 16 * MIB;

export interface ServerKind {
  readonly name: string;
  readonly needs: readonly string[];
  readonly options: NbdConnectionOptions;
  readonly start: (file: string, socketPath: string) => Promise<RealServer>;
}

/** A server that was killed leaves its socket behind, where the next one cannot listen. */
async function startAt(socketPath: string, start: () => Promise<RealServer>): Promise<RealServer> {
  await rm(socketPath, { force: true });
  return start();
}

export const SERVERS: readonly ServerKind[] = [
  {
    ...{ name: 'nbdkit', needs: ['nbdkit'], options: {} },
    start: (file, socketPath) => startAt(socketPath, () => startNbdkit({ plugin: 'file', args: [file], socketPath })),
  },
  {
    ...{ name: 'qemu-nbd', needs: ['qemu-nbd', 'qemu-img'], options: {} },
    start: (file, socketPath) => startAt(socketPath, () => startQemuNbd({ file, socketPath })),
  },
  {
    ...{ name: 'nbd-server', needs: ['nbd-server'], options: { exportName: 'export' } },
    start: (file, socketPath) => startAt(socketPath, () => startNbdServer({ file, socketPath })),
  },
];

/** A folder with an image that holds `content`, and a place for the socket. */
export class Image implements AsyncDisposable {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async make(): Promise<Image> {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-image-'));
    const image = new Image(folder);
    await writeFile(image.file, content(0, IMAGE_LENGTH));
    return image;
  }

  get file(): string {
    return join(this.folder, 'image');
  }

  get socketPath(): string {
    return join(this.folder, 'socket');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Signals the server and, where it has one process per client, those as well: they are in its group. */
export function signalAll(server: RealServer, signal: NodeJS.Signals): void {
  process.kill(server.name === 'nbd-server' ? -server.pid : server.pid, signal);
}

/** Stops the server, and waits until every process of it has stopped: the signal alone only requests it. */
export async function suspend(server: RealServer): Promise<void> {
  signalAll(server, 'SIGSTOP');
  while (processesOf(server).some((stat) => !/\) [TZX] /.test(stat))) await delay(2);
}

/** Lets it go on, if it is there. */
export function resume(server: RealServer): void {
  try {
    signalAll(server, 'SIGCONT');
  } catch {
    // It was killed.
  }
}

/** Of each process in the server's group its line of /proc/PID/stat. */
function processesOf(server: RealServer): string[] {
  if (server.name !== 'nbd-server') return [statOf(String(server.pid))];
  const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const inGroup = new RegExp(`\\) \\S \\d+ ${String(server.pid)} `);
  return all.map(statOf).filter((stat) => inGroup.test(stat));
}

function statOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return `${pid} (gone) X `;
  }
}
