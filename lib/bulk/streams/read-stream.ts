// An export, or a range of it, as a Readable: several reads are in flight ahead of the consumer, holes are not read.

import { Readable } from 'node:stream';
import type { ByteCount } from '../../client/export.js';
import { aBoolean, checkOptions } from '../../util/option-checks.js';
import { DEPTH_CHECKS, pick, RANGE_CHECKS, SIGNAL_CHECKS, STATUS_CHECKS, type StatusOptions } from '../options.js';
import { sourceOfConnections } from '../ends/endpoint.js';
import { Source } from '../ends/ends.js';
import { type ExportLike, factsOf, multipleOf, rangeOf } from '../facts.js';
import { at } from '../failures.js';
import { type Begun, type CountOrAuto, InFlight } from '../in-flight.js';
import { makeBreather } from '../lanes.js';
import { cutRun, knownRuns } from '../ends/runs.js';

/** What {@link createReadStream} takes. */
export interface ReadStreamOptions extends StatusOptions {
  /** First byte. Default 0. */
  offset?: ByteCount | undefined;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount | undefined;
  /** Bytes of one read, and of a chunk at the most. Default 256 KiB. */
  requestSize?: number | undefined;
  /**
   * Reads in flight, the consumer's chunk included. Default `'auto'`: begins with 16, and raises the bytes in flight
   * while that raises the throughput, up to `queueSize`; chunks do not become longer.
   */
  requests?: CountOrAuto | undefined;
  /** The most bytes in flight. Default `'auto'`: 256 MiB. */
  queueSize?: CountOrAuto | undefined;
  /** Where `base:allocation` was negotiated, make the zeroes of holes here. Default true. */
  extents?: boolean | undefined;
  /** Destroys the stream with its reason. */
  signal?: AbortSignal | undefined;
}

const READ_STREAM_OPTIONS = {
  ...RANGE_CHECKS,
  ...DEPTH_CHECKS,
  ...SIGNAL_CHECKS,
  ...STATUS_CHECKS,
  extents: aBoolean,
};

const DEFAULT_REQUEST = 256 * 1024;
const DEFAULT_DEPTH = 16;

/**
 * Reads an export in order. The connection stays open when the stream ends. A range need not be aligned to the server's
 * minimum block size.
 *
 * @throws NbdStrictError `EINVAL` for bad options and when the range leaves the export. What goes wrong later destroys
 *   the stream.
 *
 * @example
 * await pipeline(createReadStream(connection), createGzip(), createWriteStream('disk.img.gz'));
 */
export function createReadStream(connection: ExportLike, options: ReadStreamOptions = {}): Readable {
  const syscall = 'createReadStream';
  const checked = checkOptions<ReadStreamOptions>(syscall, options, READ_STREAM_OPTIONS);
  const abort = new AbortController();
  const signal = checked.signal === undefined ? abort.signal : AbortSignal.any([checked.signal, abort.signal]);
  const { requestSize, chunks } = chunksOf(connection, { ...checked, signal }, syscall);
  return new Readable({
    highWaterMark: requestSize,
    ...pick(checked, 'signal'),
    read() {
      chunks.next().then(
        ({ done, value }) => this.push(done === true ? null : value.bytes),
        (error: unknown) => this.destroy(error as Error),
      );
    },
    // Does not wait for the reads in flight: their bytes are no longer needed.
    destroy(error, callback) {
      abort.abort(error ?? new Error('the stream was destroyed'));
      chunks.return().catch(() => undefined);
      callback(error);
    },
  });
}

/** Bytes of a stream, and whether they were only known to be zero, and not read. */
export interface Chunk {
  readonly bytes: Buffer;
  readonly isZero: boolean;
}

type Chunks = AsyncGenerator<Chunk, void, undefined>;

/** The bytes of a range in order, zeroes included, with reads ahead; the options have been checked. */
export function chunksOf(
  connection: ExportLike,
  options: ReadStreamOptions,
  syscall: string,
): { readonly requestSize: number; readonly start: bigint; readonly total: bigint; readonly chunks: Chunks } {
  const facts = factsOf(connection, syscall);
  const [start, end] = rangeOf(facts.size, options, syscall);
  const source = new Source(sourceOfConnections(connection, syscall), `${syscall}: connection`);
  const requestSize = multipleOf(facts.minimum, Math.min(options.requestSize ?? DEFAULT_REQUEST, facts.maximum));
  const reads = readsOf(source, start, end, requestSize, options, syscall);
  const inFlight = new InFlight({ requestSize, ...pick(options, 'requests', 'queueSize'), start: DEFAULT_DEPTH });
  return { requestSize, start, total: end - start, chunks: readAhead(reads, inFlight) };
}

/** Reads begin as pieces are taken; what is given out comes in order. */
async function* readAhead(reads: AsyncGenerator<() => Promise<Chunk>>, inFlight: InFlight): Chunks {
  const queue: { readonly reading: Promise<Chunk>; readonly begun: Begun }[] = [];
  const breathe = makeBreather();
  try {
    for (;;) {
      // Zeroes are there at once, for as long as there are any.
      const pause = breathe();
      if (pause !== null) await pause;
      while (queue.length < inFlight.limit) {
        const next = await reads.next();
        if (next.done === true) break;
        const begun = inFlight.begin();
        const reading = next.value();
        // A failure is looked at when its turn comes.
        reading.then(
          () => inFlight.arrived(begun),
          () => undefined,
        );
        queue.push({ reading, begun });
      }
      const [first] = queue;
      if (first === undefined) return;
      // Reads that nothing waits for are as many as pay already.
      if (first.begun.took === null) for (const { begun } of queue) begun.isAwaited = true;
      const chunk = await first.reading;
      queue.shift();
      if (!chunk.isZero) inFlight.moved(chunk.bytes.length, first.begun.isAwaited ? first.begun : undefined);
      yield chunk;
    }
  } finally {
    await reads.return(undefined);
  }
}

async function* readsOf(
  source: Source,
  start: bigint,
  end: bigint,
  requestSize: number,
  options: ReadStreamOptions,
  syscall: string,
): AsyncGenerator<() => Promise<Chunk>> {
  const { signal } = options;
  const align = source.blocks.minimum;
  const read = async (offset: bigint, count: number): Promise<Chunk> => {
    const buffer = Buffer.allocUnsafeSlow(count);
    await at(source.read(buffer, offset, 0, signal), syscall, 'read', offset, signal);
    return { bytes: buffer, isZero: false };
  };
  const known = knownRuns(source, start, end, {
    ...pick(options, 'extents', 'step', 'questions', 'onStatusError', 'signal'),
    align,
    syscall,
  });
  for await (const run of known) {
    for (const piece of cutRun(run, BigInt(requestSize), BigInt(align))) {
      const count = Number(piece.end - piece.start);
      // A consumer may change its chunk, so that each gets its own.
      yield () =>
        run.isZero ? Promise.resolve({ bytes: Buffer.alloc(count), isZero: true }) : read(piece.start, count);
    }
  }
}
