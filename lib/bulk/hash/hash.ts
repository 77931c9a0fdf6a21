// Hashes of an export: of all its bytes in order, and of its blocks, where what is known to be zero is neither read nor
// hashed.

import type { ByteCount } from '../../client/export.js';
import { aFunction, aString, checkOptions, powerOfTwo } from '../../util/option-checks.js';
import { inNextTurn } from '../../util/timers.js';
import { allocateForReads } from '../../util/memory.js';
import { BlockHasher, type BlockHasherOptions, newHash, ZERO_BLOCKS_A_TURN } from './block-hasher.js';
import { pick, RANGE_CHECKS, type StatusOptions, WORK_CHECKS } from '../options.js';
import { sourceOfConnections } from '../ends/endpoint.js';
import { Source } from '../ends/ends.js';
import { at, checkAllDone } from '../failures.js';
import { type ExportLike, multipleOf, rangeOf } from '../facts.js';
import { InFlight } from '../in-flight.js';
import { inLanes } from '../lanes.js';
import { type Progress, ProgressMeter } from '../progress.js';
import { chunksOf } from '../streams/read-stream.js';
import { knownRuns, type Run } from '../ends/runs.js';

/** What {@link hash} takes. */
export interface HashOptions extends StatusOptions {
  /** First byte. Default 0. */
  offset?: ByteCount | undefined;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount | undefined;
  /** A name that `crypto.createHash` knows. Default `sha256`. */
  algorithm?: string | undefined;
  /** Use the export's extents to leave out reads of zeroes. Default true. */
  extents?: boolean | undefined;
  /** Called as bytes are hashed, zeroes included. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Ends the work; the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
}

const HASH_OPTIONS = { ...WORK_CHECKS, ...RANGE_CHECKS, algorithm: aString, onProgress: aFunction };
const BLOCK_HASH_OPTIONS = { ...HASH_OPTIONS, blockSize: powerOfTwo(1, 2 ** 30) };

/**
 * The hash of all bytes of the export, or of a range of it, in hexadecimal: what `sha256sum` prints of a raw copy.
 *
 * @throws NbdStrictError `EINVAL` for bad options, an algorithm that node:crypto does not have among them, and for a range
 *   that leaves the export. What reads and block status reject with, of its own class and with its own fields. The signal's reason.
 */
export async function hash(connection: ExportLike, options: HashOptions = {}): Promise<string> {
  const checked = checkOptions<HashOptions>('hash', options, HASH_OPTIONS);
  const digest = newHash(checked.algorithm ?? 'sha256', 'hash');
  const abort = new AbortController();
  const signal = checked.signal === undefined ? abort.signal : AbortSignal.any([checked.signal, abort.signal]);
  const reading = { ...pick(checked, 'extents', 'step', 'questions', 'onStatusError', 'offset', 'length'), signal };
  const { chunks, total, start } = chunksOf(connection, reading, 'hash');
  signal.throwIfAborted();
  let done = 0n;
  const progress = new ProgressMeter(checked.onProgress, { total, at: start });
  try {
    for await (const { bytes: chunk, isZero } of chunks) {
      digest.update(chunk);
      done += BigInt(chunk.length);
      await progress.piece(start + done, done, isZero ? 0 : chunk.length);
      // Holes are made here: without a read there is nothing else that would end it.
      signal.throwIfAborted();
    }
  } finally {
    // After a failure, the reads still in flight are aborted.
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
 * The hash that libblkhash and `nbdcopy --blkhash` make, of the export or of a range of it: the hash of the digests of all blocks and the size. It does not
 * depend on how zeroes are stored, and holes are neither read nor hashed. {@link BlockHasher} has the formula.
 *
 * @throws As {@link hash}.
 */
export async function blockHash(connection: ExportLike, options: BlockHashOptions = {}): Promise<string> {
  const checked = checkOptions<BlockHashOptions>('blockHash', options, BLOCK_HASH_OPTIONS);
  const { signal, onProgress } = checked;
  const hasher = new BlockHasher(pick(checked, 'algorithm', 'blockSize'));
  const source = new Source(sourceOfConnections(connection, 'blockHash'), 'blockHash: connection');
  const { blocks } = source;
  const [start, end] = rangeOf(source.size, checked, 'blockHash');
  const size = end - start;
  const requestSize = multipleOf(blocks.minimum, Math.min(REQUEST, blocks.maximum));
  const inFlight = new InFlight({
    requestSize,
    longestRequest: multipleOf(blocks.minimum, blocks.maximum),
    start: DEPTH,
  });
  const zeroSize = BigInt(hasher.blockSize) * BigInt(ZERO_BLOCKS_A_TURN);
  const pieces = async function* (): AsyncGenerator<Run> {
    const runs = knownRuns(source, start, end, {
      ...pick(checked, 'extents', 'step', 'questions', 'onStatusError', 'signal'),
      align: blocks.minimum,
      syscall: 'blockHash',
    });
    for await (const run of runs) {
      // A request ends where a block does, but for those of the end: the length may change from one to the next.
      for (let first = run.start; first < run.end;) {
        const most = run.isZero ? zeroSize : BigInt(inFlight.requestSize);
        const next = first + most - (run.isZero ? 0n : first % BigInt(blocks.minimum));
        const last = next < run.end ? next : run.end;
        yield { start: first, end: last, isZero: run.isZero };
        first = last;
      }
    }
  };
  const buffers: (Buffer | undefined)[] = [];
  let done = 0n;
  const progress = new ProgressMeter(onProgress, { total: size, at: start });
  const work = async (run: Run, lane: number): Promise<void> => {
    const length = Number(run.end - run.start);
    if (run.isZero) {
      hasher.zero(run.start - start, run.end - run.start);
      await new Promise<void>(inNextTurn);
    } else {
      let buffer = buffers[lane];
      if (buffer === undefined || buffer.length < length) {
        buffer = allocateForReads(Math.max(length, inFlight.requestSize));
        buffers[lane] = buffer;
      }
      const bytes = buffer.subarray(0, length);
      const begun = inFlight.begin();
      await at(source.read(bytes, run.start, lane, signal), 'blockHash', 'read', run.start, signal);
      hasher.update(run.start - start, bytes);
      inFlight.moved(length, begun);
    }
    done += run.end - run.start;
    await progress.piece(run.end, done, run.isZero ? 0 : length);
  };
  await inLanes(pieces(), inFlight, work, signal, (lane) => {
    buffers[lane] = undefined;
  });
  return hasher.digest(size, signal);
}
