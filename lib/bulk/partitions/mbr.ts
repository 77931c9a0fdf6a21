// Reads an MBR: four primary partitions, and the chain of logical ones in an extended partition.

import type { Sectors } from './sectors.js';
import { checkPlaces, type Partition, type ReadTable } from './table.js';
import { mbrTypeName } from './types.js';

/** The first sector holds the table in its first 512 bytes, whatever the size of a sector. */
export const MBR_BYTES = 512;
const ENTRIES = 446;
const ENTRY = 16;
const PROTECTIVE = '0xEE';
const EXTENDED: readonly string[] = ['0x05', '0x0F', '0x85'];
/** Linux has no more; a chain of them takes a read each. */
const MOST_LOGICAL = 256;
const FIRST_LOGICAL = 5;

interface Entry {
  readonly status: number;
  readonly type: string;
  /** In sectors. */
  readonly start: bigint;
  readonly count: bigint;
}

/** The entries of a table in use; null if the sector does not have one. */
function entriesOf(sector: Buffer): (Entry | null)[] | null {
  if (sector.readUInt16LE(510) !== 0xaa55) return null;
  const all = [0, 1, 2, 3].map((index) => {
    const at = ENTRIES + index * ENTRY;
    return {
      status: sector[at] ?? 0,
      type: `0x${(sector[at + 4] ?? 0).toString(16).padStart(2, '0').toUpperCase()}`,
      start: BigInt(sector.readUInt32LE(at + 8)),
      count: BigInt(sector.readUInt32LE(at + 12)),
    };
  });
  // Where another value is, the bytes are something else than a table: code, or text.
  if (all.some(({ status }) => (status & 0x7f) !== 0)) return null;
  return all.map((entry) => (entry.type === '0x00' || entry.count === 0n ? null : entry));
}

/** Whether the table stands for a GPT. */
export const isProtective = (sector: Buffer): boolean =>
  entriesOf(sector)?.some((entry) => entry?.type === PROTECTIVE) === true;

/** The boot sector of a filesystem ends as an MBR does, and has no table. */
function isFilesystem(sector: Buffer): boolean {
  const text = (at: number, length: number): string => sector.toString('latin1', at, at + length);
  return ['NTFS    ', 'EXFAT   '].includes(text(3, 8)) || text(54, 3) === 'FAT' || text(82, 5) === 'FAT32';
}

/** The table in the first sector, and the logical partitions behind it; null without a table. */
export async function readMbr(sectors: Sectors, first: Buffer, sectorSize: number): Promise<ReadTable | null> {
  const entries = entriesOf(first);
  if (entries === null || isFilesystem(first)) return null;
  const signature = first.readUInt32LE(440).toString(16).padStart(8, '0').toUpperCase();
  const partitionOf = (number: number, entry: Entry, base: bigint): Partition => ({
    number,
    offset: (base + entry.start) * BigInt(sectorSize),
    length: entry.count * BigInt(sectorSize),
    type: entry.type,
    typeName: mbrTypeName(entry.type),
    name: null,
    id: `${signature}-${number.toString(16).padStart(2, '0').toUpperCase()}`,
    isBootable: entry.status !== 0,
    attributes: 0n,
  });
  const partitions = entries.flatMap((entry, index) => (entry === null ? [] : [partitionOf(index + 1, entry, 0n)]));
  const problems: string[] = [];
  let number = FIRST_LOGICAL;
  for (const [index, entry] of entries.entries()) {
    if (entry === null || !EXTENDED.includes(entry.type)) continue;
    const { links, problem } = await chainOf(sectors, entry, sectorSize);
    for (const link of links) partitions.push(partitionOf(number++, link.entry, link.base));
    if (problem !== null) problems.push(`the chain of logical partitions in partition ${index + 1} ${problem}`);
  }
  problems.push(...checkPlaces(partitions, sectors.size, ({ type }) => EXTENDED.includes(type)));
  return { type: 'mbr', sectorSize, id: `0x${signature}`, partitions, problems };
}

/** The logical partitions of an extended one, and what is wrong with their chain. */
interface Chain {
  /** Each with the sector that its start counts from. */
  readonly links: readonly { readonly entry: Entry; readonly base: bigint }[];
  readonly problem: string | null;
}

/**
 * Each link of the chain is a sector with a table of two entries: a partition, and the place of the next link, counted
 * from the beginning of the extended partition.
 */
async function chainOf(sectors: Sectors, container: Entry, sectorSize: number): Promise<Chain> {
  const links: { entry: Entry; base: bigint }[] = [];
  const ended = (problem: string | null): Chain => ({ links, problem });
  const seen = new Set<bigint>();
  for (let base = container.start; ;) {
    if (seen.has(base)) return ended(`comes back to sector ${base}`);
    if (seen.size === MOST_LOGICAL) return ended(`has more than ${MOST_LOGICAL} links`);
    seen.add(base);
    const sector = await sectors.read(base * BigInt(sectorSize), MBR_BYTES);
    if (sector === null) return ended('leaves the export');
    const entries = entriesOf(sector);
    if (entries === null) return ended(`has no table in sector ${base}`);
    const [own = null, next = null] = entries;
    if (own !== null && !EXTENDED.includes(own.type)) links.push({ entry: own, base });
    if (next === null || !EXTENDED.includes(next.type)) return ended(null);
    if (next.start >= container.count) return ended(`leaves it at sector ${container.start + next.start}`);
    base = container.start + next.start;
  }
}
