// The ways of `nbd serve` other than listening: serving a client on standard input and output (--single), serving a
// command that it runs (--run), and stopping together with its parent process (--exit-with-parent).

import { spawn } from 'node:child_process';
import { fstatSync, type Stats } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import type { CommandContext } from '../command.js';
import { CliError, UsageError } from '../errors.js';

/** Standard input and output as one stream: one socket for both, or two pipes. */
export function standardStreams(context: CommandContext): Duplex {
  const [input, output] = [statOf(0), statOf(1)];
  if (!isStream(input) || !isStream(output)) {
    throw new UsageError('--single: standard input and output must be a client: a socket, or two pipes');
  }
  // EPIPE means that the client has disconnected, which is a normal end and not a failure of the output.
  context.releaseOutput();
  const isOne = input.isSocket() && input.ino === output.ino && input.dev === output.dev;
  if (isOne) return new Socket({ fd: 0, readable: true, writable: true, allowHalfOpen: true });
  return Duplex.from({
    readable: new Socket({ fd: 0, readable: true, writable: false }),
    writable: new Socket({ fd: 1, readable: false, writable: true }),
  });
}

function statOf(fd: number): Stats | null {
  try {
    return fstatSync(fd);
  } catch {
    return null;
  }
}

const isStream = (stats: Stats | null): stats is Stats => stats !== null && (stats.isSocket() || stats.isFIFO());

/** A path for a socket that only this user can reach; removed when the command ends. */
export async function privateSocketPath(context: CommandContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-serve-'));
  context.onEnd(() => rm(folder, { recursive: true, force: true }));
  return join(folder, 'socket');
}

/** What the command of --run needs to know about the server. */
export interface ServedAt {
  readonly uri: string;
  readonly exportName: string;
  readonly address: { readonly host: string; readonly port: number } | { readonly path: string };
}

/**
 * Runs a command in a shell with nbdkit's variables, and resolves with its exit status. Aborting `signal` ends the
 * command.
 */
export function runInShell(
  command: string,
  { uri, exportName, address }: ServedAt,
  signal: AbortSignal,
): Promise<number> {
  const variables = {
    uri,
    exportname: exportName,
    ...('path' in address
      ? { unixsocket: address.path, port: '', nbd: `nbd:unix:${address.path}` }
      : { unixsocket: '', port: String(address.port), nbd: `nbd:${address.host}:${address.port}` }),
  };
  const assignments = Object.entries(variables).map(([name, value]) => `${name}=${quoted(value)}\n`);
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', assignments.join('') + command], { stdio: 'inherit' });
    const onAbort = (): void => {
      child.kill('SIGTERM');
    };
    signal.addEventListener('abort', onAbort);
    child.once('error', (cause) => {
      signal.removeEventListener('abort', onAbort);
      reject(new CliError(`--run: cannot run /bin/sh: ${cause.message}`, { cause }));
    });
    child.once('close', (code, name) => {
      signal.removeEventListener('abort', onAbort);
      resolve(code ?? 128 + (name === null ? 0 : constants.signals[name]));
    });
    if (signal.aborted) onAbort();
  });
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** Milliseconds between two checks of the parent; Node has no way to be notified of its end by the kernel. */
const PARENT_INTERVAL = 200;

/** Resolves when the parent of this process has ended. Does not keep this process alive. */
export function parentEnded(): Promise<void> {
  const parent = process.ppid;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (process.ppid === parent) return;
      clearInterval(timer);
      resolve();
    }, PARENT_INTERVAL);
    timer.unref();
  });
}
