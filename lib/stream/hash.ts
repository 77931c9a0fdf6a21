// Hashes of an export: of all its bytes in order, and of its blocks, where what is known to be zero is neither read nor
// hashed.

import type { NbdConnection } from '../client/connection.js';
import { BlockHasher, type BlockHasherOptions, newHash, ZERO_BLOCKS_A_TURN } from './block-hasher.js';
import { exportSource, type ZeroRun } from './endpoint.js';
import { inLanes, type Progress } from './lanes.js';
import { createReadStream } from './read-stream.js';

/** What {@link hash} and {@link blockHash} take. */
export interface HashOptions {
  /** A name that `crypto.createHash` knows. Default `sha256`. */
  algorithm?: string;
  /** Use the export's extents to leave out reads of zeroes. Default true. */
  extents?: boolean;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** The hash of all bytes of the export, in hexadecimal: what `sha256sum` says of a raw copy. */
export async function hash(connection: NbdConnection, options: HashOptions = {}): Promise<string> {
  const { algorithm = 'sha256', onProgress, signal, extents } = options;
  const digest = newHash(algorithm, 'hash');
  const total = connection.getSize();
  let done = 0n;
  const stream = createReadStream(connection, {
    ...(signal === undefined ? {} : { signal }),
    ...(extents === undefined ? {} : { extents }),
  });
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      digest.update(chunk);
      done += BigInt(chunk.length);
      onProgress?.({ done, total });
    }
  } catch (error) {
    // A stream ends with an AbortError of its own.
    signal?.throwIfAborted();
    throw error;
  }
  return digest.digest('hex');
}

/** What {@link blockHash} takes. */
export interface BlockHashOptions extends HashOptions, BlockHasherOptions {}

const DEPTH = 32;
const REQUEST = 512 * 1024;

/**
 * The hash that libblkhash and `nbdcopy --blkhash` make: the hash of the digests of all blocks and the size. It does not
 * depend on how zeroes are stored, and holes are neither read nor hashed. {@link BlockHasher} has the formula.
 */
export async function blockHash(connection: NbdConnection, options: BlockHashOptions = {}): Promise<string> {
  const { algorithm, blockSize, onProgress, signal } = options;
  const hasher = new BlockHasher({
    ...(algorithm === undefined ? {} : { algorithm }),
    ...(blockSize === undefined ? {} : { blockSize }),
  });
  const source = exportSource(connection);
  const { size } = source;
  const buffers: Buffer[] = [];
  let done = 0;
  const runs =
    options.extents === false || source.zeroRuns === undefined || size === 0
      ? [{ offset: 0, length: size, isZero: false }]
      : source.zeroRuns(0, size, signal);
  await inLanes(
    pieces(runs, hasher.blockSize * ZERO_BLOCKS_A_TURN),
    DEPTH,
    async ({ offset, length, isZero }, lane) => {
      signal?.throwIfAborted();
      if (isZero) {
        hasher.zero(offset, length);
        await new Promise<void>((resolve) => void setImmediate(resolve));
      } else {
        const buffer = (buffers[lane] ??= Buffer.allocUnsafeSlow(REQUEST)).subarray(0, length);
        await source.read(buffer, offset, lane, signal);
        hasher.update(offset, buffer);
      }
      done += length;
      onProgress?.({ done: BigInt(done), total: BigInt(size) });
    },
  );
  return hasher.digest(size, signal);
}

async function* pieces(runs: AsyncIterable<ZeroRun> | Iterable<ZeroRun>, zeroes: number): AsyncGenerator<ZeroRun> {
  for await (const run of runs) {
    const most = run.isZero ? zeroes : REQUEST;
    for (let at = 0; at < run.length; at += most) {
      yield { offset: run.offset + at, length: Math.min(most, run.length - at), isZero: run.isZero };
    }
  }
}
