// Finding programs on this machine, and the arguments of those that reach what Node cannot reach by itself.

import { access, constants, stat } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';

/** The absolute path of a program, looked for as a shell would. Rejects with ENOENT or EACCES. */
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

/** Where a relay on the far side of ssh is to connect to, there. */
export type RemoteEnd = { readonly port: number } | { readonly socketPath: string };

export interface SshRoute {
  readonly host: string;
  readonly port: number;
  readonly user?: string | undefined;
  readonly compress: boolean;
  readonly remote: RemoteEnd;
}

/**
 * ssh's arguments for a connection to something on its server. What they are made of may come from a stranger, and
 * the remote command goes through a shell of unknown kind: whatever could mean anything to ssh or to a shell is
 * refused here once more, whoever has checked it before.
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
    // Behind `--` a host is never taken for an option, as one that begins with '-' once was (CVE-2025-14946).
    '--',
    safe(host, SAFE_HOST),
    ...relay,
  ];
}

/** With `:` and `%` for IPv6 addresses and their zones. */
const SAFE_HOST = /^[\w:][\w.:%-]*$/;
const SAFE_USER = /^[\w.][\w.@+-]*$/;
const SAFE_PATH = /^[\w./][\w./@:,+=-]*$/;

function safe(text: string, pattern: RegExp): string {
  if (pattern.test(text)) return text;
  throw Object.assign(new Error('a name is not safe to give to ssh'), { code: 'EINVAL' });
}

/** Programs that connect their stdin and stdout to an AF_VSOCK address, the preferred one first. */
export function vsockCommands(cid: number, port: number): string[][] {
  return [
    // -t: how long it waits for the other direction once one has ended; half a second would cut replies off.
    ['socat', '-t', '60', '-', `VSOCK-CONNECT:${cid}:${port}`],
    ['ncat', '--vsock', String(cid), String(port)],
  ];
}

/** A program that connects its stdin and stdout to an abstract Unix socket; `path` begins with its NUL. */
export function abstractCommands(path: string): string[][] {
  // socat's own syntax: a comma begins an option, two exclamation marks another address, and quotes and brackets nest.
  const name = path.slice(1).replace(/[\\,!:"'`()[\]{}]/g, '\\$&');
  return [['socat', '-t', '60', '-', `ABSTRACT-CONNECT:${name}`]];
}

/** The first of the commands whose program this machine has. Rejects with ENOTSUP and the names of all of them. */
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
  throw Object.assign(new Error(`${purpose} needs the program ${names}, and this machine has none of them`), {
    code: 'ENOTSUP',
  });
}

/** What a program is called in messages. */
export const nameOf = (program: string): string => program.slice(program.lastIndexOf('/') + 1);

export function startError(cause: NodeJS.ErrnoException, name: string): Error {
  const why =
    cause.code === 'ENOENT'
      ? `there is no program ${name}`
      : cause.code === 'EACCES'
        ? `the program ${name} may not be run`
        : `the program ${name} could not be run: ${cause.message}`;
  return Object.assign(new Error(why, { cause }), { code: cause.code ?? 'EINVAL' });
}
