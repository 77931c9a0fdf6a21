// Hashes of an export: of all its bytes in order, and of its blocks, where what is known to be zero is neither read nor
// hashed.

import { aFunction, aString, checkOptions, powerOfTwo } from '../../util/option-checks.js';
import { BlockHasher, type BlockHasherOptions, newHash, ZERO_BLOCKS_A_TURN } from './block-hasher.js';
import { pick, type StatusOptions, WORK_CHECKS } from '../options.js';
import { sourceOfConnections } from '../ends/endpoint.js';
import { Source } from '../ends/ends.js';
import { at, checkAllDone } from '../failures.js';
import { type ExportLike, multipleOf } from '../facts.js';
import { inLanes, type Progress, report } from '../lanes.js';
import { chunksOf } from '../streams/read-stream.js';
import { cutRun, knownRuns, type Run } from '../ends/runs.js';

/** What {@link hash} takes. */
export interface HashOptions extends StatusOptions {
  /** A name that `crypto.createHash` knows. Default `sha256`. */
  algorithm?: string;
  /** Use the export's extents to leave out reads of zeroes. Default true. */
  extents?: boolean;
  /** Called as bytes are hashed, zeroes included. */
  onProgress?: (progress: Progress) => void;
  /** Ends the work; the promise rejects with its reason. */
  signal?: AbortSignal;
}

const HASH_OPTIONS = { ...WORK_CHECKS, algorithm: aString, onProgress: aFunction };
const BLOCK_HASH_OPTIONS = { ...HASH_OPTIONS, blockSize: powerOfTwo(1, 2 ** 30) };

/**
 * The hash of all bytes of the export, in hexadecimal: what `sha256sum` prints of a raw copy.
 *
 * @throws NbdStrictError `EINVAL` for bad options, an algorithm that node:crypto does not have among them. What reads
 *   and block status reject with, of its own class and with its own fields. The signal's reason.
 */
export async function hash(connection: ExportLike, options: HashOptions = {}): Promise<string> {
  const checked = checkOptions<HashOptions>('hash', options, HASH_OPTIONS);
  const digest = newHash(checked.algorithm ?? 'sha256', 'hash');
  const abort = new AbortController();
  const signal = checked.signal === undefined ? abort.signal : AbortSignal.any([checked.signal, abort.signal]);
  const reading = { ...pick(checked, 'extents', 'step', 'onStatusError'), signal };
  const { chunks, total } = chunksOf(connection, reading, 'hash');
  signal.throwIfAborted();
  let done = 0n;
  try {
    for await (const chunk of chunks) {
      digest.update(chunk);
      done += BigInt(chunk.length);
      await report(checked.onProgress, { done, total });
      // Holes are made here: without a read there is nothing else that would end it.
      signal.throwIfAborted();
    }
  } finally {
    // Reads that are still in flight after a failure are for nobody.
    abort.abort();
  }
  checkAllDone(done, total, 'hash');
  return digest.digest('hex');
}

/** What {@link blockHash} takes. */
export interface BlockHashOptions extends HashOptions, BlockHasherOptions {}

const DEPTH = 32;
const REQUEST = 512 * 1024;

/**
 * The hash that libblkhash and `nbdcopy --blkhash` make: the hash of the digests of all blocks and the size. It does not
 * depend on how zeroes are stored, and holes are neither read nor hashed. {@link BlockHasher} has the formula.
 *
 * @throws As {@link hash}.
 */
export async function blockHash(connection: ExportLike, options: BlockHashOptions = {}): Promise<string> {
  const checked = checkOptions<BlockHashOptions>('blockHash', options, BLOCK_HASH_OPTIONS);
  const { signal, onProgress } = checked;
  const hasher = new BlockHasher(pick(checked, 'algorithm', 'blockSize'));
  const source = new Source(sourceOfConnections(connection, 'blockHash'), 'blockHash: connection');
  const { size, blocks } = source;
  const requestSize = multipleOf(blocks.minimum, Math.min(REQUEST, blocks.maximum));
  const zeroSize = BigInt(hasher.blockSize) * BigInt(ZERO_BLOCKS_A_TURN);
  const pieces = async function* (): AsyncGenerator<Run> {
    const runs = knownRuns(source, 0n, size, {
      ...pick(checked, 'extents', 'step', 'onStatusError', 'signal'),
      align: blocks.minimum,
      syscall: 'blockHash',
    });
    for await (const run of runs) yield* cutRun(run, run.isZero ? zeroSize : BigInt(requestSize), 1n);
  };
  const buffers: Buffer[] = [];
  let done = 0n;
  const work = async ({ start, end, isZero }: Run, lane: number): Promise<void> => {
    if (isZero) {
      hasher.zero(start, end - start);
      await new Promise<void>((resolve) => void setImmediate(resolve));
    } else {
      const buffer = (buffers[lane] ??= Buffer.allocUnsafeSlow(requestSize)).subarray(0, Number(end - start));
      await at(source.read(buffer, start, lane, signal), 'blockHash', 'read', start, signal);
      hasher.update(start, buffer);
    }
    done += end - start;
    await report(onProgress, { done, total: size });
  };
  await inLanes(pieces(), DEPTH, work, signal);
  return hasher.digest(size, signal);
}
