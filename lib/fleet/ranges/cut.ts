// Asks an export what it holds, and cuts it into ranges.

import { extents } from '../../bulk/maps/extents.js';
import { changes } from '../../bulk/maps/changes.js';
import { CONTEXT_BASE_ALLOCATION, STATE_ZERO } from '../../protocol/client-constants.js';
import type { NbdPool } from '../../pool/pool.js';
import { type EndOptions, openEnd, refused } from '../ends.js';
import { type CheckedJob, isPair } from '../job.js';
import { Cutter, type DataExtent, MOST_CELLS, type Plan } from './cells.js';

/** How an export is cut, and how large its destination is: 0 without one. */
export interface Cut {
  readonly plan: Plan;
  readonly destinationSize: bigint;
}

/**
 * @throws What connecting and block status reject with; NbdStrictError `ENOSPC` for a destination that is too small,
 *   `EPERM` for one that is read-only, `EBADMSG` for a comparison of exports of different sizes, `EINVAL` for ranges that
 *   are too small for the export or not whole blocks of it.
 */
export async function cutExport(job: CheckedJob, options: EndOptions, signal: AbortSignal | undefined): Promise<Cut> {
  const own = { connections: 1, ...(signal === undefined ? {} : { signal }) };
  const source = await openEnd(job, 'source', options, own);
  try {
    const size = source.getSize();
    if (size / BigInt(job.rangeSize) >= BigInt(MOST_CELLS)) {
      throw refused(`a rangeSize of ${job.rangeSize} makes more than ${MOST_CELLS} ranges of ${size} bytes`, 'EINVAL');
    }
    const destinationSize = await checkDestination(job, size, options, own);
    const cutter = new Cutter(size, job.rangeSize, job.kind === 'copy' || job.kind === 'compare');
    for await (const extent of dataOf(job, source, signal)) cutter.add(extent);
    const plan = cutter.end();
    await source.shutdown();
    return { plan, destinationSize };
  } finally {
    source.close();
  }
}

async function checkDestination(job: CheckedJob, size: bigint, options: EndOptions, own: object): Promise<bigint> {
  if (!isPair(job.kind)) return 0n;
  const destination = await openEnd(job, 'destination', options, own);
  const found = destination.getSize();
  await destination.shutdown();
  if (job.kind === 'compare' && found !== size) {
    throw refused(`the exports differ in size: ${size} and ${found} bytes`, 'EBADMSG');
  }
  if (found < size) throw refused(`the destination has ${found} bytes, fewer than the source's ${size}`, 'ENOSPC');
  return found;
}

async function* dataOf(job: CheckedJob, source: NbdPool, signal: AbortSignal | undefined): AsyncGenerator<DataExtent> {
  const options = signal === undefined ? {} : { signal };
  if (job.bitmap !== null) {
    yield* changes(source, { ...options, bitmap: job.bitmap });
  } else if (!source.canMetaContext(CONTEXT_BASE_ALLOCATION)) {
    yield { offset: 0n, length: source.getSize() };
  } else if (source.getSize() > 0n) {
    for await (const { offset, length, flags } of extents(source, options)) {
      if ((flags & BigInt(STATE_ZERO)) === 0n) yield { offset, length };
    }
  }
}
