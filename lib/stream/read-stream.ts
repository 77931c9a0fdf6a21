// An export, or a range of it, as a Readable: several reads are in flight ahead of the consumer, holes are not read.

import { Readable } from 'node:stream';
import type { ByteCount, NbdConnection } from '../client/connection.js';
import { STATE_ZERO } from '../protocol/client-constants.js';
import { checkRange, extents } from './extents.js';
import { hasAllocation, limitedRequest } from './prefetch.js';

/** What {@link createReadStream} takes. */
export interface ReadStreamOptions {
  /** First byte. Default 0. */
  offset?: ByteCount;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount;
  /** Bytes of one read, and of a chunk at the most. Default 256 KiB. */
  requestSize?: number;
  /** Reads in flight, the consumer's chunk included. Default 16. */
  requests?: number;
  /** Where `base:allocation` was negotiated, make the zeroes of holes here. Default true. */
  extents?: boolean;
  /** Destroys the stream with its reason. */
  signal?: AbortSignal;
}

const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_DEPTH = 16;

/**
 * Reads an export in order. The connection stays open when the stream ends.
 *
 * @throws NbdStrictError `EINVAL` when the range leaves the export. What goes wrong later destroys the stream.
 *
 * @example
 * await pipeline(createReadStream(connection), createGzip(), createWriteStream('disk.img.gz'));
 */
export function createReadStream(connection: NbdConnection, options: ReadStreamOptions = {}): Readable {
  const requestSize = limitedRequest(connection, options.requestSize ?? DEFAULT_REQUEST);
  const [start, end] = checkRange(connection, options, 'createReadStream');
  const abort = new AbortController();
  const signal = options.signal === undefined ? abort.signal : AbortSignal.any([options.signal, abort.signal]);
  const chunks = readAhead(pieces(connection, options, start, end, requestSize, signal), options.requests);
  return Readable.from(chunks, {
    objectMode: false,
    highWaterMark: requestSize,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    // The reads in flight are not waited for: nobody wants their bytes any more.
    destroy(error, callback) {
      abort.abort(error ?? new Error('the stream was destroyed'));
      callback(error);
    },
  });
}

/** Reads begin as pieces are taken; what is given out comes in order. */
async function* readAhead(
  source: AsyncGenerator<() => Promise<Buffer>>,
  depth = DEFAULT_DEPTH,
): AsyncGenerator<Buffer, void, undefined> {
  const queue: Promise<Buffer>[] = [];
  try {
    for (;;) {
      while (queue.length < depth) {
        const next = await source.next();
        if (next.done === true) break;
        const reading = next.value();
        // It is looked at when its turn comes.
        reading.catch(() => undefined);
        queue.push(reading);
      }
      const first = queue.shift();
      if (first === undefined) return;
      yield await first;
    }
  } finally {
    await source.return(undefined);
  }
}

async function* pieces(
  connection: NbdConnection,
  options: ReadStreamOptions,
  start: bigint,
  end: bigint,
  requestSize: number,
  signal: AbortSignal,
): AsyncGenerator<() => Promise<Buffer>> {
  const useExtents = options.extents !== false && hasAllocation(connection) && start < end;
  const runs = useExtents
    ? extents(connection, { offset: start, length: end - start, signal })
    : [{ offset: start, length: end - start, flags: 0n }];
  for await (const { offset, length, flags } of runs) {
    const isZero = (flags & BigInt(STATE_ZERO)) !== 0n;
    for (let done = 0n; done < length; done += BigInt(requestSize)) {
      const count = Number(length - done < BigInt(requestSize) ? length - done : BigInt(requestSize));
      if (isZero) {
        // A consumer may change its chunk, so that each gets its own.
        yield () => Promise.resolve(Buffer.alloc(count));
      } else {
        const at = offset + done;
        yield () => connection.pread(count, at, 0, signal);
      }
    }
  }
}
