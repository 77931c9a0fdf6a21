// Pipes, terminals and other files without offsets that are given by a path. A blocking open, read or write would occupy a
// thread of the pool and delay even the exit of the process. So they are opened without blocking, and read and written
// by events.

import { close, constants as fs, open, type Stats } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { isatty, ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import { readDescriptor, writeAll } from '../output/standard-io.js';

const POLL_DELAY = 10;

/** An open file that is read or written in order. */
export interface Flow {
  readonly fd: number;
  readonly isTerminal: boolean;
  /** A stream of everything up to the end. */
  readable(): Readable;
  write(bytes: Buffer): Promise<void>;
  /** Closes the file. Rejects with an error that the system reports only then. */
  close(): Promise<void>;
}

/** Opens a file for reading or writing. Rejects with the system's error, or with the reason of the signal. */
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
      // The FIFO has no reader yet.
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
