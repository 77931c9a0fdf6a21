// What specs build of the sources is kept in node_modules/.cache, from where the package's dependencies are found.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { ROOT } from './root.js';

const CACHE = join(ROOT, 'node_modules/.cache');
const HOUR = 3_600_000;

/** A folder that `make` fills once for each state of lib/ and of the other files that it depends on. */
export async function cachedBuild(
  name: string,
  inputs: readonly string[],
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const lib = (await readdir(join(ROOT, 'lib'), { recursive: true })).filter((path) => path.endsWith('.ts')).sort();
  const files = [...inputs, ...lib.map((path) => join('lib', path))];
  const texts = await Promise.all(files.map((path) => readFile(join(ROOT, path), 'utf8')));
  return keptBuild(name, files.map((path, at) => `${path}\0${texts[at] ?? ''}\0`).join(''), make);
}

/** A folder that `make` fills once for each `state`. */
export async function keptBuild(
  name: string,
  state: string | Uint8Array,
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const cache = join(CACHE, name);
  const id = createHash('sha256').update(state).digest('hex').slice(0, 16);
  const folder = join(cache, id);
  if (existsSync(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const fresh = await mkdtemp(join(cache, 'new-'));
  try {
    await make(fresh);
    // Another worker may have been faster with the same.
    await rename(fresh, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error;
    });
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  for (const other of await readdir(cache)) {
    const path = join(cache, other);
    const age = Date.now() - (await stat(path).catch(() => ({ mtimeMs: Date.now() }))).mtimeMs;
    if (other !== id && age > HOUR) await rm(path, { recursive: true, force: true });
  }
  return folder;
}
