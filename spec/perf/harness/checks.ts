// The figures that are not ratios: system calls, copies, heap, and how long the event loop is held.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CommandLine, Gap, measure, run, spread } from './measure.js';
import { type BenchOptions } from './options.js';
import { compile, type Peers, workArguments } from './peers.js';
import { type Row, ROWS } from './rows.js';
import { type Servers } from './servers.js';
import { type Check } from './table.js';
import { type ProgramName, type Workshop } from './workshop.js';

/** What the checks work with. */
export interface Bench {
  readonly servers: Servers;
  readonly peers: Peers;
  readonly workshop: Workshop;
  readonly options: BenchOptions;
}

const MILLION = 1_000_000;

function rowOf(id: string): Row {
  const row = ROWS.find((candidate) => candidate.id === id);
  if (row === undefined) throw new Error(`no row ${id}`);
  return row;
}

/** Runs a program of spec/perf/programs for a row and gives back the JSON that it prints. */
async function runProgram(bench: Bench, name: ProgramName, row: Row, flags: readonly string[] = []): Promise<unknown> {
  const { uri } = await bench.servers.get(row);
  const args = [...flags, bench.workshop.program(name), ...workArguments(row, uri, bench.options)];
  return JSON.parse((await run({ file: process.execPath, args })).output);
}

function eventLoop(server: 'extents' | 'burst'): (bench: Bench) => Promise<Check> {
  return async (bench) => {
    const row = { ...rowOf('blockstatus-4k-d1-100k'), server, extents: MILLION };
    const { maps, idle } = (await runProgram(bench, 'loop-delay', row)) as { maps: number[]; idle: number[] };
    const text = (values: readonly number[]): string => {
      const { median, min, max } = spread(values);
      return `${median.toFixed(1)} ms (${min.toFixed(1)}–${max.toFixed(1)})`;
    };
    return {
      name: `longest turn of the event loop, block map of 1,000,000 extents ${server === 'burst' ? 'in one go' : 'from nbdkit'}`,
      figure: `${text(maps)}; idle for as long ${text(idle)}`,
      goal: '≤ 20 ms',
      values: { maps, idle },
    };
  };
}

async function heap(bench: Bench): Promise<Check> {
  const row = { ...rowOf('pread-4k-d64'), window: 64 };
  const values = (await runProgram(bench, 'heap', row, ['--expose-gc'])) as Record<string, number>;
  return {
    name: 'heap of a waiting command, 100,000 preads behind a window of 64',
    figure: `${Math.round(values['heapPerCommand'] ?? NaN)} bytes`,
    goal: '< 1,000 bytes',
    values,
  };
}

function copies(id: string): (bench: Bench) => Promise<Check> {
  return async (bench) => {
    const values = (await runProgram(bench, 'copies', rowOf(id))) as { copied: number; read: number };
    const share = (100 * values.copied) / values.read;
    return {
      name: `bytes copied in JavaScript, ${id}`,
      figure: `${share.toFixed(share < 1 ? 3 : 1)} % of those read`,
      goal: '0 %',
      values,
    };
  };
}

function poolCost(id: string): (bench: Bench) => Promise<Check> {
  return async (bench) => {
    const { ratios } = (await runProgram(bench, 'pool-cost', rowOf(id))) as { ratios: number[] };
    const sorted = ratios.toSorted((a, b) => a - b);
    const [low, middle, high] = [0.25, 0.5, 0.75].map((part) =>
      (sorted[Math.floor(part * sorted.length)] ?? NaN).toFixed(3),
    );
    return {
      name: `processor time through a pool of one connection, of that on the connection, ${id}`,
      figure: `${middle} (quartiles ${low}–${high})`,
      goal: '≤ 1.05',
      values: { ratios },
    };
  };
}

interface Calls {
  readonly reads: number;
  readonly writes: number;
  readonly waits: number;
}

function systemCalls(id: string): (bench: Bench) => Promise<Check> {
  return async (bench) => {
    // For LD_PRELOAD: a program under strace is slow, and its batches are large.
    const counter = await compile(bench.workshop, 'calls', '-shared', '-fPIC');
    const ops = 200_000;
    const row = { ...rowOf(id), ops };
    const { uri } = await bench.servers.get(row);
    const count = async ({ file, args }: CommandLine): Promise<Calls> => {
      const result = join(bench.workshop.folder, 'calls.json');
      await measure({ file: 'env', args: [`LD_PRELOAD=${counter}`, `CALLS_FILE=${result}`, file, ...args] });
      return JSON.parse(await readFile(result, 'utf8')) as Calls;
    };
    const text = ({ reads, writes, waits }: Calls): string =>
      [reads, writes, waits].map((calls) => (calls / ops).toFixed(2)).join(' / ');
    const ours = await count(await bench.peers.ours(row, uri));
    const counts: Record<string, Calls> = { ours };
    let figure = `${(ours.writes / ours.reads).toFixed(2)} writes per read; read / write / poll per op: ${text(ours)}`;
    for (const peer of ['libnbd', 'floor'] as const) {
      if (row.peers[peer] === undefined) continue;
      try {
        const calls = await count(await bench.peers.command(peer, row, uri));
        counts[peer] = calls;
        figure += `, ${peer} ${text(calls)}`;
      } catch (error) {
        if (!(error instanceof Gap)) throw error;
        figure += `, ${peer} not measured: ${error.message}`;
      }
    }
    return { name: `system calls, ${id}`, figure, goal: '≤ 1.1 writes per read', values: { ops, ...counts } };
  };
}

const CHECKS: Readonly<Record<string, (bench: Bench) => Promise<Check>>> = {
  'check-event-loop': eventLoop('extents'),
  'check-event-loop-burst': eventLoop('burst'),
  'check-heap': heap,
  'check-copies-pread': copies('pread-1m-d16'),
  'check-copies-preadinto': copies('preadinto-1m-d16'),
  'check-pool-cost-cache': poolCost('cache-4k-d64'),
  'check-pool-cost-pread': poolCost('pread-4k-d64'),
  'check-pool-cost-pwrite': poolCost('pwrite-4k-d64'),
  'check-syscalls-pread': systemCalls('pread-4k-d64'),
  'check-syscalls-pwrite': systemCalls('pwrite-4k-d64'),
  'check-syscalls-cache': systemCalls('cache-4k-d16'),
};

export const CHECK_NAMES = Object.keys(CHECKS);

export async function runChecks(bench: Bench): Promise<Check[]> {
  const { options } = bench;
  const results: Check[] = [];
  for (const [name, check] of Object.entries(CHECKS)) {
    const isWanted = options.only.length > 0 ? options.only.some((part) => name.includes(part)) : true;
    if (!options.checks || !isWanted) continue;
    try {
      results.push(await check(bench));
    } catch (error) {
      const { message } = error as Error;
      results.push({ name, figure: `not measured: ${message.split('\n')[0] ?? ''}`, goal: '', values: {} });
      if (error instanceof Gap) continue;
      process.stderr.write(`${name}: ${message}\n`);
      process.exitCode = 1;
    }
    process.stderr.write(`${name.padEnd(24)} ${results.at(-1)?.figure ?? ''}\n`);
  }
  return results;
}
