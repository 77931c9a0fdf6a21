// The figures that are not ratios: system calls, copies, heap, and how long the event loop is held.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findTool, hasTool } from '../../support/real-servers.js';
import { Gap, measure, run, spread } from './measure.js';
import { type BenchOptions } from './options.js';
import { type Peers, workArguments } from './peers.js';
import { type Row, ROWS } from './rows.js';
import { type Servers } from './servers.js';
import { type Check } from './table.js';
import { type Workshop } from './workshop.js';

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
async function runProgram(bench: Bench, name: string, row: Row, flags: readonly string[] = []): Promise<unknown> {
  const { uri } = await bench.servers.get(row);
  const args = [...flags, bench.workshop.program(`programs/${name}.js`), ...workArguments(row, uri, bench.options)];
  return JSON.parse((await run({ file: process.execPath, args })).output);
}

async function eventLoop(bench: Bench): Promise<Check> {
  const row = { ...rowOf('blockstatus-4k-d1-100k'), extents: MILLION };
  const { maps, idle } = (await runProgram(bench, 'loop-delay', row)) as { maps: number[]; idle: number[] };
  const text = (values: readonly number[]): string => {
    const { median, min, max } = spread(values);
    return `${median.toFixed(1)} ms (${min.toFixed(1)}–${max.toFixed(1)})`;
  };
  return {
    name: 'longest turn of the event loop, block map of 1,000,000 extents',
    figure: `${text(maps)}; idle for as long ${text(idle)}`,
    goal: '≤ 20 ms',
    values: { maps, idle },
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

const READING = /^(read|readv|recvfrom|recvmsg|recv)$/;
const WRITING = /^(write|writev|sendto|sendmsg|send)$/;
const WAITING = /^(epoll_wait|epoll_pwait|poll|ppoll)$/;

interface Calls {
  reads: number;
  writes: number;
  waits: number;
}

/** Counts the calls on sockets other than the standard streams. */
function countCalls(trace: string): Calls {
  const calls = { reads: 0, writes: 0, waits: 0 };
  for (const line of trace.split('\n')) {
    const [, name = '', fd, kind = ''] = /^(?:\d+\s+)?(\w+)\((\d+)?(?:<(\w+))?/.exec(line) ?? [];
    if (WAITING.test(name)) calls.waits++;
    if (Number(fd) <= 2 || !/^(UNIX|TCP|socket)/.test(kind)) continue;
    if (READING.test(name)) calls.reads++;
    else if (WRITING.test(name)) calls.writes++;
  }
  return calls;
}

function systemCalls(id: string): (bench: Bench) => Promise<Check> {
  return async (bench) => {
    if (!hasTool('strace')) throw new Gap('strace is not installed');
    const ops = 20_000;
    const row = { ...rowOf(id), ops };
    const { uri } = await bench.servers.get(row);
    const trace = async (command: { file: string; args: readonly string[] }): Promise<Calls> => {
      const file = join(bench.workshop.folder, 'trace');
      const set = 'trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,epoll_wait,epoll_pwait,poll,ppoll';
      await measure({
        file: findTool('strace') ?? 'strace',
        args: ['-f', '-yy', '-s0', '-e', set, '-o', file, command.file, ...command.args],
      });
      return countCalls(await readFile(file, 'utf8'));
    };
    const ours = await trace(bench.peers.ours(row, uri));
    const text = ({ reads, writes, waits }: Calls): string =>
      `${(reads / ops).toFixed(2)} read, ${(writes / ops).toFixed(2)} write, ${(waits / ops).toFixed(2)} poll per op`;
    let libnbd: Calls | undefined;
    try {
      libnbd = await trace(await bench.peers.command('libnbd', row, uri));
    } catch (error) {
      if (!(error instanceof Gap)) throw error;
    }
    return {
      name: `system calls under strace, ${id}`,
      figure:
        `${(ours.writes / ours.reads).toFixed(2)} writes per read; ${text(ours)}` +
        (libnbd === undefined ? '' : `; libnbd ${text(libnbd)}`),
      goal: '≤ 1.1 writes per read',
      values: { ops, ours, libnbd },
    };
  };
}

const CHECKS: Readonly<Record<string, (bench: Bench) => Promise<Check>>> = {
  'check-event-loop': eventLoop,
  'check-heap': heap,
  'check-copies-pread': copies('pread-1m-d16'),
  'check-copies-preadinto': copies('preadinto-1m-d16'),
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
