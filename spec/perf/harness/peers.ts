// The programs that ours is compared with: what makes each of them ready, and its command line for a row.

import { access, cp, mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findTool, hasTool, runTool } from '../../support/real-servers.js';
import { type CommandLine, Gap, type Measurement } from './measure.js';
import { EXTENT, IMAGE, type PeerName, type Row } from './rows.js';
import { type BenchOptions } from './options.js';
import { type Workshop } from './workshop.js';

export type Peer = (row: Row, uri: string) => CommandLine;

/** After this many operations the code of a Node program is compiled. */
function warmOperations({ op, size }: Row): number {
  if (op === 'blockStatus') return 0;
  return size < 65536 ? 40_000 : 8000;
}

/** The arguments that all measured programs take. */
export function workArguments(row: Row, uri: string, options: BenchOptions): string[] {
  const work: Record<string, string | number> = {
    uri,
    op: row.op,
    size: row.size,
    depth: row.depth,
    window: row.window ?? Math.max(row.depth, 64),
    seconds: options.seconds * (row.longer ?? 1),
    warmup: options.warmup,
    warmops: options.mode === 'smoke' ? 0 : warmOperations(row),
    image: row.extents === undefined ? IMAGE : row.extents * EXTENT,
    extents: row.extents ?? 0,
    ops: row.ops ?? 0,
    pool: row.pool ?? 0,
    replies: row.replies === 'structured' ? 'structured' : 'simple',
    check: row.server === 'pattern' ? 'pattern' : 'none',
    initialize: options.initialize ? 'yes' : 'no',
  };
  return Object.entries(work).map(([key, value]) => `${key}=${String(value)}`);
}

/** Programs that keep no queue of their own have the window's commands in flight, which is what is on the wire. */
const onTheWire = (row: Row): Row => ({ ...row, depth: row.window ?? row.depth });

/** Compiles peers/NAME.c; a Gap where that cannot be done. */
export async function compile(workshop: Workshop, name: string, ...flags: string[]): Promise<string> {
  if (!hasTool('gcc')) throw new Gap('gcc is not installed');
  const program = join(workshop.folder, name);
  const { code, stderr } = await runTool('gcc', ['-O2', '-o', program, workshop.peer(`${name}.c`), ...flags]);
  if (code !== 0) throw new Gap(`peers/${name}.c cannot be compiled (${stderr.trim().split('\n')[0] ?? ''})`);
  return program;
}

async function libnbd(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  const program = await compile(workshop, 'libnbd', '-lnbd');
  return (row, uri) => ({ file: program, args: workArguments(onTheWire(row), uri, options) });
}

async function python(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  if (!hasTool('python3-libnbd')) throw new Gap('python3-libnbd is not installed');
  return Promise.resolve((row, uri) => ({
    file: findTool('python3') ?? 'python3',
    args: [workshop.peer('libnbd_aio.py'), ...workArguments(onTheWire(row), uri, options)],
  }));
}

async function floor(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  return Promise.resolve((row, uri) => ({
    file: process.execPath,
    args: [workshop.program('floor'), ...workArguments(onTheWire(row), uri, options)],
  }));
}

const CEILING_OPS: readonly Row['op'][] = ['pread', 'preadInto', 'pwrite', 'cache'];

async function ceiling(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  const program = await compile(workshop, 'ceiling');
  return (row, uri) => {
    if (!CEILING_OPS.includes(row.op) || row.tls || row.ops !== undefined) throw new Gap('no ceiling for this row');
    // It tries several ways, for a quarter of the time each.
    const twice = { ...options, seconds: 2 * options.seconds };
    return { file: program, args: workArguments(onTheWire(row), uri, twice) };
  };
}

async function baseline(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  return Promise.resolve((row, uri) => ({
    file: process.execPath,
    args: [workshop.baseline('client'), ...workArguments(row, uri, options)],
  }));
}

interface FioResult {
  readonly jobs: readonly {
    readonly usr_cpu: number;
    readonly sys_cpu: number;
    readonly job_runtime: number;
    readonly read: FioDirection;
    readonly write: FioDirection;
  }[];
}
interface FioDirection {
  readonly total_ios: number;
  readonly runtime: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

function parseFio(output: string, peakKib: number): Measurement {
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as FioResult;
  const job = jobs[0];
  if (job === undefined) throw new Error('fio tells of no job');
  const direction = job.read.total_ios > 0 ? job.read : job.write;
  const percentile = direction.clat_ns.percentile ?? {};
  return {
    ops: direction.total_ios,
    seconds: direction.runtime / 1000,
    cpuUs: ((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime * 1000,
    verified: 0,
    p50: (percentile['50.000000'] ?? 0) / 1000,
    p99: (percentile['99.000000'] ?? 0) / 1000,
    peakKib,
  };
}

const FIO_MODES: Partial<Record<Row['op'], readonly [string, string]>> = {
  pread: ['randread', 'read'],
  pwrite: ['randwrite', 'write'],
};

async function fio(_workshop: Workshop, options: BenchOptions): Promise<Peer> {
  if (!hasTool('fio')) throw new Gap('fio is not installed');
  const { stdout } = await runTool('fio', ['--enghelp=nbd']);
  if (!/\buri\b/.test(stdout)) throw new Gap('this fio has no nbd engine');
  const milliseconds = (seconds: number): string => `${Math.round(seconds * 1000)}ms`;
  return (row, uri) => {
    const modes = FIO_MODES[row.op];
    if (modes === undefined) throw new Gap(`fio has no ${row.op}`);
    return {
      file: findTool('fio') ?? 'fio',
      // In a thread, so that the process that is looked at for its memory is the one that works.
      args: [
        ...['--name=row', '--ioengine=nbd', `--uri=${uri}`, '--thread', '--output-format=json'],
        ...[`--rw=${row.size < 65536 ? modes[0] : modes[1]}`, `--bs=${row.size}`, `--iodepth=${row.depth}`],
        ...[`--size=${IMAGE}`, '--time_based', '--norandommap', '--randrepeat=1'],
        ...[`--runtime=${milliseconds(options.seconds)}`, `--ramp_time=${milliseconds(options.warmup)}`],
      ],
      parse: parseFio,
    };
  };
}

/** Our own, without a pool. */
function connection(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  return Promise.resolve(({ pool: _pool, ...row }, uri) => ({
    file: process.execPath,
    args: [workshop.program('client'), ...workArguments(row, uri, options)],
  }));
}

const VATES = '@vates/nbd-client';
/** What its client of one export imports. Its other dependencies need a registry that has them all. */
const VATES_IMPORTS = ['promise-toolbox@0.21', '@vates/read-chunk@1', '@xen-orchestra/log@0.7'];

/** Fetched once and kept in the temporary folder; it is not a dependency of this package. */
async function vates(workshop: Workshop, options: BenchOptions): Promise<Peer> {
  const folder = join(tmpdir(), 'nbd-sdk-bench-vates');
  const entry = join(folder, 'node_modules', VATES, 'NbdTcpClient.mjs');
  try {
    await access(entry);
  } catch {
    await fetchVates(folder);
  }
  return (row, uri) => {
    if (row.op !== 'pread') throw new Gap(`${VATES} is read only`);
    if (row.transport !== 'tcp') throw new Gap(`${VATES} has no Unix sockets`);
    return {
      file: process.execPath,
      args: [workshop.program('vates'), `entry=${entry}`, ...workArguments(row, uri, options)],
    };
  };
}

async function fetchVates(folder: string): Promise<void> {
  const npm = async (...args: string[]): Promise<void> => {
    const { code, stderr } = await runTool('npm', args, { cwd: folder, timeout: 120_000 });
    if (code !== 0) throw new Gap(`${VATES} cannot be fetched: npm ${args[0] ?? ''}: ${stderr.trim().slice(-200)}`);
  };
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'package.json'), '{ "private": true }\n');
  await npm('install', '--no-audit', '--no-fund', '--ignore-scripts', ...VATES_IMPORTS);
  await npm('pack', VATES);
  const { stdout } = await runTool('sh', ['-c', 'tar -xzf vates-nbd-client-*.tgz && ls package'], { cwd: folder });
  if (!stdout.includes('NbdTcpClient.mjs')) throw new Gap(`${VATES} is not what it was`);
  await cp(join(folder, 'package'), join(folder, 'node_modules', VATES), { recursive: true });
}

const MAKERS: Record<PeerName, (workshop: Workshop, options: BenchOptions) => Promise<Peer>> = {
  libnbd,
  python,
  vates,
  fio,
  floor,
  ceiling,
  baseline,
  connection,
};

/** Peers made ready when first needed; a Gap where one is missing. */
export class Peers {
  readonly #workshop: Workshop;
  readonly #options: BenchOptions;
  readonly #made = new Map<PeerName, Promise<Peer>>();

  constructor(workshop: Workshop, options: BenchOptions) {
    this.#workshop = workshop;
    this.#options = options;
  }

  async command(name: PeerName, row: Row, uri: string): Promise<CommandLine> {
    let making = this.#made.get(name);
    if (making === undefined) {
      making = MAKERS[name](this.#workshop, this.#options);
      making.catch(() => undefined);
      this.#made.set(name, making);
    }
    return (await making)(row, uri);
  }

  /** What is compared with the peers: the client, or the most that any client could reach. */
  async ours(row: Row, uri: string): Promise<CommandLine> {
    if (this.#options.ceiling) return this.command('ceiling', row, uri);
    return {
      file: process.execPath,
      args: [this.#workshop.program('client'), ...workArguments(row, uri, this.#options)],
    };
  }
}
