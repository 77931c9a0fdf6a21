// Files that a command writes as its result: there as a whole or not at all.

import { randomUUID } from 'node:crypto';
import { type FileHandle, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { CliError } from '../errors.js';
import { systemReason } from '../../util/system-reason.js';

/** Writes a file that is there as a whole or not at all; what was there before stays if it fails. */
export async function writeWhole(path: string, text: string): Promise<void> {
  try {
    await replace(path, text);
  } catch (cause) {
    throw new CliError(`${path}: ${systemReason(cause)}`, { cause });
  }
}

async function replace(path: string, text: string): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const found = await stat(target).catch(() => null);
  if (found !== null && !found.isFile()) {
    // A device or a pipe has no other name to write to.
    await written(await open(target, 'w'), text);
    return;
  }
  const fresh = `${target}.${randomUUID()}.part`;
  try {
    await written(await open(fresh, 'wx', (found?.mode ?? 0o666) & 0o777), text);
    await rename(fresh, target);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}

/** Closes the file, too: some file systems report only then that there is no room. */
async function written(file: FileHandle, text: string): Promise<void> {
  try {
    await file.writeFile(text);
  } finally {
    await file.close();
  }
}
