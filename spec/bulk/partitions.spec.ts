// Partition tables made by sfdisk and sgdisk, read through a server and compared with what sfdisk reads; then damaged and
// hostile ones.

import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';

import { NbdConnection, partitions, type PartitionTable, type PartitionsOptions } from '../../lib/index.js';
import { type FaultedRequest, FileBackend, MemoryBackend, type NbdBackend, NbdServer } from '../../lib/server/index.js';
import { describeWith, runTool } from '../support/tools.js';

const MIB = 1024 * 1024;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-partitions-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Served {
  readonly table: PartitionTable | null;
  /** Commands, and bytes, that were read for it. */
  readonly reads: number;
  readonly bytes: number;
}

async function tableOf(backend: NbdBackend, options?: PartitionsOptions, minimum = 1): Promise<Served> {
  const blockSize = { minimum, preferred: Math.max(minimum, 4096), maximum: 64 * 1024 };
  let [reads, bytes] = [0, 0];
  const onRequest = ({ count }: FaultedRequest): void => {
    reads++;
    bytes += Number(count);
  };
  await using server = new NbdServer({ exports: { '': { backend, blockSize } }, onRequest });
  await using connection = await NbdConnection.connect(server.connectMemory());
  const table = await partitions(connection, options);
  return { table, reads, bytes };
}

interface Listed {
  readonly partitiontable: {
    readonly label: string;
    readonly id: string;
    readonly sectorsize: number;
    readonly partitions?: readonly {
      readonly node: string;
      readonly start: number;
      readonly size: number;
      readonly type: string;
      readonly uuid?: string;
      readonly name?: string;
      readonly bootable?: boolean;
      readonly attrs?: string;
    }[];
  };
}

let images = 0;
async function makeImage(size: number): Promise<string> {
  const file = join(folder, `image-${images++}.img`);
  await writeFile(file, '');
  await truncate(file, size);
  return file;
}

async function sfdisk(file: string, script: string): Promise<void> {
  const { code, stderr } = await runTool('sfdisk', ['-q', file], { input: script });
  if (code !== 0) throw new Error(stderr);
}

/** What sfdisk reads, in our words. */
async function expected(file: string): Promise<unknown> {
  const { stdout } = await runTool('sfdisk', ['--json', file]);
  const { label, id, sectorsize, partitions: list = [] } = (JSON.parse(stdout) as Listed).partitiontable;
  const isGpt = label === 'gpt';
  return {
    type: isGpt ? 'gpt' : 'mbr',
    sectorSize: sectorsize,
    id: isGpt ? id : id.toLowerCase(),
    partitions: list.map(({ node, start, size, type, uuid, name, bootable, attrs }) => ({
      number: Number(node.slice(file.length)),
      offset: BigInt(start) * BigInt(sectorsize),
      length: BigInt(size) * BigInt(sectorsize),
      type: isGpt ? type : `0x${type.padStart(2, '0').toUpperCase()}`,
      ...(isGpt ? { id: uuid, name: name ?? null } : {}),
      isBootable: bootable === true || attrs?.includes('LegacyBIOSBootable') === true,
    })),
  };
}

/** The fields that sfdisk prints too. */
function shown(table: PartitionTable | null): unknown {
  if (table === null) return null;
  const isGpt = table.type === 'gpt';
  return {
    type: table.type,
    sectorSize: table.sectorSize,
    id: isGpt ? table.id : table.id.toLowerCase(),
    partitions: table.partitions.map(({ number, offset, length, type, id, name, isBootable }) => ({
      number,
      offset,
      length,
      type,
      ...(isGpt ? { id, name } : {}),
      isBootable,
    })),
  };
}

const GPT = `label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name="bios"
size=10MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI \u00e4\u20ac"
size=20MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs="LegacyBIOSBootable"
`;
const MBR = `label: dos
label-id: 0x1b2c3d4e
size=10MiB, type=c, bootable
size=10MiB, type=83
type=f
size=5MiB, type=83
size=5MiB, type=82
size=2MiB, type=8e
`;

describeWith(['sfdisk', 'fdisk', 'sgdisk'], 'partitions', () => {
  it.each([
    ['a GPT', GPT, 1],
    ['a GPT of a server with blocks of 4 KiB', GPT, 4096],
    ['a GPT without partitions', 'label: gpt\n', 1],
    ['a GPT with gaps in its numbers', 'label: gpt\n2: size=1MiB\n7: size=1MiB\n128: size=1MiB\n', 1],
    ['an MBR with logical partitions', MBR, 1],
    ['an MBR of a server with blocks of 64 KiB', MBR, 65536],
    ['an MBR with 40 logical partitions', `label: dos\ngrain: 512\ntype=5\n${'size=300KiB, type=83\n'.repeat(40)}`, 1],
    ['an MBR without partitions', 'label: dos\n', 1],
  ] as const)('reads %s as sfdisk does', async (_name, script, minimum) => {
    const file = await makeImage(64 * MIB);
    await sfdisk(file, script);
    await using backend = await FileBackend.open(file, { readOnly: true });
    const { table, bytes } = await tableOf(backend, undefined, minimum);
    expect(shown(table)).toEqual(await expected(file));
    expect(table?.problems).toEqual([]);
    expect(bytes).toBeLessThan(minimum === 65536 ? 6 * MIB : 200_000);
    expect(JSON.parse(JSON.stringify(table))).toMatchObject({ type: table?.type, problems: [] });
  });

  it.each([
    ['a GPT', 'g\nn\n1\n\n+10M\nt\n1\nn\n3\n\n+20M\nw\n', 'Type-UUID', undefined],
    ['an MBR', 'o\nn\np\n1\n\n+10M\nn\ne\n2\n\n\nn\nl\n\n+5M\nn\nl\n\n+5M\nw\n', 'Id', 4096],
  ])('counts %s in sectors of 4 KiB as fdisk does', async (_name, commands, column, sectorSize) => {
    const file = await makeImage(64 * MIB);
    await runTool('fdisk', ['-b', '4096', file], { input: commands });
    const listed = await runTool('fdisk', ['-b', '4096', '-l', '-o', `Device,Start,Sectors,${column}`, file]);
    const lines = listed.stdout.split('\n').filter((line) => line.startsWith(file));
    expect(lines.length).toBeGreaterThan(1);
    await using backend = await FileBackend.open(file, { readOnly: true });
    const { table } = await tableOf(backend, sectorSize === undefined ? {} : { sectorSize });
    expect({ sectorSize: table?.sectorSize, problems: table?.problems }).toEqual({ sectorSize: 4096, problems: [] });
    const found = table?.partitions.map(({ number, offset, length, type }) =>
      [`${file}${number}`, offset / 4096n, length / 4096n, type.replace(/^0x0?/, '').toUpperCase()].join(' '),
    );
    expect(found).toEqual(
      lines.map((line) => line.replace(/ +/g, ' ').toUpperCase().replace(file.toUpperCase(), file)),
    );
  });

  it('names types, and reads what sgdisk writes', async () => {
    const file = await makeImage(64 * MIB);
    const made = ['-n', '1:0:+8M', '-t', '1:ef00', '-c', '1:boot', '-n', '2:0:0', '-t', '2:fd00', '-A', '2:set:60'];
    expect((await runTool('sgdisk', [...made, file])).code).toBe(0);
    await using backend = await FileBackend.open(file, { readOnly: true });
    const { table } = await tableOf(backend);
    expect(shown(table)).toEqual(await expected(file));
    expect(table?.partitions.map(({ typeName, name, attributes }) => [typeName, name, attributes])).toEqual([
      ['EFI System', 'boot', 0n],
      ['Linux RAID', null, 1n << 60n],
    ]);
  });

  it('finds none in filesystems, in zeroes, in noise and in a few bytes', async () => {
    for (const make of ['mkfs.fat', 'mkfs.ext4', 'mkfs.ntfs']) {
      const file = await makeImage(16 * MIB);
      const { code } = await runTool(make, make === 'mkfs.ext4' ? ['-q', '-F', file] : [file]).catch(() => ({
        code: 1,
      }));
      if (code !== 0) continue;
      await using backend = await FileBackend.open(file, { readOnly: true });
      expect([make, (await tableOf(backend)).table]).toEqual([make, null]);
    }
    for (const size of [0, 1, 511, 512, MIB]) expect((await tableOf(new MemoryBackend(size))).table).toBeNull();
    const noise = new MemoryBackend(MIB);
    noise.write(Buffer.alloc(4096, 0xa5), 0);
    expect((await tableOf(noise)).table).toBeNull();
  });

  describe('of a GPT that is damaged', () => {
    let good: Buffer;
    let wanted: unknown;
    beforeAll(async () => {
      const file = await makeImage(64 * MIB);
      await sfdisk(file, GPT);
      wanted = await expected(file);
      good = await readFile(file);
    });

    /** The image with changes: zeroes, or a change of the header in a sector with its checksum made right again. */
    async function damaged(...changes: ((bytes: Buffer) => void)[]): Promise<PartitionTable | null> {
      const backend = new MemoryBackend(good.length);
      const ends = [good.subarray(0, MIB), good.subarray(-MIB)].map((part) => Buffer.from(part)) as [Buffer, Buffer];
      const bytes = Buffer.concat(ends);
      for (const change of changes) change(bytes);
      backend.write(bytes.subarray(0, MIB), 0);
      backend.write(bytes.subarray(MIB), good.length - MIB);
      return (await tableOf(backend)).table;
    }
    const wipe = (at: number, length: number) => (bytes: Buffer) => void bytes.fill(0, at, at + length);
    const flip = (at: number) => (bytes: Buffer) => {
      bytes[at] = (bytes[at] ?? 0) ^ 1;
    };
    const header = (at: number, change: (header: Buffer) => void) => (bytes: Buffer) => {
      const part = bytes.subarray(at, at + 92);
      change(part);
      part.writeUInt32LE(0, 16);
      part.writeUInt32LE(crc32(part), 16);
    };
    const entry = (at: number, change: (entry: Buffer) => void) => (bytes: Buffer) => {
      for (const [start, head] of [
        [1024, 512],
        [2 * MIB - 33 * 512, 2 * MIB - 512],
      ] as const) {
        change(bytes.subarray(start + at * 128, start + at * 128 + 128));
        const sum = crc32(bytes.subarray(start, start + 128 * 128));
        header(head, (each) => each.writeUInt32LE(sum, 88))(bytes);
      }
    };
    const BACKUP = 2 * MIB - 512;

    it.each([
      [
        'a header of zeroes',
        wipe(512, 512),
        /^the table at the beginning is damaged \(no header\); the backup at the end is used$/,
      ],
      ['a bit of the header', flip(512 + 40), /\(the checksum of the header is wrong\); the backup at the end is used/],
      [
        'a bit of the entries',
        flip(1024 + 200),
        /\(the checksum of the entries is wrong\); the backup at the end is used/,
      ],
      ['a header of another place', header(512, (h) => h.writeBigUInt64LE(7n, 24)), /the header is that of sector 7/],
      ['entries of no bytes', header(512, (h) => h.writeUInt32LE(0, 84)), /entries of 0 bytes/],
      ['huge entries', header(512, (h) => h.writeUInt32LE(0xfffffff8, 84)), /128 entries of 4294967288 bytes/],
      ['entries without end', header(512, (h) => h.writeUInt32LE(0xffffffff, 80)), /4294967295 entries of 128 bytes/],
      ['entries elsewhere', header(512, (h) => h.writeBigUInt64LE(2n ** 64n - 1n, 72)), /beyond the end of the export/],
      ['a long header', header(512, (h) => h.writeUInt32LE(513, 12)), /a header of 513 bytes/],
      ['a backup of zeroes', wipe(BACKUP, 512), /^the backup in sector 131071 is damaged \(no header\)$/],
      [
        'a bit of the backup',
        flip(BACKUP + 40),
        /^the backup in sector 131071 is damaged \(the checksum of the header/,
      ],
      [
        'a bit of its entries',
        flip(BACKUP - 32 * 512),
        /^the backup in sector 131071 is damaged \(the checksum of the e/,
      ],
      ['a backup elsewhere', header(512, (h) => h.writeBigUInt64LE(2n ** 63n, 32)), /beyond the end of the export/],
      ['no protective MBR', wipe(446, 66), /^there is no protective MBR$/],
    ] as const)('reads it with %s', async (_name, change, problem) => {
      const table = await damaged(change);
      expect(shown(table)).toEqual(wanted);
      expect(table?.problems).toEqual([expect.stringMatching(problem)]);
    });

    it('reports both where both are damaged, and no table without a protective MBR', async () => {
      const table = await damaged(wipe(512, 512), flip(BACKUP + 16));
      expect(table).toMatchObject({ type: 'gpt', partitions: [] });
      expect(table?.problems).toEqual([
        'the table at the beginning is damaged (no header)',
        'the backup at the end is damaged (the checksum of the header is wrong)',
      ]);
      expect(await damaged(wipe(446, 66), wipe(512, 512))).toBeNull();
    });

    it('reads the MBR as sfdisk does where that has partitions and no protective one, and reports the GPT', async () => {
      const mbr = (bytes: Buffer): void => {
        wipe(446, 64)(bytes);
        bytes[450] = 0x83;
        bytes.writeUInt32LE(2048, 454);
        bytes.writeUInt32LE(2048, 458);
      };
      const file = await makeImage(0);
      const changed = Buffer.from(good);
      mbr(changed);
      await writeFile(file, changed);
      const table = await damaged(mbr);
      expect(shown(table)).toEqual(await expected(file));
      const problem = 'there is a GPT too, which is ignored: the MBR has partitions, and no protective one';
      expect(table?.problems).toEqual([problem]);
      expect((await damaged(mbr, wipe(512, 512)))?.problems).toEqual([]);
    });

    it('reports partitions that cannot be', async () => {
      const first = (each: Buffer, value: bigint): unknown => each.writeBigUInt64LE(value, 32);
      const last = (each: Buffer, value: bigint): unknown => each.writeBigUInt64LE(value, 40);
      const beyond = await damaged(entry(2, (each) => last(each, 2n ** 64n - 1n)));
      expect(beyond?.problems).toEqual(['partition 3 reaches beyond the end of the export']);
      expect(beyond?.partitions[2]?.length).toBeGreaterThan(2n ** 64n);
      const inverted = await damaged(entry(1, (each) => first(each, 2n ** 60n)));
      expect(inverted?.problems).toEqual(['partition 2 ends before it begins, and is left out']);
      expect(inverted?.partitions.map(({ number }) => number)).toEqual([1, 3]);
      const overlapping = await damaged(entry(2, (each) => first(each, 3000n)));
      expect(overlapping?.problems).toEqual(
        expect.arrayContaining([expect.stringMatching(/^partitions \d and \d overlap$/)]),
      );
    });

    it('reports a backup that is not at the end, as of an export that has grown', async () => {
      const grown = new MemoryBackend(good.length + MIB);
      grown.write(good.subarray(0, MIB), 0);
      grown.write(good.subarray(-MIB), good.length - MIB);
      const { table } = await tableOf(grown);
      expect(shown(table)).toEqual(wanted);
      expect(table?.problems).toEqual(['the backup is in sector 131071, not in the last one (133119)']);
    });
  });

  describe('of an MBR that is hostile', () => {
    /** Sectors with tables: what is in them as [type, start, count]. */
    async function chain(
      tables: Readonly<Record<number, readonly (readonly [number, number, number])[]>>,
    ): Promise<Served> {
      const backend = new MemoryBackend(16 * MIB);
      for (const [sector, entries] of Object.entries(tables)) {
        const bytes = Buffer.alloc(512);
        bytes.writeUInt16LE(0xaa55, 510);
        entries.forEach(([type, start, count], index) => {
          bytes[446 + 16 * index + 4] = type;
          bytes.writeUInt32LE(start, 446 + 16 * index + 8);
          bytes.writeUInt32LE(count, 446 + 16 * index + 12);
        });
        backend.write(bytes, Number(sector) * 512);
      }
      return tableOf(backend);
    }
    const EXTENDED = [5, 100, 10_000] as const;
    const LINUX = [0x83, 1, 10] as const;

    it.each([
      ['that points to itself', { 0: [EXTENDED], 100: [LINUX, [5, 0, 100]] }, /comes back to sector 100/, 1],
      [
        'of a circle',
        { 0: [EXTENDED], 100: [LINUX, [5, 50, 100]], 150: [LINUX, [5, 200, 100]], 300: [LINUX, [5, 50, 1]] },
        /comes back to sector 150/,
        3,
      ],
      ['that leaves the partition', { 0: [EXTENDED], 100: [LINUX, [5, 10_000, 9]] }, /leaves it at sector 10100/, 1],
      ['that leaves the export', { 0: [[5, 0xffffffff, 0xffffffff]] }, /partition 1 leaves the export/, 0],
      ['without a table', { 0: [EXTENDED] }, /has no table in sector 100/, 0],
      [
        'without end',
        Object.fromEntries([
          [0, [EXTENDED]],
          ...Array.from({ length: 300 }, (_, at) => [100 + at * 20, [LINUX, [5, at * 20 + 20, 20]]] as const),
        ]),
        /has more than 256 links/,
        256,
      ],
    ] as const)('reads a chain %s, and ends', async (_name, tables, problem, logical) => {
      const { table, reads } = await chain(tables as Parameters<typeof chain>[0]);
      expect(table?.problems).toEqual(expect.arrayContaining([expect.stringMatching(problem)]));
      expect(table?.partitions.filter(({ number }) => number >= 5)).toHaveLength(logical);
      expect(reads).toBeLessThan(300);
    });

    it('reports primary partitions that overlap or leave the export', async () => {
      const { table } = await chain({
        0: [
          [0x83, 10, 100],
          [0x07, 50, 10],
          [0x83, 32_000, 0xffffffff],
        ],
      });
      expect(table?.problems).toEqual([
        'partition 3 reaches beyond the end of the export',
        'partitions 1 and 2 overlap',
      ]);
      expect(table?.partitions[2]).toMatchObject({ offset: 16_384_000n, length: 0xffffffffn * 512n });
    });

    it('never fails and never reads much, whatever the bytes are', async () => {
      const sector = fc.uint8Array({ minLength: 512, maxLength: 512 });
      const place = fc.tuple(fc.constantFrom(0, 1, 2, 100, 101, 32_767), sector);
      const run = fc.asyncProperty(fc.array(place, { maxLength: 6 }), fc.boolean(), async (places, isGpt) => {
        const backend = new MemoryBackend(16 * MIB);
        for (const [at, bytes] of places) {
          const copy = Buffer.from(bytes);
          copy.writeUInt16LE(0xaa55, 510);
          for (let each = 0; each < 4; each++) {
            copy[446 + 16 * each] = 0;
            copy[446 + 16 * each + 4] = [0x83, 5, isGpt ? 0xee : 0x0f, 0][each] ?? 0;
            copy.writeUInt32LE(copy.readUInt32LE(446 + 16 * each + 8) % 200, 446 + 16 * each + 8);
          }
          if (isGpt && at !== 0) header92(copy);
          backend.write(copy, at * 512);
        }
        const { table, bytes } = await tableOf(backend);
        expect(bytes).toBeLessThan(5 * MIB);
        expect(table === null || Array.isArray(table.partitions)).toBe(true);
      });
      await fc.assert(run, { numRuns: 60 });
    });

    /** Random bytes as a header that passes its own checksum. */
    function header92(bytes: Buffer): void {
      bytes.write('EFI PART', 0, 'latin1');
      bytes.writeUInt32LE(92, 12);
      bytes.writeBigUInt64LE(1n, 24);
      bytes.writeUInt32LE(0, 16);
      bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16);
    }
  });

  it('checks its options, and ends when it is aborted', async () => {
    const backend = new MemoryBackend(MIB);
    await using server = new NbdServer({ exports: { '': backend } });
    await using connection = await NbdConnection.connect(server.connectMemory());
    const bad: [options: object, message: RegExp][] = [
      [{ sectorSize: 513 }, /partitions: sectorSize: must be a power of 2 from 512 to 4096/],
      [{ sectorSize: '512' }, /partitions: sectorSize/],
      [{ sector: 512 }, /partitions: unknown option "sector"/],
    ];
    for (const [options, message] of bad) {
      await expect(partitions(connection, options)).rejects.toMatchObject({
        code: 'EINVAL',
        message: expect.stringMatching(message) as unknown,
      });
    }
    const reason = new Error('enough');
    await expect(partitions(connection, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
