// qemu-nbd 10 of a Debian trixie root under chroot: the real server with extended headers. install-servers.mjs makes
// the root; without it there is no such server, and specs report it.

import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';

import { qemuTls, type QemuNbdOptions } from './real-servers.js';
import { launch, type RealServer } from './server-process.js';
import { hasTool } from './tools.js';

/** The same place as in make-trixie.mjs. */
const ROOT = join(process.env['NBD_SDK_CACHE'] ?? join(homedir(), '.cache', 'nbd-sdk'), 'trixie');

/** Largest path of a Unix socket on Linux, in bytes. */
const MAX_SOCKET_PATH = 107;

/** Why specs cannot have it; null when they can. */
export function whyNoTrixie(): string | null {
  if (!existsSync(join(ROOT, 'usr', 'bin', 'qemu-nbd'))) return 'no Debian trixie root: set NBD_SDK_TRIXIE=1';
  if (process.getuid?.() !== 0) return 'chroot takes root';
  if (Buffer.byteLength(join(ROOT, 'tmp', 'q-123456', 's')) > MAX_SOCKET_PATH)
    return 'the path of its root is too long';
  return hasTool('chroot') ? null : 'no chroot';
}

export interface TrixieOptions {
  readonly transport: 'unix' | 'tcp';
  /** Makes the image, whose path is given. */
  readonly makeImage: (path: string) => Promise<void>;
  /** Default `'raw'`. */
  readonly format?: 'raw' | 'qcow2';
  readonly exportName?: string;
  readonly description?: string;
  readonly args?: readonly string[];
  /** A folder of certificates; it is copied into the root. */
  readonly tls?: QemuNbdOptions['tls'];
}

/** Starts it. Its files lie in a folder inside the root, which goes when it ends. */
export async function startTrixieQemuNbd(options: TrixieOptions): Promise<RealServer> {
  const { tls, transport } = options;
  // Short names: a Unix socket's path is short, and the root's own is part of it.
  const outside = await mkdtemp(join(ROOT, 'tmp', 'q-'));
  const inside = join('/tmp', basename(outside));
  await options.makeImage(join(outside, 'image'));
  if (tls?.folder !== undefined) await cp(tls.folder, join(outside, 'pki'), { recursive: true });
  const server = await launch({
    name: 'chroot',
    transport,
    ...(transport === 'unix' ? { socketPath: join(outside, 's') } : {}),
    tls: tls !== undefined,
    arguments: async (address, pidfile) => {
      // What it writes inside the root is read where launch() looks.
      await symlink(join(outside, 'pid'), pidfile);
      return [
        ...[
          ROOT,
          'qemu-nbd',
          '--persistent',
          '--shared=16',
          `--format=${options.format ?? 'raw'}`,
          `--pid-file=${join(inside, 'pid')}`,
        ],
        ...('socketPath' in address
          ? [`--socket=${join(inside, 's')}`]
          : [`--bind=${address.host}`, `--port=${String(address.port)}`]),
        ...(options.exportName === undefined ? [] : [`--export-name=${options.exportName}`]),
        ...(options.description === undefined ? [] : [`--description=${options.description}`]),
        ...(tls === undefined ? [] : qemuTls({ ...tls, folder: join(inside, 'pki') })),
        ...(options.args ?? []),
        join(inside, 'image'),
      ];
    },
  }).catch(async (error: unknown) => {
    await rm(outside, { recursive: true, force: true });
    throw error;
  });
  void server.ended.then(() => rm(outside, { recursive: true, force: true }));
  return server;
}
