// Hashes of an export: of all its bytes in order, and of its blocks, where blocks that are known to be zero are neither
// read nor hashed.

import type { NbdConnection } from '../client/connection.js';
import { exportSource, type ZeroRun } from './endpoint.js';
import { inLanes, type Progress } from './lanes.js';
import { createReadStream } from './read-stream.js';
import { isAllZero } from './zeroes.js';

/** What {@link hash} and {@link blockHash} take. */
export interface HashOptions {
  /** A name that `crypto.createHash` knows. Default `sha256`. */
  algorithm?: string;
  /** Use the export's extents to leave out reads of zeroes. Default true. */
  extents?: boolean;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** Node's crypto takes a while to load, and most who import this package never hash. */
const loadCrypto = async () => import('node:crypto');

/** The hash of all bytes of the export, in hexadecimal: what `sha256sum` says of a raw copy. */
export async function hash(connection: NbdConnection, options: HashOptions = {}): Promise<string> {
  const { algorithm = 'sha256', onProgress, signal, extents } = options;
  const { createHash } = await loadCrypto();
  const digest = createHash(algorithm);
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

const BLOCK = 64 * 1024;
const DEPTH = 32;
/** Blocks of one read. */
const BATCH = 8;
/** Digests of zero blocks that are hashed at once. */
const MANY = 1024;

/**
 * A hash that does not depend on how zeroes are stored, and costs nothing for holes. Not the hash of the bytes: the
 * export is cut into blocks of 64 KiB, the last one filled up with zeroes; the hash of the text
 * `nbd-block-hash 1 ALGORITHM SIZE` and a newline, followed by the digests of all blocks in order, is the result. The
 * digest of a block of zeroes is computed once.
 */
export async function blockHash(connection: NbdConnection, options: HashOptions = {}): Promise<string> {
  const { algorithm = 'sha256', onProgress, signal } = options;
  const { createHash } = await loadCrypto();
  const source = exportSource(connection);
  const { size } = source;
  const digestOf = (block: Buffer): Buffer => createHash(algorithm).update(block).digest();
  const zero = digestOf(Buffer.alloc(BLOCK));
  const manyZeroes = Buffer.concat(Array.from({ length: MANY }, () => zero));
  const whole = createHash(algorithm).update(`nbd-block-hash 1 ${algorithm} ${size}\n`);

  // Reads end in any order; digests are taken in the order of the blocks.
  const ready = new Map<number, Buffer>();
  const sizes = new Map<number, number>();
  let next = 0;
  const buffers: Buffer[] = [];
  let done = 0;
  const work = async (batch: Batch, lane: number): Promise<void> => {
    signal?.throwIfAborted();
    if (batch.isZero) {
      ready.set(batch.index, EMPTY);
      sizes.set(batch.index, batch.blocks);
    } else {
      const buffer = (buffers[lane] ??= Buffer.allocUnsafeSlow(BLOCK * BATCH));
      const length = Math.min(batch.blocks * BLOCK, size - batch.offset);
      await source.read(buffer.subarray(0, length), batch.offset, lane, signal);
      buffer.fill(0, length, batch.blocks * BLOCK);
      const digests = Array.from({ length: batch.blocks }, (_, at) => {
        const [start, end] = [at * BLOCK, (at + 1) * BLOCK];
        return isAllZero(buffer, start, end) ? zero : digestOf(buffer.subarray(start, end));
      });
      ready.set(batch.index, Buffer.concat(digests));
    }
    for (let found = ready.get(next); found !== undefined; found = ready.get(next)) {
      if (found !== EMPTY) whole.update(found);
      for (let rest = sizes.get(next) ?? 0; rest > 0; rest -= MANY) {
        whole.update(rest >= MANY ? manyZeroes : manyZeroes.subarray(0, rest * zero.length));
      }
      ready.delete(next);
      sizes.delete(next);
      next++;
    }
    done = Math.min(done + batch.blocks * BLOCK, size);
    onProgress?.({ done: BigInt(done), total: BigInt(size) });
  };
  const runs =
    options.extents === false || source.zeroRuns === undefined || size === 0
      ? [{ offset: 0, length: size, isZero: false }]
      : source.zeroRuns(0, size, signal);
  await inLanes(batches(runs, size), DEPTH, work);
  return whole.digest('hex');
}

const EMPTY = Buffer.alloc(0);

interface Batch {
  readonly index: number;
  readonly offset: number;
  readonly blocks: number;
  readonly isZero: boolean;
}

/** Blocks in batches: any number of whole zero blocks, or up to BATCH others. */
async function* batches(runs: AsyncIterable<ZeroRun> | Iterable<ZeroRun>, size: number): AsyncGenerator<Batch> {
  const count = Math.ceil(size / BLOCK);
  let index = 0;
  let block = 0;
  const take = function* (until: number, isZero: boolean): Generator<Batch> {
    while (block < until) {
      const blocks = isZero ? until - block : Math.min(until - block, BATCH);
      yield { index: index++, offset: block * BLOCK, blocks, isZero };
      block += blocks;
    }
  };
  for await (const run of runs) {
    if (!run.isZero) continue;
    // Only blocks that lie in the run as a whole; the last block may end with the export.
    const first = Math.ceil(run.offset / BLOCK);
    const end = run.offset + run.length;
    const last = end === size ? count : Math.floor(end / BLOCK);
    if (last <= first) continue;
    yield* take(first, false);
    yield* take(last, true);
  }
  yield* take(count, false);
}
