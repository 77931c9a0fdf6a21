// A checkpoint in a file: replaced by renaming, so that after a crash there is the old one or the new one.

import { open, readFile, rename, unlink } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { ByteCount } from '../../client/export.js';
import { NbdError } from '../../errors.js';
import { aString, byteCount, checkOptions, refuse } from '../../util/option-checks.js';
import type { CheckpointStore } from './checkpoint.js';

/** What {@link fileCheckpoint} takes. */
export interface FileCheckpointOptions {
  /**
   * Bytes that are copied, at the most, between two checkpoints: no more than these are read again by a copy that goes
   * on. Each checkpoint costs a flush of the destination. Default 256 MiB.
   */
  every?: ByteCount | undefined;
}

/**
 * Keeps the checkpoint of a copy in a file, which is removed when the copy is complete. Its user alone can read it. The
 * file and its folder are put on permanent storage each time, by way of `PATH.nbd-tmp`.
 *
 * @throws NbdStrictError `EINVAL` for bad options.
 *
 * @example
 * await copy(from, to, { checkpoint: fileCheckpoint('disk.checkpoint') });
 */
export function fileCheckpoint(path: string, options: FileCheckpointOptions = {}): Required<CheckpointStore> {
  if (aString('fileCheckpoint: path', path) === '') throw refuse('fileCheckpoint: path', 'must not be empty');
  const { every = 256 * 1024 * 1024 } = checkOptions<FileCheckpointOptions>('fileCheckpoint', options, {
    every: byteCount(1),
  });
  // The working directory may change meanwhile.
  const file = resolve(path);
  const temporary = `${file}.nbd-tmp`;
  return {
    every,
    load: () => attempt('read', path, async () => readFile(file, 'utf8').catch(ifThere)),
    save: (text) =>
      attempt('write', path, async () => {
        const handle = await open(temporary, 'w', 0o600);
        try {
          await handle.writeFile(text);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, file);
        await syncFolder(file);
      }),
    clear: () =>
      attempt('remove', path, async () => {
        await unlink(file).catch(ifThere);
        await syncFolder(file);
      }),
  };
}

function ifThere(error: unknown): null {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
  throw error;
}

/** The name, too, must survive a loss of power. */
async function syncFolder(file: string): Promise<void> {
  // Windows has no such thing.
  if (process.platform === 'win32') return;
  const folder = await open(dirname(file), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function attempt<Result>(what: string, path: string, act: () => Promise<Result>): Promise<Result> {
  try {
    return await act();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new NbdError(`fileCheckpoint: cannot ${what} ${path}: ${message}`, {
      code: code ?? 'EIO',
      syscall: 'fileCheckpoint',
      cause,
    });
  }
}
