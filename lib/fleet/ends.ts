// Opening the exports of a job. Invariant: what was opened is what was planned, or nothing is done.

import type { NbdTarget } from '../client/connect/targets.js';
import { NbdStrictError } from '../errors.js';
import { SIZE_MINIMUM, CONTEXT_BASE_ALLOCATION, CONTEXT_QEMU_DIRTY_BITMAP } from '../protocol/client-constants.js';
import type { NbdPoolOptions } from '../pool/options.js';
import { NbdPool } from '../pool/pool.js';
import { type CheckedJob, isWriting } from './job.js';

/** Which end of a job an export is. */
export type FleetEnd = 'source' | 'destination';

/** How exports are opened. */
export interface EndOptions {
  /** Options of the pools, such as TLS certificates. They stay in this process. */
  readonly connection: NbdPoolOptions;
  /** Makes a target of what a job has as `source` or `destination`. */
  readonly resolve: ((name: string, end: FleetEnd) => NbdTarget | Promise<NbdTarget>) | null;
}

/** A pool for one end of a job. */
export async function openEnd(
  job: CheckedJob,
  end: FleetEnd,
  options: EndOptions,
  own: NbdPoolOptions,
): Promise<NbdPool> {
  const name = end === 'source' ? job.source : (job.destination ?? '');
  const target = options.resolve === null ? name : await options.resolve(name, end);
  const contexts = [
    CONTEXT_BASE_ALLOCATION,
    ...(end === 'source' && job.bitmap !== null ? bitmapContexts(job.bitmap) : []),
  ];
  const given = options.connection.metaContexts ?? [];
  const pool = await NbdPool.connect(target, {
    ...own,
    ...options.connection,
    metaContexts: [...new Set([...contexts, ...given])],
  });
  try {
    if (end === 'destination' && isWriting(job.kind) && pool.isReadOnly()) {
      throw refused('the destination is read-only', 'EPERM');
    }
    const minimum = pool.getBlockSize(SIZE_MINIMUM);
    // Two ranges in one block would be two workers that read, change and write it at the same time.
    if (minimum > 0 && job.rangeSize % minimum !== 0) {
      throw refused(
        `the ${end} has blocks of ${minimum} bytes, and a range of ${job.rangeSize} is not whole blocks`,
        'EINVAL',
      );
    }
    return pool;
  } catch (error) {
    pool.close();
    throw error;
  }
}

/** A bitmap's name may have a colon of its own. */
const bitmapContexts = (bitmap: string): string[] =>
  bitmap.startsWith(CONTEXT_QEMU_DIRTY_BITMAP) || bitmap.includes(':')
    ? [bitmap]
    : [CONTEXT_QEMU_DIRTY_BITMAP + bitmap];

/** @throws NbdStrictError `ESTALE` where an export has another size than when it was planned. */
export function checkSize(pool: NbdPool, end: FleetEnd, planned: bigint): void {
  const size = pool.getSize();
  if (size === planned) return;
  throw refused(
    `the ${end} has ${size} bytes, and had ${planned} when it was planned; remove the fleet and plan it again`,
    'ESTALE',
  );
}

export const refused = (why: string, code: string): NbdStrictError =>
  new NbdStrictError(`fleet: ${why}`, { code, syscall: 'fleet' });
