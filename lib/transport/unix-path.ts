// Where a Unix socket is: a path in the file system, or an abstract name (a NUL and what follows it), as it fits into
// the kernel's sockaddr_un, and what this Node makes of it.

import { readFile } from 'node:fs/promises';

/** What fits in sun_path with the NUL behind it, which every other program expects. */
export const MAX_UNIX_PATH = 107;
/** An abstract name has its NUL in front, and none behind it. */
const MAX_ABSTRACT = 108;

export const isAbstract = (path: string): boolean => path.startsWith('\0');

/** What is wrong with a path, with the code of an errno; null where nothing is. Node cuts it, or says ENOENT. */
export function unixPathProblem(path: string): NodeJS.ErrnoException | null {
  const [length, limit] = [Buffer.byteLength(path), isAbstract(path) ? MAX_ABSTRACT : MAX_UNIX_PATH];
  if (isAbstract(path) && process.platform !== 'linux') {
    return problem('abstract Unix sockets exist on Linux only', 'ENOTSUP');
  }
  if (length <= limit) return null;
  const message = `the path of a Unix socket has at most ${limit} bytes (sun_path), this one ${length}`;
  return problem(message, 'ENAMETOOLONG');
}

/**
 * Whether Node keeps an abstract name as it is. Before Node 22 it fills sun_path up with NULs, which are a part of the
 * name: no other program listens on, or connects to, such a name.
 */
export const keepsAbstractNames = (version = process.versions.node): boolean => Number.parseInt(version, 10) >= 22;

/** The error of listening on an abstract name where nobody else could connect to it; null where it can be done. */
export function unixListenProblem(path: string, version?: string): NodeJS.ErrnoException | null {
  const wrong = unixPathProblem(path);
  if (wrong !== null || !isAbstract(path) || keepsAbstractNames(version)) return wrong;
  const message = 'to listen on an abstract Unix socket takes Node 22: this one fills the name up with NULs';
  return problem(message, 'ENOTSUP');
}

/** `padded`: listened on by a program that fills the name up, as Node before 22 does. */
export type AbstractName = 'exact' | 'padded' | 'absent' | 'unknown';

/** Whether anything listens on an abstract name, and how it is written; `list` is /proc/net/unix, with `@` for NUL. */
export async function findAbstract(path: string, list?: string): Promise<AbstractName> {
  let text = list;
  try {
    text ??= await readFile('/proc/net/unix', 'utf8');
  } catch {
    return 'unknown';
  }
  const shown = path.replaceAll('\0', '@');
  const padded = shown + '@'.repeat(MAX_ABSTRACT - Buffer.byteLength(path));
  // Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
  const names = new Set<string>();
  for (const line of text.split('\n')) {
    const [, flags = '', name = ''] = /^\S+ \S+ \S+ (\S+) \S+ \S+ +\d+ (@.*)$/.exec(line) ?? [];
    if ((Number.parseInt(flags, 16) & 0x1_0000) !== 0) names.add(name);
  }
  return names.has(shown) ? 'exact' : names.has(padded) ? 'padded' : 'absent';
}

const problem = (message: string, code: string): NodeJS.ErrnoException => Object.assign(new Error(message), { code });
