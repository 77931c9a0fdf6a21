// Finds programs on this machine, and builds the arguments of those that provide transports that Node lacks.

import { access, constants, stat } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';

/** The absolute path of a program, which is looked up as a shell would. Rejects with ENOENT or EACCES. */
export async function findProgram(program: string): Promise<string> {
  const places = program.includes('/')
    ? [resolve(program)]
    : (process.env['PATH'] ?? '/usr/bin:/bin').split(delimiter).map((folder) => resolve(join(folder, program)));
  let failure: NodeJS.ErrnoException = Object.assign(new Error('not found'), { code: 'ENOENT' });
  for (const place of places) {
    try {
      await access(place, constants.X_OK);
      if ((await stat(place)).isFile()) return place;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES') failure = error as NodeJS.ErrnoException;
    }
  }
  throw startError(failure, program);
}

/** The address that the relay on the ssh server connects to. */
export type RemoteEnd = { readonly port: number } | { readonly socketPath: string };

export interface SshRoute {
  readonly host: string;
  readonly port: number;
  readonly user?: string | undefined;
  readonly compress: boolean;
  readonly remote: RemoteEnd;
}

/**
 * ssh's arguments for a connection to an address on its server. Their parts may come from an untrusted URI, and the
 * remote command goes through an unknown shell: everything that could be special to ssh or to a shell is refused here
 * again, even if the caller has checked it.
 */
export function sshCommand({ host, port, user, compress, remote }: SshRoute): string[] {
  const relay =
    'port' in remote ? ['nc', 'localhost', String(remote.port)] : ['nc', '-U', safe(remote.socketPath, SAFE_PATH)];
  return [
    'ssh',
    '-T',
    ...(compress ? ['-C'] : []),
    ...['-p', String(port)],
    ...(user === undefined ? [] : ['-l', safe(user, SAFE_USER)]),
    // After `--` a host that begins with '-' is not taken for an option (CVE-2025-14946).
    '--',
    safe(host, SAFE_HOST),
    ...relay,
  ];
}

/** `:` and `%` are for IPv6 addresses and their zones. */
const SAFE_HOST = /^[\w:][\w.:%-]*$/;
const SAFE_USER = /^[\w.][\w.@+-]*$/;
const SAFE_PATH = /^[\w./][\w./@:,+=-]*$/;

function safe(text: string, pattern: RegExp): string {
  if (pattern.test(text)) return text;
  throw Object.assign(new Error('a name is not safe to pass to ssh'), { code: 'EINVAL' });
}

/** Programs that connect their stdin and stdout to an AF_VSOCK address, the preferred one first. */
export function vsockCommands(cid: number, port: number): string[][] {
  return [
    // -t: seconds to wait for the other direction once one has ended; the default, half a second, cuts replies off.
    ['socat', '-t', '60', '-', `VSOCK-CONNECT:${cid}:${port}`],
    ['ncat', '--vsock', String(cid), String(port)],
  ];
}

/** A program that connects its stdin and stdout to an abstract Unix socket; `path` begins with its NUL. */
export function abstractCommands(path: string): string[][] {
  // In socat's syntax a comma starts an option, two exclamation marks another address, and quotes and brackets nest.
  const name = path.slice(1).replace(/[\\,!:"'`()[\]{}]/g, '\\$&');
  return [['socat', '-t', '60', '-', `ABSTRACT-CONNECT:${name}`]];
}

/** The first command whose program is installed. Rejects with ENOTSUP and the names of all programs. */
export async function firstAvailable(commands: readonly string[][], purpose: string): Promise<string[]> {
  for (const command of commands) {
    try {
      await findProgram(command[0] ?? '');
      return command;
    } catch {
      // the next one
    }
  }
  const names = commands.map(([program]) => program).join(' or ');
  throw Object.assign(new Error(`${purpose} needs ${names} to be installed`), {
    code: 'ENOTSUP',
  });
}

/** The name of a program in messages. */
export const nameOf = (program: string): string => program.slice(program.lastIndexOf('/') + 1);

export function startError(cause: NodeJS.ErrnoException, name: string): Error {
  const why =
    cause.code === 'ENOENT'
      ? `program not found: ${name}`
      : cause.code === 'EACCES'
        ? `no permission to run the program ${name}`
        : `the program ${name} could not be run: ${cause.message}`;
  return Object.assign(new Error(why, { cause }), { code: cause.code ?? 'EINVAL' });
}
