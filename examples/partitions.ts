// Reads the partition table of a disk, and one of its partitions (of a server of your own: partitions.ts URI).
import { crc32 } from 'node:zlib';
import { hash, NbdConnection, partitions } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const [SECTOR, MIB, ENTRIES] = [512, 1024 ** 2, 128 * 128];

/** An empty disk with a GPT, as sfdisk would make it: a protective MBR, and the table at the beginning and the end. */
function diskWith(size: number, parts: { type: string; first: number; last: number; name: string }[]): MemoryBackend {
  const entries = Buffer.alloc(ENTRIES);
  parts.forEach(({ type, first, last, name }, index) => {
    const entry = entries.subarray(index * 128);
    entry.write(type + (index + 1).toString(16).padStart(32, '0'), 'hex'); // its type and its own GUID
    entry.writeBigUInt64LE(BigInt(first), 32);
    entry.writeBigUInt64LE(BigInt(last), 40);
    entry.write(name, 56, 'utf16le');
  });
  const end = size / SECTOR - 1;
  const table = (own: number, other: number, entriesAt: number): Buffer => {
    const header = Buffer.alloc(92);
    header.write('EFI PART\0\0\x01\0\x5c\0\0\0', 'latin1');
    [own, other, 34, end - 33].forEach((sector, index) => header.writeBigUInt64LE(BigInt(sector), 24 + index * 8));
    header.writeBigUInt64LE(BigInt(entriesAt), 72);
    [128, 128, crc32(entries)].forEach((value, index) => header.writeUInt32LE(value, 80 + index * 4));
    header.writeUInt32LE(crc32(header), 16);
    return header;
  };
  return MemoryBackend.of(size, [
    { offset: 446, data: Buffer.from('00000200eeffffff01000000ffffffff'.padEnd(128, '0') + '55aa', 'hex') },
    { offset: SECTOR, data: table(1, end, 2) },
    { offset: 2 * SECTOR, data: entries },
    { offset: (end - 32) * SECTOR, data: entries },
    { offset: end * SECTOR, data: table(end, 1, end - 32) },
  ]);
}

const disk = diskWith(64 * MIB, [
  { type: '28732ac11ff8d211ba4b00a0c93ec93b', first: 2048, last: 34_815, name: 'boot' },
  { type: 'af3dc60f838472478e793d69d8477de4', first: 34_816, last: 129_023, name: 'root' },
]);
disk.write(Buffer.from('the first bytes of root'), 34_816 * SECTOR);
await using server = new NbdServer({ exports: { '': disk } });
const uri = process.argv[2];
await using connection = await NbdConnection.connect(uri ?? server.connectMemory());

const table = await partitions(connection);
console.log(table === null ? 'no partition table' : `${table.type}, sectors of ${table.sectorSize} bytes`);
for (const problem of table?.problems ?? []) console.log(`problem: ${problem}`);
for (const { number, offset, length, typeName, type, name } of table?.partitions ?? []) {
  console.log(`${number}: ${offset} +${length} ${typeName ?? type} ${name ?? ''}`);
}

// A partition is a range, which every function for whole exports takes.
const root = table?.partitions.find(({ typeName }) => typeName === 'Linux filesystem');
if (root !== undefined) {
  const { offset, length } = root;
  console.log(`its contents have the hash ${await hash(connection, { offset, length })}`);
}
