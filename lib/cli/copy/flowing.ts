// Pipes, terminals and other things without places that are given by a path. A descriptor that waits for its peer would
// occupy a thread of the pool, and hold up even the exit of the process; so they are opened without waiting, and read
// and written by events.

import { close, constants as fs, open, type Stats } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { isatty, ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import { readDescriptor, writeAll } from '../output/standard-io.js';

const POLL_DELAY = 10;

/** An open end in order. */
export interface Flow {
  readonly fd: number;
  readonly isTerminal: boolean;
  /** Everything to its end. */
  readable(): Readable;
  write(bytes: Buffer): Promise<void>;
  /** Closes it; rejects with what the system reports only then. */
  close(): Promise<void>;
}

/** Opens it for reading or writing. Rejects with the system's error, or the signal's reason. */
export async function openFlow(path: string, stats: Stats, write: boolean, signal: AbortSignal): Promise<Flow> {
  const fd = await openWithoutWaiting(path, stats, write, signal);
  const isTerminal = isatty(fd);
  let socket: Socket | null = null;
  if (stats.isFIFO()) socket = new Socket({ fd, readable: !write, writable: write });
  else if (isTerminal && !write) socket = new ReadStream(fd);
  socket?.on('error', () => undefined);
  return {
    fd,
    isTerminal,
    readable: () => socket ?? readDescriptor(fd, path),
    write: (bytes) => (socket === null ? writeAll(fd, bytes) : sent(socket, bytes)),
    close: async () => {
      if (socket === null) await promisify(close)(fd);
      else socket.destroy();
    },
  };
}

async function openWithoutWaiting(path: string, stats: Stats, write: boolean, signal: AbortSignal): Promise<number> {
  const flags = (write ? fs.O_WRONLY : fs.O_RDONLY) | (stats.isFIFO() ? fs.O_NONBLOCK : 0) | fs.O_NOCTTY;
  for (;;) {
    try {
      return await promisify(open)(path, flags);
    } catch (error) {
      // Nobody reads from the fifo yet.
      if (!stats.isFIFO() || !write || (error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    await sleep(POLL_DELAY, undefined, { signal });
  }
}

const sent = (socket: Socket, bytes: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.write(bytes, (error) => {
      if (error == null) resolve();
      else reject(error);
    });
  });
