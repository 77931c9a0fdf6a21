// Addresses of Unix sockets: a path in the file system, or an abstract name (which begins with a NUL). Checks whether
// they fit the kernel's sockaddr_un, and whether this version of Node handles them.

import { readFile } from 'node:fs/promises';

/** Bytes that fit in sun_path, besides the terminating NUL that other programs expect. */
export const MAX_UNIX_PATH = 107;
/** An abstract name has its NUL in front and no terminating one. */
const MAX_ABSTRACT = 108;

export const isAbstract = (path: string): boolean => path.startsWith('\0');

/**
 * The error for a path that cannot be used, with an errno as code; else null. Node would truncate it, or fail with
 * ENOENT.
 */
export function unixPathProblem(path: string): NodeJS.ErrnoException | null {
  const [length, limit] = [Buffer.byteLength(path), isAbstract(path) ? MAX_ABSTRACT : MAX_UNIX_PATH];
  if (isAbstract(path) && process.platform !== 'linux') {
    return problem('abstract Unix sockets exist on Linux only', 'ENOTSUP');
  }
  if (length <= limit) return null;
  const message = `the path of a Unix socket is limited to ${limit} bytes (sun_path), this one has ${length}`;
  return problem(message, 'ENAMETOOLONG');
}

/**
 * Whether Node uses an abstract name as it is. Before Node 22 it pads the name with NULs, which become part of it: no
 * other program listens on, or connects to, such a name.
 */
export const keepsAbstractNames = (version = process.versions.node): boolean => Number.parseInt(version, 10) >= 22;

/** The error for listening on a path, or on an abstract name that other programs could not connect to; else null. */
export function unixListenProblem(path: string, version?: string): NodeJS.ErrnoException | null {
  const wrong = unixPathProblem(path);
  if (wrong !== null || !isAbstract(path) || keepsAbstractNames(version)) return wrong;
  const message = 'listening on an abstract Unix socket requires Node 22: this version pads the name with NULs';
  return problem(message, 'ENOTSUP');
}

/** `padded`: the listener pads the name with NULs, as Node before 22 does. */
export type AbstractName = 'exact' | 'padded' | 'absent' | 'unknown';

/** Whether a program listens on an abstract name, and in which form; `list` is /proc/net/unix, with `@` for NUL. */
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
