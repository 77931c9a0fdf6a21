// One running server: its process, where it listens, and its end. Invariant: whatever was started here is ended by
// its own pid, at the latest when the test file that started it is done.

import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { findTool } from './tools.js';

/** Where a server listens. */
export type Address = { readonly socketPath: string } | { readonly host: string; readonly port: number };

/** A real server, started for a spec. */
export interface RealServer extends AsyncDisposable {
  /** The program's name. */
  readonly name: string;
  readonly pid: number;
  readonly address: Address;
  /** Set for a server on a Unix socket. */
  readonly socketPath: string | undefined;
  /** Set, with the port, for a server on TCP. */
  readonly host: string | undefined;
  readonly port: number | undefined;
  /** Its NBD URI: `nbds:` when it was started with TLS. */
  uri(exportName?: string): string;
  /** What it wrote to stderr so far. */
  log(): string;
  /** Sends a signal and waits for nothing. */
  kill(signal?: NodeJS.Signals): void;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  /** The signal that has ended it, or does so within this many milliseconds; null if none did, or it is unknown. */
  endedBy(ms: number): Promise<NodeJS.Signals | null>;
  /** Ends it (SIGTERM, after two seconds SIGKILL), waits for that and removes its files. Idempotent. */
  stop(): Promise<void>;
}

/** How to start one server; every try gets a folder of its own and, for TCP, a new port. */
export interface Launch {
  readonly name: string;
  readonly tls: boolean;
  readonly transport: 'unix' | 'tcp';
  /** A fixed address, for a server that comes back where it was. */
  readonly socketPath?: string | undefined;
  readonly port?: number | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The arguments, once the address and the pidfile are known; may write files into the folder. */
  arguments(address: Address, pidfile: string, folder: string): string[] | Promise<string[]>;
  /** True for a program that goes to the background by itself: its pidfile then contains the pid. */
  readonly forks?: boolean;
}

const HOST = '127.0.0.1';
/** Linux gives out those from 32768 on, other systems higher ones. */
const OWN_PORTS = [15_000, 32_000] as const;
/** Milliseconds, for the slowest machine. */
const READY_DEADLINE = 120_000;
const STOP_DEADLINE = 30_000;
const TRIES = 5;

const running = new Set<RealServer>();

/** Ends every server that is still running; runs by itself after each test file. */
export async function stopAllServers(): Promise<void> {
  await Promise.all([...running].map((server) => server.stop()));
}

// Outside jest (benchmarks) there is no such hook, and the code that starts a server stops it.
if (typeof afterAll === 'function') afterAll(stopAllServers, 300_000);

/** Starts a server and resolves when it accepts connections. */
export async function launch(options: Launch): Promise<RealServer> {
  if (findTool(options.name) === undefined) throw new Error(`${options.name} is not installed`);
  const isFixed = options.port !== undefined || options.socketPath !== undefined || options.transport === 'unix';
  // Between finding a free port and the server's listen() another process may take it.
  for (let tries = isFixed ? 1 : TRIES; ; tries--) {
    try {
      return await launchOnce(options);
    } catch (error) {
      if (tries <= 1) throw error;
    }
  }
}

async function launchOnce(options: Launch): Promise<RealServer> {
  const folder = await mkdtemp(join(tmpdir(), `nbd-${options.name}-`));
  const pidfile = join(folder, 'pid');
  const address: Address =
    options.transport === 'tcp'
      ? { host: HOST, port: options.port ?? (await freePort()) }
      : { socketPath: options.socketPath ?? join(folder, 'socket') };
  const args = await options.arguments(address, pidfile, folder);

  let said = '';
  let gone = false;
  let isReady = false;
  const sent = new Set<NodeJS.Signals | null>();
  const isGone = (): boolean => gone;
  const child = spawn(findTool(options.name) ?? options.name, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
  const childEnded = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      said += error.message;
      gone = true;
      resolve();
    });
    child.once('exit', (code, name) => {
      gone = true;
      // What a test sees of a server that crashed, or that something else has ended, is a connection refused.
      const isOurs = code === 0 || name === 'SIGKILL' || sent.has(name);
      if (isReady && !isOurs) {
        process.stderr.write(`${options.name} (process ${child.pid}) ended by itself: ${name ?? code}: ${said}\n`);
      }
      resolve();
    });
  });

  const deadline = Date.now() + READY_DEADLINE;
  const { forks = false } = options;
  let pid: number | undefined;
  for (;;) {
    pid ??= readPid(pidfile);
    if (pid !== undefined && (!forks || (await accepts(address)))) break;
    const failed = isGone() && (child.exitCode !== 0 || !forks);
    if (failed || Date.now() > deadline) {
      child.kill('SIGKILL');
      if (pid !== undefined) signal(pid, 'SIGKILL');
      await rm(folder, { recursive: true, force: true });
      throw new Error(`${options.name} ${args.join(' ')} ${failed ? 'ended' : 'is not ready'}: ${said}`);
    }
    await sleep(5);
  }

  isReady = true;
  const serverPid = pid;
  const send = (which: NodeJS.Signals): void => {
    // The number of a process that has ended may be that of another one, such as another test's server.
    if (gone && !forks) return;
    sent.add(which);
    signal(serverPid, which);
  };
  const ended = forks ? untilDead(serverPid) : childEnded;
  let stopping: Promise<void> | undefined;
  const server: RealServer = {
    name: options.name,
    pid: serverPid,
    address,
    socketPath: 'socketPath' in address ? address.socketPath : undefined,
    host: 'host' in address ? address.host : undefined,
    port: 'port' in address ? address.port : undefined,
    uri: (exportName = '') => formatUri(address, options.tls, exportName),
    log: () => said,
    kill: (which = 'SIGKILL') => {
      send(which);
    },
    ended,
    endedBy: async (ms) => {
      await Promise.race([ended, sleep(ms, undefined, { ref: false })]);
      return child.signalCode;
    },
    stop: () => (stopping ??= stop()),
    [Symbol.asyncDispose]: () => server.stop(),
  };
  async function stop(): Promise<void> {
    running.delete(server);
    send('SIGTERM');
    send('SIGCONT'); // a stopped process would never see the first
    const timer = setTimeout(() => {
      // A forking server leaves one process per client behind, in its own process group.
      signal(forks ? -serverPid : serverPid, 'SIGKILL');
    }, STOP_DEADLINE);
    await ended;
    clearTimeout(timer);
    await rm(folder, { recursive: true, force: true });
  }
  running.add(server);
  return server;
}

/**
 * A TCP port of the loopback interface on which nothing listens. It is outside the range from which the system assigns
 * ports to outgoing connections: one of these could take it while a server is being restarted.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(...OWN_PORTS);
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => {
      resolve(false);
    });
    probe.listen(port, HOST, () => {
      probe.close(() => {
        resolve(true);
      });
    });
  });
}

function formatUri(address: Address, tls: boolean, exportName: string): string {
  const scheme = tls ? 'nbds' : 'nbd';
  const path = encodeURIComponent(exportName);
  return 'socketPath' in address
    ? `${scheme}+unix:///${path}?socket=${address.socketPath}`
    : `${scheme}://${address.host}:${String(address.port)}/${path}`;
}

function readPid(pidfile: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(pidfile, 'utf8'), 10);
    return pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function accepts(address: Address): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect('socketPath' in address ? { path: address.socketPath } : { ...address });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}

function signal(pid: number, which: NodeJS.Signals): void {
  try {
    process.kill(pid, which);
  } catch {
    // gone already
  }
}

async function untilDead(pid: number): Promise<void> {
  while (isAlive(pid)) await sleep(10);
}

function isAlive(pid: number): boolean {
  try {
    // In a container whose first process does not reap children a dead daemon stays a zombie: kill(pid, 0) succeeds.
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${String(pid)}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
