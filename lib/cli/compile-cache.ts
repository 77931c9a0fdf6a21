// Chooses a folder for compiled code. Node executes what it finds there, so the folder must be writable by this user
// alone. Node's own default is a folder in the temporary directory, which another user may have created first.

import { lstatSync, mkdirSync, realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

type Environment = Readonly<Record<string, string | undefined>>;

export interface User {
  readonly environment: Environment;
  readonly home: string;
  /** Undefined on a system without user ids, where permissions cannot be checked. */
  readonly uid: number | undefined;
}

const GROUP_OR_OTHERS = 0o077;
const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

/** Creates a folder for compiled code. Returns null if no folder is safe, or if the user's settings decide otherwise. */
export function compileCacheFolder({ environment, home, uid }: User): string | null {
  // Node itself has already acted on these variables.
  if (environment['NODE_DISABLE_COMPILE_CACHE'] !== undefined || environment['NODE_COMPILE_CACHE'] !== undefined) {
    return null;
  }
  if (uid === undefined) return null;
  const given = environment['XDG_CACHE_HOME'] ?? '';
  const base = isAbsolute(given) ? given : join(home, '.cache');
  if (!isAbsolute(base)) return null;
  try {
    // Checked first: nothing is created in a home directory that belongs to another user or does not exist.
    if (!isSafeBelow(realpathSync(dirname(base)), uid)) return null;
    makeFolder(base);
    const real = realpathSync(base);
    if (!isSafeBelow(real, uid)) return null;
    const parent = join(real, 'nbd-sdk');
    makeFolder(parent);
    if (!isOwn(parent, uid, WRITABLE_BY_OTHERS)) return null;
    const folder = join(parent, 'code');
    makeFolder(folder);
    return isOwn(folder, uid, GROUP_OR_OTHERS) ? folder : null;
  } catch {
    // The file system is read-only or full, or access is denied: the program only starts a little more slowly.
    return null;
  }
}

/** Whether only this user and root can replace a folder below `path`. */
function isSafeBelow(path: string, uid: number): boolean {
  for (let at = path; ; at = dirname(at)) {
    const stats = lstatSync(at);
    if (!stats.isDirectory() || (stats.uid !== uid && stats.uid !== 0)) return false;
    if ((stats.mode & WRITABLE_BY_OTHERS) !== 0 && (stats.mode & STICKY) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

/** Whether it is a folder of this user, and others have none of these rights. */
function isOwn(path: string, uid: number, rights: number): boolean {
  const stats = lstatSync(path);
  return stats.isDirectory() && stats.uid === uid && (stats.mode & rights) === 0;
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/**
 * Enables Node's cache, which Node 22.8 and later have; `enable` is undefined before. Returns the folder for other code
 * that V8 has compiled, or null.
 */
export function useCompileCache(enable: ((folder: string) => unknown) | undefined): string | null {
  const uid = process.getuid?.();
  // Not safe in a process with the rights of one user and the environment of another.
  if (uid !== process.geteuid?.()) return null;
  const folder = compileCacheFolder({ environment: process.env, home: homedir(), uid });
  if (folder !== null) enable?.(folder);
  return folder;
}
