// Whole commands, in whole processes: `nbd copy`, `nbd map`, `nbd cache` and what starting costs, each against a program
// that does the same. What is compared is time from start to end, so that below 1 we are faster.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { hasTool, type NbdkitOptions, startNbdkit } from '../../support/real-servers.js';
import { Gap, spread, type Spread } from './measure.js';
import type { BenchOptions } from './options.js';
import type { Workshop } from './workshop.js';

/** Seconds of one run of ours and one of the peer, in turn. */
export interface WholePair {
  readonly ours: number;
  readonly peer: number;
  /** Seconds of `node -e 0`, where it is taken off. */
  readonly start?: number;
}

export interface WholeResult {
  readonly id: string;
  readonly peer: string;
  readonly goal: number;
  readonly pairs: readonly WholePair[];
  readonly ratio?: Spread;
  readonly gap?: string;
}

type Words = readonly string[];

/** Servers and files of one row, and what is run with them. */
interface Setup {
  readonly ours: Words;
  readonly peer: Words;
  /** Before each run. */
  readonly reset?: () => Promise<void>;
  /** The start of Node is not ours to change. */
  readonly lessStart?: boolean;
}

interface WholeRow {
  readonly id: string;
  readonly peer: 'nbdcopy' | 'qemu-img convert' | 'node -e 0' | 'one question at a time' | '64 requests by hand';
  readonly goal: number;
  readonly smoke?: boolean;
  prepare(stage: Stage): Promise<Setup>;
}

/** What a row is prepared with; everything is removed behind it. */
class Stage {
  readonly #workshop: Workshop;
  /** A smoke run moves little. */
  readonly isSmoke: boolean;
  readonly folder: string;
  readonly #stops: (() => Promise<unknown>)[] = [];

  constructor(workshop: Workshop, isSmoke: boolean, folder: string) {
    this.#workshop = workshop;
    this.isSmoke = isSmoke;
    this.folder = folder;
  }

  nbd(...words: Words): Words {
    return [process.execPath, this.#workshop.cli, ...words];
  }

  program(name: 'map-in-turn' | 'cache-by-hand', ...words: Words): Words {
    return [process.execPath, this.#workshop.program(name), ...words];
  }

  /** 64 threads, so that nbdkit is not what limits the requests in flight. */
  async server(plugin: string, args: Words, delay = 0): Promise<string> {
    if (!hasTool('nbdkit')) throw new Gap('nbdkit is not installed');
    const kinds = ['rdelay', 'wdelay', 'delay-extents', 'delay-cache'];
    const options: NbdkitOptions = {
      transport: 'unix',
      options: ['--threads', '64'],
      plugin,
      ...(delay === 0 ? {} : { filters: ['delay'] }),
      args: [...args, ...(delay === 0 ? [] : kinds.map((kind) => `${kind}=${delay}ms`))],
    };
    const server = await startNbdkit(options);
    this.#stops.push(() => server.stop());
    return server.uri();
  }

  /** Random bytes, once for each row. */
  async data(mib: number): Promise<string> {
    const path = join(this.folder, 'data');
    await timed(['dd', 'if=/dev/urandom', `of=${path}`, 'bs=1M', `count=${this.size(mib)}`, 'status=none']);
    return path;
  }

  size(mib: number): number {
    return this.isSmoke ? Math.min(mib, 16) : mib;
  }

  async stop(): Promise<void> {
    for (const stop of this.#stops) await stop();
  }
}

/** Seconds. */
async function timed([file = '', ...args]: Words): Promise<number> {
  const begun = performance.now();
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${String(code)}: ${said.trim()}`);
  return (performance.now() - begun) / 1000;
}

const PEERS = {
  nbdcopy: (from: string, to: string): Words => ['nbdcopy', from, to],
  'qemu-img convert': (from: string, to: string): Words => {
    const format = ['-f', 'raw', '-O', 'raw'];
    return ['qemu-img', 'convert', '-n', '-m', '16', '-W', ...format, from, to];
  },
} as const;

type Way = 'null' | 'nbd' | 'to-file' | 'from-file';

/** A copy of random data, over a delay or without one. */
function copies(way: Way, mib: number, delay: number, goal: number, details: Partial<WholeRow> = {}): WholeRow {
  const { peer = 'nbdcopy' } = details;
  const name = peer === 'nbdcopy' ? '' : '-qemu-img';
  return {
    id: `copy-${way}-${mib / 1024}g${delay === 0 ? '' : `-${delay}ms`}${name}`,
    peer,
    goal,
    async prepare(stage) {
      const data = await stage.data(mib);
      const out = join(stage.folder, 'out');
      const from = way === 'from-file' ? data : await stage.server('file', [data], delay);
      const room = [`${stage.size(mib)}M`];
      const ends = { null: 'null:', 'to-file': out } as const;
      const to = way === 'null' || way === 'to-file' ? ends[way] : await stage.server('memory', room, delay);
      const make = PEERS[peer as keyof typeof PEERS];
      const reset = (): Promise<void> => rm(out, { force: true });
      return { ours: stage.nbd('copy', from, to), peer: make(from, to), ...(way === 'to-file' ? { reset } : {}) };
    },
    ...details,
  };
}

function sparse(way: 'null' | 'nbd'): WholeRow {
  return {
    id: `copy-${way}-sparse-100g`,
    peer: 'nbdcopy',
    goal: 1.5,
    async prepare(stage) {
      const from = await stage.server('memory', ['100G']);
      const to = way === 'null' ? 'null:' : await stage.server('memory', ['100G']);
      return { ours: stage.nbd('copy', from, to), peer: ['nbdcopy', from, to], lessStart: true };
    },
  };
}

const NODE: Words = [process.execPath, '-e', '0'];

export const WHOLE_ROWS: readonly WholeRow[] = [
  copies('null', 1024, 20, 0.8, { smoke: true }),
  copies('nbd', 1024, 20, 0.8),
  copies('nbd', 1024, 20, 0, { peer: 'qemu-img convert' }),
  copies('from-file', 1024, 20, 0.8),
  copies('null', 1024, 100, 0.6),
  copies('nbd', 1024, 100, 0.6),
  copies('from-file', 1024, 100, 0.6),
  copies('null', 1024, 0, 1.2),
  copies('nbd', 1024, 0, 1.2, { smoke: true }),
  copies('to-file', 1024, 0, 1.2),
  copies('from-file', 1024, 0, 1.2),
  copies('null', 4096, 0, 1),
  copies('nbd', 4096, 0, 1),
  sparse('null'),
  sparse('nbd'),
  {
    id: 'start-version',
    peer: 'node -e 0',
    goal: 1.15,
    smoke: true,
    prepare: (stage) => Promise.resolve({ ours: stage.nbd('--version'), peer: NODE }),
  },
  {
    id: 'start-info-size',
    peer: 'node -e 0',
    goal: 1.45,
    smoke: true,
    prepare: async (stage) => ({ ours: stage.nbd('info', '--size', await stage.server('null', ['1G'])), peer: NODE }),
  },
  {
    id: 'map-8t-20ms',
    peer: 'one question at a time',
    goal: 0.2,
    smoke: true,
    async prepare(stage) {
      // Nothing but holes. nbdkit 1.32 has no extended headers, so that a question covers less than 4 GiB.
      const uri = await stage.server('memory', [stage.isSmoke ? '64G' : '8T'], 20);
      return { ours: stage.nbd('map', '--totals', uri), peer: stage.program('map-in-turn', uri) };
    },
  },
  {
    id: 'cache-4g-100ms',
    peer: '64 requests by hand',
    goal: 1.1,
    smoke: true,
    async prepare(stage) {
      const uri = await stage.server('null', [stage.isSmoke ? '64M' : '4G'], 100);
      return { ours: stage.nbd('cache', '--all', '--quiet', uri), peer: stage.program('cache-by-hand', uri) };
    },
  },
];

/** Ours, the peer, ours, the peer … */
async function measureRow(row: WholeRow, stage: Stage, pairs: number): Promise<WholeResult> {
  const { id, peer, goal } = row;
  const program = peer.split(' ')[0] ?? '';
  if (['nbdcopy', 'qemu-img'].includes(program) && !hasTool(program)) throw new Gap(`${program} is not installed`);
  const setup = await row.prepare(stage);
  const run = async (words: Words): Promise<number> => {
    await setup.reset?.();
    return timed(words);
  };
  const results: WholePair[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    const start = setup.lessStart === true ? { start: await timed(NODE) } : {};
    results.push({ ours: await run(setup.ours), peer: await run(setup.peer), ...start });
  }
  const values = results.map(({ ours, peer: theirs, start = 0 }) => (ours - start) / theirs);
  return { id, peer, goal, pairs: results, ratio: spread(values) };
}

export async function measureWhole(workshop: Workshop, options: BenchOptions): Promise<WholeResult[]> {
  const isSmoke = options.mode === 'smoke';
  const chosen = WHOLE_ROWS.filter(({ id, smoke = false }) => {
    if (options.only.length > 0) return options.only.some((part) => id.includes(part));
    return options.mode === 'full' || (isSmoke && smoke);
  });
  const isOther = options.ceiling || options.against !== undefined || options.peers.length > 0;
  const results: WholeResult[] = [];
  for (const row of isOther ? [] : chosen) {
    const folder = await mkdtemp(join(workshop.folder, 'whole-'));
    const stage = new Stage(workshop, isSmoke, folder);
    const { id, peer, goal } = row;
    try {
      results.push(await measureRow(row, stage, options.pairs));
    } catch (error) {
      const gap = (error as Error).message.split('\n')[0] ?? '';
      results.push({ id, peer, goal, pairs: [], gap });
      if (!(error instanceof Gap)) {
        process.stderr.write(`${id}: ${gap}\n`);
        process.exitCode = 1;
      }
    } finally {
      await stage.stop();
      await rm(folder, { recursive: true, force: true });
    }
    process.stderr.write(`${id.padEnd(24)} ${peer.padEnd(22)} ${wholeText(results.at(-1) as WholeResult)}\n`);
  }
  return results;
}

export function wholeText({ ratio, gap, pairs }: WholeResult): string {
  if (ratio === undefined) return `not measured: ${gap ?? ''}`;
  const median = (values: readonly number[]): string => spread(values).median.toFixed(2);
  const times = `${median(pairs.map(({ ours }) => ours))} s against ${median(pairs.map(({ peer }) => peer))} s`;
  return `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})  ${times}`;
}
