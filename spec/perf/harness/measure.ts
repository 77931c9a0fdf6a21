// Running measured programs: ours and a peer in turn, and what to make of the figures.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** One run of one program, as it prints it. */
export interface Measurement {
  readonly ops: number;
  readonly seconds: number;
  readonly cpuUs: number;
  /** Operations whose data was looked at byte by byte. */
  readonly verified: number;
  /** Latencies in microseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly peakKib: number;
  /** Of a run of a given number of commands: seconds of each tenth, memory after each. */
  readonly partSeconds?: readonly number[];
  readonly partRssKib?: readonly number[];
}

export interface CommandLine {
  readonly file: string;
  readonly args: readonly string[];
  /** Makes a measurement of what it printed; by default that is one. */
  readonly parse?: (output: string, peakKib: number) => Measurement;
  /** Milliseconds; default 60,000. */
  readonly timeout?: number;
}

/** The reason why something is not measured; it becomes a line of the table. */
export class Gap extends Error {
  override readonly name = 'Gap';
}

function peakOf(pid: number | undefined, before: number): number {
  try {
    const status = readFileSync(`/proc/${String(pid)}/status`, 'utf8');
    return Math.max(before, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
  } catch {
    return before;
  }
}

/** Runs a program to its end and gives back what it printed. */
export function run(command: CommandLine): Promise<{ output: string; peakKib: number }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command.file, command.args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let said = '';
    let peakKib = 0;
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    const timer = setTimeout(() => child.kill('SIGKILL'), command.timeout ?? 60_000);
    // Only programs that do not report it themselves are asked.
    const watch =
      command.parse === undefined
        ? undefined
        : setInterval(() => {
            peakKib = peakOf(child.pid, peakKib);
          }, 100);
    const clear = (): void => {
      clearTimeout(timer);
      clearInterval(watch);
    };
    child.once('error', (error) => {
      clear();
      reject(error);
    });
    child.once('close', (code, signal) => {
      clear();
      if (code === 0) resolve({ output, peakKib });
      else reject(new Error(`ended with ${String(code ?? signal)}: ${said.trim().slice(-2000)}`));
    });
  });
}

export async function measure(command: CommandLine): Promise<Measurement> {
  const { output, peakKib } = await run(command);
  if (command.parse !== undefined) return command.parse(output, peakKib);
  return JSON.parse(output) as Measurement;
}

export interface Pair {
  readonly ours: Measurement;
  readonly peer: Measurement;
}

/** Ours, the peer, ours, the peer … */
export async function measurePairs(ours: CommandLine, peer: CommandLine, pairs: number): Promise<Pair[]> {
  const results: Pair[] = [];
  for (let i = 0; i < pairs; i++) {
    const a = await measure(ours);
    results.push({ ours: a, peer: await measure(peer) });
  }
  return results;
}

/** Median and spread. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const at = (i: number): number => sorted[i] ?? NaN;
  return {
    median: (at(Math.ceil(middle) - 1) + at(Math.floor(middle))) / 2,
    min: at(0),
    max: at(sorted.length - 1),
  };
}

/** The medians of one program's runs. */
export interface Summary {
  readonly opsPerSecond: number;
  readonly megabytesPerSecond: number;
  readonly cpuUsPerOp: number;
  readonly p50: number;
  readonly p99: number;
  readonly peakMib: number;
  readonly verified: number;
}

export function summarize(runs: readonly Measurement[], bytesPerOp: number): Summary {
  const median = (value: (run: Measurement) => number): number => spread(runs.map(value)).median;
  const opsPerSecond = median((run) => run.ops / run.seconds);
  return {
    opsPerSecond,
    megabytesPerSecond: (opsPerSecond * bytesPerOp) / 1e6,
    cpuUsPerOp: median((run) => run.cpuUs / run.ops),
    p50: median((run) => run.p50),
    p99: median((run) => run.p99),
    peakMib: median((run) => run.peakKib / 1024),
    verified: median((run) => run.verified),
  };
}

export function ratios(pairs: readonly Pair[]): Spread {
  return spread(pairs.map(({ ours, peer }) => ours.ops / ours.seconds / (peer.ops / peer.seconds)));
}
