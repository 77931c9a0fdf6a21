// The partition table of an export.

import { anAbortSignal, checkOptions, powerOfTwo } from '../../util/option-checks.js';
import type { ExportLike } from '../facts.js';
import { withJson } from '../ranges.js';
import { hasGpt, readGpt } from './gpt.js';
import { isProtective, MBR_BYTES, readMbr } from './mbr.js';
import { Sectors } from './sectors.js';
import type { PartitionTable } from './table.js';

/** What {@link partitions} takes. */
export interface PartitionsOptions {
  /** Bytes of a sector, a power of 2 from 512 to 4096. Default: found out of a GPT, 512 for an MBR. */
  sectorSize?: number | undefined;
  /** Ends the work; the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
}

const PARTITIONS_OPTIONS = { sectorSize: powerOfTwo(512, 4096), signal: anAbortSignal };

const IGNORED = 'there is a GPT too, which is ignored: the MBR has partitions, and no protective one';

/**
 * Reads the partition table of an export: a GPT, or an MBR with its logical partitions. It takes a few small reads and
 * writes nothing. Checksums are verified; where the GPT at the beginning is damaged, its backup at the end is used. What
 * is wrong with a table is in its `problems`: a damaged table is not an error.
 *
 * @returns The table; null if the export has none.
 * @throws (rejects) NbdStrictError `EINVAL` for bad options, before anything is read. What reads reject with, of its own
 *   class and with its own fields. The signal's reason.
 *
 * @example
 * const table = await partitions(connection);
 * for (const { number, offset, length, typeName } of table?.partitions ?? []) console.log(number, offset, length, typeName);
 */
export async function partitions(from: ExportLike, options: PartitionsOptions = {}): Promise<PartitionTable | null> {
  const { sectorSize, signal } = checkOptions<PartitionsOptions>('partitions', options, PARTITIONS_OPTIONS);
  const sectors = new Sectors(from, signal);
  signal?.throwIfAborted();
  const first = await sectors.read(0n, MBR_BYTES);
  if (first === null) return null;
  const isProtected = isProtective(first);
  const mbr = isProtected ? null : await readMbr(sectors, first, sectorSize ?? 512);
  if (mbr !== null && mbr.partitions.length > 0) {
    // A table that does not stand for a GPT was written after it: the GPT does not count, as for Linux and sfdisk.
    const problems = (await hasGpt(sectors, sectorSize)) ? [...mbr.problems, IGNORED] : mbr.problems;
    return withJson({ ...mbr, problems });
  }
  const table = (await readGpt(sectors, isProtected, sectorSize)) ?? mbr;
  return table === null ? null : withJson(table);
}
