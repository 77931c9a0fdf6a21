// Reads a GPT (UEFI specification, chapter 5): the header and the entries with their checksums, at the beginning of the
// export and, as a backup, at its end.

import { crc32 } from 'node:zlib';
import type { Sectors } from './sectors.js';
import { checkPlaces, type Partition, type ReadTable } from './table.js';
import { gptTypeName } from './types.js';

const SIGNATURE = 'EFI PART';
const HEADER = 92;
const SMALLEST_ENTRY = 128;
/** Tables have 16 KiB. What a damaged or hostile header claims must not take memory. */
const MOST_BYTES = 4 * 1024 * 1024;
/** Sizes of a sector that disks have, the commonest first. */
const SECTOR_SIZES = [512, 4096];
const UNUSED = '00000000-0000-0000-0000-000000000000';
const LEGACY_BOOT = 4n;

interface Header {
  readonly sectorSize: number;
  /** Sector of this header, and of the other one. */
  readonly own: bigint;
  readonly other: bigint;
  readonly id: string;
  readonly entrySize: number;
  readonly entries: Buffer;
}

/** A header, or the reason why it is missing. */
type Found = Header | string;

/**
 * The GPT of an export; null without one. With `isProtected` (the MBR has the partition that stands for a GPT) the
 * backup is looked for where the beginning is damaged.
 */
export async function readGpt(
  sectors: Sectors,
  isProtected: boolean,
  sectorSize: number | undefined,
): Promise<ReadTable | null> {
  const sizes = sectorSize === undefined ? SECTOR_SIZES : [sectorSize];
  const [primary, size] = await firstFound(sizes, (each) => readHeader(sectors, each, 1n));
  if (typeof primary !== 'string') {
    const backup = await readHeader(sectors, primary.sectorSize, primary.other);
    return tableOf(sectors, primary, [
      ...(isProtected ? [] : ['there is no protective MBR']),
      ...backupProblems(sectors, primary, backup),
    ]);
  }
  if (!isProtected) return null;
  const [backup] = await firstFound(sizes, (each) => readHeader(sectors, each, sectors.count(each) - 1n));
  if (typeof backup !== 'string') {
    return tableOf(sectors, backup, [
      `the table at the beginning is damaged (${primary}); the backup at the end is used`,
    ]);
  }
  const problems = [
    `the table at the beginning is damaged (${primary})`,
    `the backup at the end is damaged (${backup})`,
  ];
  return { type: 'gpt', sectorSize: size, id: UNUSED, partitions: [], problems };
}

/** Whether a valid GPT is at the beginning of the export, whatever its MBR is. */
export async function hasGpt(sectors: Sectors, sectorSize: number | undefined): Promise<boolean> {
  const sizes = sectorSize === undefined ? SECTOR_SIZES : [sectorSize];
  const [found] = await firstFound(sizes, (each) => readHeader(sectors, each, 1n));
  return typeof found !== 'string';
}

/** The first size of a sector with which there is a header; without a header, the most specific reason. */
async function firstFound(
  sizes: readonly number[],
  read: (sectorSize: number) => Promise<Found>,
): Promise<[found: Found, sectorSize: number]> {
  let reason: [Found, number] | undefined;
  for (const size of sizes) {
    const found = await read(size);
    if (typeof found !== 'string') return [found, size];
    if (reason === undefined || (reason[0] === NO_SIGNATURE && found !== NO_SIGNATURE)) reason = [found, size];
  }
  return reason ?? [NO_SIGNATURE, 512];
}

const NO_SIGNATURE = 'no header';

async function readHeader(sectors: Sectors, sectorSize: number, lba: bigint): Promise<Found> {
  const sector = await sectors.read(lba * BigInt(sectorSize), sectorSize);
  if (sector === null) return 'beyond the end of the export';
  if (sector.toString('latin1', 0, 8) !== SIGNATURE) return NO_SIGNATURE;
  const length = sector.readUInt32LE(12);
  if (length < HEADER || length > sectorSize) return `a header of ${length} bytes`;
  const header = Buffer.from(sector.subarray(0, length));
  header.writeUInt32LE(0, 16);
  if (crc32(header) !== sector.readUInt32LE(16)) return 'the checksum of the header is wrong';
  const own = sector.readBigUInt64LE(24);
  if (own !== lba) return `the header is that of sector ${own}`;
  const count = sector.readUInt32LE(80);
  const entrySize = sector.readUInt32LE(84);
  if (entrySize < SMALLEST_ENTRY || entrySize % 8 !== 0) return `entries of ${entrySize} bytes`;
  if (count * entrySize > MOST_BYTES) return `${count} entries of ${entrySize} bytes`;
  const entries = await sectors.read(sector.readBigUInt64LE(72) * BigInt(sectorSize), count * entrySize);
  if (entries === null) return 'its entries are beyond the end of the export';
  if (crc32(entries) !== sector.readUInt32LE(88)) return 'the checksum of the entries is wrong';
  return { sectorSize, own, other: sector.readBigUInt64LE(32), id: guid(sector, 56), entrySize, entries };
}

function backupProblems(sectors: Sectors, primary: Header, backup: Found): string[] {
  if (typeof backup === 'string') return [`the backup in sector ${primary.other} is damaged (${backup})`];
  if (!backup.entries.equals(primary.entries) || backup.id !== primary.id) return ['the backup has other contents'];
  const last = sectors.count(primary.sectorSize) - 1n;
  return backup.own === last ? [] : [`the backup is in sector ${backup.own}, not in the last one (${last})`];
}

function tableOf(sectors: Sectors, header: Header, problems: readonly string[]): ReadTable {
  const { sectorSize, id, entrySize, entries } = header;
  const partitions: Partition[] = [];
  const inverted: string[] = [];
  for (let at = 0; at < entries.length; at += entrySize) {
    const type = guid(entries, at);
    if (type === UNUSED) continue;
    const number = at / entrySize + 1;
    const [first, last] = [entries.readBigUInt64LE(at + 32), entries.readBigUInt64LE(at + 40)];
    if (last < first) {
      inverted.push(`partition ${number} ends before it begins, and is left out`);
      continue;
    }
    const attributes = entries.readBigUInt64LE(at + 48);
    const name = entries.toString('utf16le', at + 56, at + SMALLEST_ENTRY).replace(/\0.*$/s, '');
    partitions.push({
      number,
      offset: first * BigInt(sectorSize),
      length: (last - first + 1n) * BigInt(sectorSize),
      type,
      typeName: gptTypeName(type),
      name: name === '' ? null : name,
      id: guid(entries, at + 16),
      isBootable: (attributes & LEGACY_BOOT) !== 0n,
      attributes,
    });
  }
  const places = checkPlaces(partitions, sectors.size, () => false);
  return { type: 'gpt', sectorSize, id, partitions, problems: [...problems, ...inverted, ...places] };
}

/** A GUID as text; its first three fields are little-endian. */
function guid(bytes: Buffer, at: number): string {
  const field = (...order: number[]): string =>
    order.map((index) => (bytes[at + index] ?? 0).toString(16).padStart(2, '0')).join('');
  return [field(3, 2, 1, 0), field(5, 4), field(7, 6), field(8, 9), field(10, 11, 12, 13, 14, 15)]
    .join('-')
    .toUpperCase();
}
