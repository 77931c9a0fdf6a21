// Node's compile cache, which runs what it finds: only ever in a folder that this user alone can write to. Node's own
// default is one in the temporary folder, which any user of the machine may have made first.

import { lstatSync, mkdirSync, realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

type Environment = Readonly<Record<string, string | undefined>>;

export interface User {
  readonly environment: Environment;
  readonly home: string;
  /** Undefined where the system has no such numbers: permissions cannot be checked then. */
  readonly uid: number | undefined;
}

const GROUP_OR_OTHERS = 0o077;
const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

/** A folder for compiled code; null where none is safe, or where the user has decided otherwise. Makes it. */
export function compileCacheFolder({ environment, home, uid }: User): string | null {
  // Node has done by itself what these say.
  if (environment['NODE_DISABLE_COMPILE_CACHE'] !== undefined || environment['NODE_COMPILE_CACHE'] !== undefined) {
    return null;
  }
  if (uid === undefined) return null;
  const given = environment['XDG_CACHE_HOME'] ?? '';
  const base = isAbsolute(given) ? given : join(home, '.cache');
  if (!isAbsolute(base)) return null;
  try {
    // Looked at first: nothing is made in a home that is another user's, or that is not there.
    if (!isSafeBelow(realpathSync(dirname(base)), uid)) return null;
    makeFolder(base);
    const real = realpathSync(base);
    if (!isSafeBelow(real, uid)) return null;
    const folder = join(real, 'nbd-sdk');
    makeFolder(folder);
    const stats = lstatSync(folder);
    return stats.isDirectory() && stats.uid === uid && (stats.mode & GROUP_OR_OTHERS) === 0 ? folder : null;
  } catch {
    // Read-only, full, or not permitted: a program that starts a little later.
    return null;
  }
}

/** Whether nobody but this user and root can put another folder in the place of one below `path`. */
function isSafeBelow(path: string, uid: number): boolean {
  for (let at = path; ; at = dirname(at)) {
    const stats = lstatSync(at);
    if (!stats.isDirectory() || (stats.uid !== uid && stats.uid !== 0)) return false;
    if ((stats.mode & WRITABLE_BY_OTHERS) !== 0 && (stats.mode & STICKY) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** Node 22.8 and later keep compiled code between runs. */
export function useCompileCache(enable: ((folder: string) => unknown) | undefined): void {
  if (enable === undefined) return;
  const uid = process.getuid?.();
  // With the rights of one user and the environment of another nothing is safe.
  if (uid !== process.geteuid?.()) return;
  const folder = compileCacheFolder({ environment: process.env, home: homedir(), uid });
  if (folder !== null) enable(folder);
}
