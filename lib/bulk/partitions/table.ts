// What a partition table contains, and what the readers of both kinds share.

/** A partition. */
export interface Partition {
  /** From 1, as Linux counts: logical partitions of an MBR from 5. */
  readonly number: number;
  /** First byte. */
  readonly offset: bigint;
  /** Number of bytes, as the table has it: the partition may reach beyond the end of a truncated export. */
  readonly length: bigint;
  /** A GUID in capitals (GPT), or two hexadecimal digits such as `0x83` (MBR). */
  readonly type: string;
  /** The meaning of a well-known type, such as `Linux filesystem`; null for another one. */
  readonly typeName: string | null;
  /** The name that the partition was given; null without one. An MBR has no names. */
  readonly name: string | null;
  /** What Linux calls PARTUUID: a GUID in capitals, or such as `1B2C3D4E-05` of an MBR. */
  readonly id: string;
  /** Marked as the one to boot: active in an MBR, "legacy BIOS bootable" in a GPT. */
  readonly isBootable: boolean;
  /** The 64 attribute bits of a GPT entry; 0n in an MBR. */
  readonly attributes: bigint;
}

/** A partition table. */
export interface PartitionTable {
  /** The kind of table. */
  readonly type: 'gpt' | 'mbr';
  /** Bytes of a sector, in which the table counts. */
  readonly sectorSize: number;
  /** The GUID of a GPT, in capitals; eight hexadecimal digits behind `0x` of an MBR. */
  readonly id: string;
  /** In the order of their numbers. */
  readonly partitions: readonly Partition[];
  /** What is wrong with the table, a sentence each. Empty for a table in good order. */
  readonly problems: readonly string[];
  /** For JSON.stringify: numbers up to 2^53 - 1, and strings of decimal digits above. */
  toJSON(): Record<string, unknown>;
}

/** A table as it was read, before it is checked as a whole. */
export type ReadTable = Omit<PartitionTable, 'toJSON'>;

/** Partitions that reach beyond the end of the export, or into each other. */
export function checkPlaces(
  partitions: readonly Partition[],
  size: bigint,
  isContainer: (each: Partition) => boolean,
): string[] {
  const beyond = partitions
    .filter(({ offset, length }) => offset + length > size)
    .map(({ number }) => `partition ${number} reaches beyond the end of the export`);
  const sorted = partitions.filter((each) => !isContainer(each)).sort((a, b) => (a.offset < b.offset ? -1 : 1));
  const overlapping: string[] = [];
  let furthest: Partition | undefined;
  for (const each of sorted) {
    if (furthest !== undefined && each.offset < furthest.offset + furthest.length) {
      overlapping.push(`partitions ${furthest.number} and ${each.number} overlap`);
    }
    if (furthest === undefined || each.offset + each.length > furthest.offset + furthest.length) furthest = each;
  }
  return [...beyond, ...overlapping];
}
