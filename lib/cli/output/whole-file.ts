// Writes a file that is the result of a command, completely or not at all.

import { randomUUID } from 'node:crypto';
import { type FileHandle, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { CliError } from '../errors.js';
import { systemReason } from '../../util/system-reason.js';

/** Writes a file completely or not at all. If this fails, a file that existed before is unchanged. */
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
    // A device or a pipe cannot be replaced by renaming another file.
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

/** Writes and closes the file: some file systems report a lack of space only on close. */
async function written(file: FileHandle, text: string): Promise<void> {
  try {
    await file.writeFile(text);
  } finally {
    await file.close();
  }
}
