// The work on one range. Invariant: it resolves only when every byte of the range was gone through, and, where bytes were
// written, when the server has them on permanent storage, if it can do that.

import { compare } from '../../bulk/compare.js';
import { copy } from '../../bulk/copy.js';
import { hash } from '../../bulk/hash/hash.js';
import { changes } from '../../bulk/maps/changes.js';
import { prefetch } from '../../bulk/prefetch.js';
import type { GivenRange } from '../../bulk/ranges.js';
import { NbdError } from '../../errors.js';
import type { NbdPool } from '../../pool/pool.js';
import { checkSize, type EndOptions, type FleetEnd, openEnd, refused } from '../ends.js';
import { type CheckedJob, isPair, isWriting } from '../job.js';
import { placeOf } from '../ranges/cells.js';
import type { RangeData } from '../ranges/queued.js';
import { FencedExport } from './fenced-export.js';
import type { Lease } from './lease.js';

/** What a range is worked on with. */
export interface RangeWork {
  readonly job: CheckedJob;
  readonly range: RangeData;
  /** Sizes when it was planned. */
  readonly size: bigint;
  readonly destinationSize: bigint;
  readonly lease: Lease;
  readonly ends: EndOptions;
  readonly queueSize: number;
  readonly checkpoint: {
    readonly every: number;
    load(): Promise<string | null>;
    save(text: string): Promise<void>;
  };
}

export interface RangeResult {
  /** Bytes that were read, or asked for. */
  readonly moved: bigint;
  /** Of a `hash`. */
  readonly digest: string;
}

interface Place {
  readonly offset: bigint;
  readonly length: bigint;
}

/** Milliseconds that a lost server may be away before the range is put back. */
const RECONNECT_WITHIN = 20_000;
const CONNECTIONS = 2;

export async function runRange(work: RangeWork): Promise<RangeResult> {
  const { job, range, size, lease } = work;
  const pools: NbdPool[] = [];
  const open = async (end: FleetEnd, planned: bigint): Promise<NbdPool> => {
    const pool = await openEnd(job, end, work.ends, {
      connections: CONNECTIONS,
      reconnect: { within: RECONNECT_WITHIN },
      signal: lease.signal,
    });
    pools.push(pool);
    lease.onFence(() => pool.close());
    checkSize(pool, end, planned);
    return pool;
  };
  try {
    lease.signal.throwIfAborted();
    const source = await open('source', size);
    const destination = isPair(job.kind) ? await open('destination', work.destinationSize) : null;
    const result = await act(work, placeOf(range, size, job.rangeSize), source, destination);
    // A pool that has lost writes since its last flush says so here.
    for (const pool of pools) await pool.shutdown();
    return result;
  } finally {
    for (const pool of pools) pool.close();
  }
}

function act(work: RangeWork, place: Place, source: NbdPool, destination: NbdPool | null): Promise<RangeResult> {
  const { job, range } = work;
  if (destination === null) return job.kind === 'hash' ? hashed(work, place, source) : prefetched(work, place, source);
  if (range.phase === 'verify' || !isWriting(job.kind)) return compared(work, place, source, destination);
  return copied(work, place, source, destination);
}

async function copied(work: RangeWork, place: Place, source: NbdPool, destination: NbdPool): Promise<RangeResult> {
  const { job, range, lease, queueSize, checkpoint } = work;
  const canFlush = destination.canFlush();
  const result = await copy(source, new FencedExport(destination, lease), {
    ...place,
    queueSize,
    signal: lease.signal,
    flush: canFlush,
    destinationIsZero: job.destinationIsZero,
    ...(job.bitmap === null ? {} : { bitmap: job.bitmap }),
    ...(job.limits.rate === 0 ? {} : { rate: job.limits.rate }),
    // Without a flush it is not known what of it is on permanent storage.
    ...(canFlush ? { checkpoint: { ...checkpoint, clear: () => undefined } } : {}),
    onProgress: ({ done }) => {
      lease.done = done;
    },
  });
  if (job.bitmap === null) complete('copy', result.total, place);
  else unchanged(result.total, range);
  return { moved: result.read, digest: '' };
}

async function compared(work: RangeWork, place: Place, source: NbdPool, destination: NbdPool): Promise<RangeResult> {
  const { job, range, lease, queueSize } = work;
  const ranges = job.bitmap === null ? null : await changedRanges(job.bitmap, place, source, lease.signal);
  const total = ranges === null ? place.length : ranges.reduce((sum, { length }) => sum + BigInt(length), 0n);
  if (ranges !== null) unchanged(total, range);
  const result = await compare(source, destination, {
    ...place,
    queueSize,
    signal: lease.signal,
    extents: !job.readHoles,
    ...(ranges === null ? {} : { ranges }),
    onProgress: ({ done }) => {
      lease.done = done;
    },
  });
  if (!result.equal || result.differing > 0n) {
    throw new NbdError(
      `compare: ${result.differing} bytes differ between offset ${place.offset} and ${place.offset + place.length}, ` +
        `the first at offset ${String(result.firstDifference)}`,
      { code: 'EBADMSG', syscall: 'compare', offset: result.firstDifference ?? place.offset, transient: false },
    );
  }
  complete('compare', result.compared, { ...place, length: total });
  return { moved: result.compared - result.skipped, digest: '' };
}

async function changedRanges(
  bitmap: string,
  place: Place,
  source: NbdPool,
  signal: AbortSignal,
): Promise<GivenRange[]> {
  const ranges: GivenRange[] = [];
  for await (const { offset, length } of changes(source, { ...place, bitmap, signal })) ranges.push({ offset, length });
  return ranges;
}

async function hashed({ lease }: RangeWork, place: Place, source: NbdPool): Promise<RangeResult> {
  let moved = 0n;
  const digest = await hash(source, {
    ...place,
    signal: lease.signal,
    onProgress: ({ done }) => {
      lease.done = done;
      moved = done;
    },
  });
  complete('hash', moved, place);
  return { moved, digest };
}

async function prefetched({ lease, queueSize }: RangeWork, place: Place, source: NbdPool): Promise<RangeResult> {
  const result = await prefetch(source, {
    ...place,
    queueSize,
    // Reading has the same effect where there is no command for it.
    read: !source.canCache(),
    signal: lease.signal,
    onProgress: ({ done }) => {
      lease.done = done;
    },
  });
  complete('prefetch', result.cached + result.skipped, place);
  return { moved: result.cached, digest: '' };
}

/** A success that left bytes out would be the worst of all results. */
function complete(syscall: string, done: bigint, { offset, length }: Place): void {
  if (done === length) return;
  throw new NbdError(`${syscall}: only ${done} of ${length} bytes from offset ${offset} were gone through`, {
    code: 'EIO',
    syscall,
    offset,
    transient: false,
  });
}

/** A bitmap that was cleared meanwhile would make a backup succeed that has copied nothing. */
function unchanged(dirty: bigint, { bytes }: RangeData): void {
  if (dirty >= BigInt(bytes)) return;
  throw refused(
    `the bitmap marks ${dirty} bytes as changed where it marked ${bytes} when the backup was planned: it was cleared or ` +
      'replaced, and the backup must be planned anew',
    'ESTALE',
  );
}
