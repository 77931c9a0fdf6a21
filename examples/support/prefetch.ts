// Asks the server to prefetch a whole export, piece by piece, with a bounded number of pieces under way.
import { type NbdConnection } from 'nbd-sdk';

export interface PrefetchOptions {
  /** Bytes per command: a multiple of every server's block size, and below every server's limit. */
  readonly pieceSize?: number;
  /** Commands under way at a time; an export of a TiB has a million pieces, and must not become a million promises. */
  readonly depth?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: bigint, size: bigint) => void;
}

/** Resolves with the number of commands; rejects with the first failure, after which no further piece is begun. */
export async function prefetch(connection: NbdConnection, options: PrefetchOptions = {}): Promise<number> {
  const { pieceSize = 1024 * 1024, depth = 8, signal, onProgress } = options;
  const size = connection.getSize();
  let next = 0n;
  let done = 0n;
  let commands = 0;

  async function work(): Promise<void> {
    while (next < size) {
      const offset = next;
      const left = size - offset;
      const count = left < pieceSize ? left : BigInt(pieceSize);
      next += count;
      commands++;
      try {
        await connection.cache(count, offset, 0, signal);
      } catch (error) {
        next = size;
        throw error;
      }
      done += count;
      onProgress?.(done, size);
    }
  }

  await Promise.all(Array.from({ length: depth }, work));
  return commands;
}
