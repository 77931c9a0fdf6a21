// Real NBD servers for specs and benchmarks: nbdkit, qemu-nbd and nbd-server, each on a socket of its own.

import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { launch, type RealServer } from './server-process.js';
import { runTool } from './tools.js';

export { freePort, stopAllServers, type Address, type RealServer } from './server-process.js';
export { describeWith, findTool, hasTool, runLibnbd, runTool, type RunToolOptions, type ToolResult } from './tools.js';

/** Where a server is to listen: a Unix socket in a temporary folder by default. */
export interface WhereOptions {
  transport?: 'unix' | 'tcp';
  /** A fixed socket path, for a server that comes back where it was. */
  socketPath?: string;
  /** A fixed TCP port, for the same purpose. */
  port?: number;
  env?: Readonly<Record<string, string>>;
}

/** TLS for any of the servers; `folder` holds ca-cert.pem, server-cert.pem and server-key.pem. */
export interface ServerTls {
  /** `on` serves clients without TLS too (nbdkit and nbd-server only); `require` is the default. */
  mode?: 'on' | 'require';
  folder?: string;
  /** A file of `user:hexkey` lines (nbdkit), or a folder with `keys.psk` (qemu-nbd). */
  psk?: string;
  /** Demand a certificate of the client, signed by the CA. */
  verifyPeer?: boolean;
}

export interface NbdkitOptions extends WhereOptions {
  /** Default `'memory'`. */
  plugin?: string;
  /** Parameters of the plugin and the filters; default `['64M']` for the memory plugin. */
  args?: readonly string[];
  filters?: readonly string[];
  /** The server's own options: `'-r'`, `'-n'`, `'-o'`, `'--no-sr'`, `'--mask-handshake=0'`, `'-t1'` … */
  options?: readonly string[];
  tls?: ServerTls;
}

/** Starts nbdkit in the foreground. */
export function startNbdkit(options: NbdkitOptions = {}): Promise<RealServer> {
  const { plugin = 'memory', filters = [], tls } = options;
  const args = options.args ?? (plugin === 'memory' ? ['64M'] : []);
  return launch({
    name: 'nbdkit',
    ...where(options),
    tls: tls !== undefined,
    arguments: (address, pidfile) => [
      '--foreground',
      '--exit-with-parent',
      `--pidfile=${pidfile}`,
      ...('socketPath' in address
        ? [`--unix=${address.socketPath}`]
        : [`--ipaddr=${address.host}`, `--port=${String(address.port)}`]),
      ...(tls === undefined ? [] : nbdkitTls(tls)),
      ...(options.options ?? []),
      ...filters.map((filter) => `--filter=${filter}`),
      plugin,
      ...args,
    ],
  });
}

export interface QemuNbdOptions extends WhereOptions {
  /** An image to export; without one an empty image of `size` is made. */
  file?: string;
  /** Bytes of the image that is made; default 64 MiB. */
  size?: number;
  /** Default `'raw'`, or `'qcow2'` when there is a bitmap. */
  format?: 'raw' | 'qcow2';
  exportName?: string;
  description?: string;
  /** A dirty bitmap to add to the image (if it is made here) and to export. */
  bitmap?: string;
  /** How many clients at once; default 16. */
  shared?: number;
  args?: readonly string[];
  tls?: ServerTls;
}

/** Starts qemu-nbd in the foreground; it stays when its last client leaves. */
export function startQemuNbd(options: QemuNbdOptions = {}): Promise<RealServer> {
  const { bitmap, tls, size = 64 * 1024 * 1024 } = options;
  const format = options.format ?? (bitmap === undefined ? 'raw' : 'qcow2');
  return launch({
    name: 'qemu-nbd',
    ...where(options),
    tls: tls !== undefined,
    arguments: async (address, pidfile, folder) => {
      let { file } = options;
      if (file === undefined) {
        file = join(folder, `image.${format}`);
        await qemuImg('create', '-q', '-f', format, file, String(size));
        if (bitmap !== undefined) await qemuImg('bitmap', '--add', file, bitmap);
      }
      return [
        '--persistent',
        `--pid-file=${pidfile}`,
        `--shared=${String(options.shared ?? 16)}`,
        `--format=${format}`,
        ...('socketPath' in address
          ? [`--socket=${address.socketPath}`]
          : [`--bind=${address.host}`, `--port=${String(address.port)}`]),
        ...(options.exportName === undefined ? [] : [`--export-name=${options.exportName}`]),
        ...(options.description === undefined ? [] : [`--description=${options.description}`]),
        ...(bitmap === undefined ? [] : [`--bitmap=${bitmap}`]),
        ...(tls === undefined ? [] : qemuTls(tls)),
        ...(options.args ?? []),
        file,
      ];
    },
  });
}

export interface NbdServerOptions extends WhereOptions {
  /** The image of the one export `export`; without it, and without `exports`, an empty one of `size` is made. */
  file?: string;
  size?: number;
  /** Name to file, with further settings of that export's section: `{ a: { exportname: '/tmp/a', readonly: true } }`. */
  exports?: Readonly<Record<string, string | Readonly<Record<string, string | number | boolean>>>>;
  /** Further settings of the `[generic]` section. */
  generic?: Readonly<Record<string, string | number | boolean>>;
  args?: readonly string[];
  tls?: ServerTls;
}

/**
 * Starts nbd-server. It goes to the background by itself: its `-d` would serve one client and end.
 * Its answer to NBD_OPT_INFO has size 0 (3.24); that to NBD_OPT_GO has the real one.
 */
export function startNbdServer(options: NbdServerOptions = {}): Promise<RealServer> {
  const { tls } = options;
  return launch({
    name: 'nbd-server',
    ...where(options),
    tls: tls !== undefined,
    forks: true,
    arguments: async (address, pidfile, folder) => {
      let exports = options.exports;
      if (exports === undefined) {
        const file = options.file ?? join(folder, 'image');
        if (options.file === undefined) {
          await writeFile(file, '');
          await truncate(file, options.size ?? 64 * 1024 * 1024);
        }
        exports = { export: { exportname: file, flush: true, fua: true, trim: true } };
      }
      const sections = [
        section('generic', {
          ...('socketPath' in address
            ? { unixsock: address.socketPath }
            : { listenaddr: address.host, port: address.port }),
          allowlist: true,
          ...(tls === undefined ? {} : nbdServerTls(tls)),
          ...options.generic,
        }),
        ...Object.entries(exports).map(([name, value]) =>
          section(name, typeof value === 'string' ? { exportname: value } : value),
        ),
      ];
      const config = join(folder, 'config');
      await writeFile(config, sections.join(''));
      return ['-C', config, '-p', pidfile, ...(options.args ?? [])];
    },
  });
}

function where(options: WhereOptions): Pick<Parameters<typeof launch>[0], 'transport' | 'socketPath' | 'port' | 'env'> {
  const transport = options.transport ?? (options.port === undefined ? 'unix' : 'tcp');
  return { transport, socketPath: options.socketPath, port: options.port, env: options.env };
}

async function qemuImg(...args: string[]): Promise<void> {
  const { code, stderr } = await runTool('qemu-img', args);
  if (code !== 0) throw new Error(`qemu-img ${args.join(' ')}: ${stderr}`);
}

function nbdkitTls(tls: ServerTls): string[] {
  return [
    `--tls=${tls.mode ?? 'require'}`,
    ...(tls.folder === undefined ? [] : [`--tls-certificates=${tls.folder}`]),
    ...(tls.psk === undefined ? [] : [`--tls-psk=${tls.psk}`]),
    ...(tls.verifyPeer === true ? ['--tls-verify-peer'] : []),
  ];
}

/** The arguments that make qemu-nbd serve with TLS. */
export function qemuTls(tls: ServerTls): string[] {
  const credentials =
    tls.psk === undefined
      ? `tls-creds-x509,id=tls0,dir=${tls.folder ?? ''},endpoint=server,verify-peer=${tls.verifyPeer === true ? 'on' : 'off'}`
      : `tls-creds-psk,id=tls0,dir=${tls.psk},endpoint=server`;
  return ['--object', credentials, '--tls-creds', 'tls0'];
}

function nbdServerTls({ folder = '', mode }: ServerTls): Record<string, string | boolean> {
  return {
    certfile: join(folder, 'server-cert.pem'),
    keyfile: join(folder, 'server-key.pem'),
    cacertfile: join(folder, 'ca-cert.pem'),
    force_tls: mode !== 'on',
  };
}

function section(name: string, values: Readonly<Record<string, string | number | boolean>>): string {
  const lines = Object.entries(values).map(([key, value]) => `    ${key} = ${String(value)}\n`);
  return `[${name}]\n${lines.join('')}`;
}
