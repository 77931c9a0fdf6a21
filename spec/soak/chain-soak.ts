// Backups as chains: a full copy of a qcow2 image, then five increments by the dirty bitmaps of QEMU, each in an image
// backed by the one before. Every link is restored and compared byte for byte with what `qemu-img convert` makes of the
// image at that moment, and so are `qemu-img convert` of the chain and, in the end, the chain that `qemu-img commit` or
// `qemu-img rebase` has joined.

import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { compare, copy, fileDestination, fileSource, NbdConnection } from '../../lib/index.js';
import type { Random } from '../fuzz/random.js';
import {
  hasTool,
  type RealServer,
  runTool,
  startNbdkit,
  startNbdServer,
  startQemuNbd,
} from '../support/real-servers.js';
import { startTrixieQemuNbd } from '../support/trixie.js';

const UNIT = 512;
const LINKS = 5;
const ALLOCATION = 'base:allocation';

export interface ChainSoakOptions {
  readonly random: Random;
  readonly links?: number;
  /** The command line: its main.js. */
  readonly cli: string;
  /** Read with qemu-nbd of the Debian trixie root, which has extended headers. */
  readonly isTrixie: boolean;
}

export interface ChainCounts {
  /** Bytes of the export, of all increments, and of what was restored. */
  size: number;
  copied: number;
  restored: number;
  readonly ends: Record<string, number>;
}

async function tool(name: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await runTool(name, args);
  if (code !== 0) throw new Error(`${name} ${args.join(' ')}: ${stdout}${stderr}`);
}

interface Restored {
  readonly file: string;
  readonly size: number;
  /** Of the same export as the connection. */
  readonly uri: string;
  /** The command line: its main.js. */
  readonly cli: string;
}

async function toServer(starting: Promise<RealServer>, from: NbdConnection, exportName = ''): Promise<void> {
  await using server = await starting;
  await using to = await NbdConnection.connect(server.uri(exportName));
  await copy(from, to);
}

/** Each copies an export to the file, which has the size of the export and other contents. */
const RESTORES = {
  file: async (from: NbdConnection, { file, size }: Restored) => {
    await truncate(file, 0);
    await using to = await fileDestination(file, { size });
    await copy(from, to);
  },
  nbdkit: (from: NbdConnection, { file }: Restored) => toServer(startNbdkit({ plugin: 'file', args: [file] }), from),
  'nbd-server': (from: NbdConnection, { file }: Restored) =>
    toServer(startNbdServer({ exports: { x: { exportname: file, flush: true, trim: true } } }), from, 'x'),
  pipes: async (_from: NbdConnection, { file, uri, cli }: Restored) => {
    const nbd = `'${process.execPath}' '${cli}'`;
    await tool('bash', '-o', 'pipefail', '-c', `${nbd} copy '${uri}' - | ${nbd} copy - '${file}'`);
  },
  'block device': async (from: NbdConnection, { file, size }: Restored) => {
    const { code, stdout, stderr } = await runTool('losetup', ['-f', '--show', file]);
    if (code !== 0) throw new Error(`losetup: ${stderr}`);
    const device = stdout.trim();
    try {
      await using to = await fileDestination(device, { size });
      await copy(from, to);
      await using back = await fileSource(device);
      const { equal } = await compare(from, back);
      if (!equal) throw new Error(`${device} differs from the export`);
    } finally {
      await tool('losetup', '-d', device);
    }
  },
};

type Kind = keyof typeof RESTORES;

/** Whether loop devices can be made here. */
async function hasLoops(): Promise<boolean> {
  if (!hasTool('losetup') || process.getuid?.() !== 0) return false;
  return (await runTool('losetup', ['-f'])).code === 0;
}

class Chain {
  readonly #random: Random;
  readonly #isTrixie: boolean;
  readonly #folder: string;
  readonly #size: number;
  readonly #cli: string;
  readonly #kinds: readonly Kind[];
  readonly counts: ChainCounts;

  constructor({ random, isTrixie, cli }: ChainSoakOptions, folder: string, kinds: readonly Kind[]) {
    this.#random = random;
    this.#cli = cli;
    this.#kinds = kinds;
    this.#isTrixie = isTrixie;
    this.#folder = folder;
    // No multiple of a cluster, most of the time.
    this.#size = UNIT * random.between(1000, 20_000);
    this.counts = { size: this.#size, copied: 0, restored: 0, ends: {} };
  }

  #at(name: string): string {
    return join(this.#folder, name);
  }

  async run(links: number): Promise<ChainCounts> {
    await tool('qemu-img', 'create', '-q', '-f', 'qcow2', this.#at('live'), String(this.#size));
    await this.#change('live', 30);
    await tool('qemu-img', 'create', '-q', '-f', 'qcow2', this.#at('link0'), String(this.#size));
    await this.#backUp(null, 'link0');
    await this.#check(0);
    for (let link = 1; link <= links; link++) {
      const bitmap = `b${link}`;
      await tool('qemu-img', 'bitmap', '--add', this.#at('live'), bitmap);
      await this.#change('live', this.#random.below(25));
      const before = this.#at(`link${link - 1}`);
      const image = this.#at(`link${link}`);
      await tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', before, '-F', 'qcow2', image);
      await this.#backUp(bitmap, `link${link}`);
      await this.#check(link);
    }
    const last = this.#at(`link${links}`);
    if (this.#random.oneIn(2)) {
      await tool('qemu-img', 'rebase', '-f', 'qcow2', '-b', '', last);
      await this.#same('qcow2', last, links);
    } else {
      for (let link = links; link > 0; link--)
        await tool('qemu-img', 'commit', '-q', '-f', 'qcow2', this.#at(`link${link}`));
      await this.#same('qcow2', this.#at('link0'), links);
    }
    return this.counts;
  }

  /** Random writes, zeroes and trims of the image. */
  async #change(name: string, changes: number): Promise<void> {
    const random = this.#random;
    await using server = await startQemuNbd({ file: this.#at(name), format: 'qcow2', args: ['--discard=unmap'] });
    await using connection = await NbdConnection.connect(server.uri());
    for (let left = changes; left > 0; left--) {
      const offset = UNIT * random.below(this.#size / UNIT);
      const length = Math.min(UNIT * random.pick([1, 8, 129, 2000]), this.#size - offset);
      const what = random.below(4);
      if (what === 0) await connection.zero(length, offset);
      else if (what === 1) await connection.trim(length, offset);
      else await connection.pwrite(randomBytes(length), offset);
    }
    await connection.flush();
  }

  async #source(image: string, bitmap: string | null): Promise<RealServer> {
    const format = 'qcow2' as const;
    if (!this.#isTrixie) {
      return startQemuNbd({ file: image, format, args: ['-r'], ...(bitmap === null ? {} : { bitmap }) });
    }
    return startTrixieQemuNbd({
      ...{ transport: 'unix', format, makeImage: (path) => copyFile(image, path) },
      args: ['-r', ...(bitmap === null ? [] : [`--bitmap=${bitmap}`])],
    });
  }

  async #backUp(bitmap: string | null, to: string): Promise<void> {
    await using source = await this.#source(this.#at('live'), bitmap);
    await using target = await startQemuNbd({ file: this.#at(to), format: 'qcow2', args: ['--discard=unmap'] });
    const metaContexts = [ALLOCATION, ...(bitmap === null ? [] : [`qemu:dirty-bitmap:${bitmap}`])];
    await using from = await NbdConnection.connect(source.uri(), { metaContexts });
    await using into = await NbdConnection.connect(target.uri(), { metaContexts: [ALLOCATION] });
    if (from.getExtendedHeadersNegotiated() !== this.#isTrixie) throw new Error('not the headers that were meant');
    const { total } = await copy(from, into, bitmap === null ? {} : { bitmap });
    this.counts.copied += Number(total);
  }

  /** Restores the chain up to a link, to an end of a random kind, and compares. */
  async #check(link: number): Promise<void> {
    const image = this.#at(`link${link}`);
    const reference = this.#at(`reference${link}`);
    await tool('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', this.#at('live'), reference);
    const restored = this.#at('restored');
    await writeFile(restored, Buffer.alloc(this.#size, 0xaa));
    await using source = await startQemuNbd({ file: image, format: 'qcow2', args: ['-r'] });
    await using from = await NbdConnection.connect(source.uri(), { metaContexts: [ALLOCATION] });
    const kind = this.#random.pick(this.#kinds);
    this.counts.ends[kind] = (this.counts.ends[kind] ?? 0) + 1;
    await RESTORES[kind](from, { file: restored, size: this.#size, uri: source.uri(), cli: this.#cli });
    await tool('cmp', restored, reference);
    this.counts.restored += this.#size;
    await this.#same('qcow2', image, link);
  }

  async #same(format: string, image: string, link: number): Promise<void> {
    const converted = this.#at('converted');
    await tool('qemu-img', 'convert', '-f', format, '-O', 'raw', image, converted);
    await tool('cmp', converted, this.#at(`reference${link}`));
  }
}

/** One chain from the full copy to its last link; rejects at the first difference. */
export async function soakChain(options: ChainSoakOptions): Promise<ChainCounts> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-chain-soak-'));
  const kinds = Object.keys(RESTORES) as Kind[];
  const here = (await hasLoops()) ? kinds : kinds.filter((kind) => kind !== 'block device');
  try {
    return await new Chain(options, folder, here).run(options.links ?? LINKS);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
