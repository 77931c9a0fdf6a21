// Workers in processes of their own, which specs kill, stop and continue.

import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import type { WorkOptions } from '../../lib/fleet/index.js';
import { bundled } from '../support/bundled.js';
import { until } from '../support/waiting.js';

export interface WorkerLine {
  readonly event: string;
  readonly detail: {
    readonly id?: string;
    readonly offset?: number;
    readonly phase?: string;
    readonly why?: string;
    readonly reason?: { readonly code: string };
    readonly code?: string;
    readonly moved?: number;
  } | null;
}

const running = new Set<WorkerProcess>();

let program: Promise<string> | undefined;

/** Ends what is still running. */
export async function stopAllWorkers(): Promise<void> {
  await Promise.all([...running].map((worker) => worker.stop()));
}

if (typeof afterAll === 'function') afterAll(stopAllWorkers, 60_000);

export class WorkerProcess {
  readonly lines: WorkerLine[] = [];
  readonly ended: Promise<number | null>;
  log = '';
  readonly #child: ChildProcess;

  static async start(redis: string, options: WorkOptions): Promise<WorkerProcess> {
    program ??= bundled(['spec/fleet/programs/worker.ts']).then((path) => path('worker'));
    return new WorkerProcess(await program, redis, options);
  }

  private constructor(path: string, redis: string, options: WorkOptions) {
    const child = spawn(process.execPath, [path, JSON.stringify({ redis, options })], {
      env: { ...process.env, NODE_OPTIONS: '' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop() ?? '';
      for (const line of parts) this.lines.push(JSON.parse(line) as WorkerLine);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.log += text));
    // When all that it printed has been read, too, which 'exit' does not wait for.
    this.ended = new Promise((resolve) => child.once('close', (code) => resolve(code)));
    void this.ended.then(() => running.delete(this));
    this.#child = child;
    running.add(this);
  }

  get isAlive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  all(event: string): WorkerLine[] {
    return this.lines.filter((line) => line.event === event);
  }

  /** Resolves when it has reported an event this many times. */
  async reported(event: string, times = 1): Promise<void> {
    await until(() => {
      if (!this.isAlive && this.all(event).length < times) {
        throw new Error(`the worker ended before "${event}": ${this.log}`);
      }
      return this.all(event).length >= times;
    }, `a worker reports "${event}"`);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /**
   * Stops it (SIGSTOP) at a moment at which nothing is half sent: the system and the event loop would send the rest as soon
   * as it continues, which the README of fleets says, and no code of the worker could prevent.
   */
  async freeze(): Promise<void> {
    const { pid = 0 } = this.#child;
    for (;;) {
      this.kill('SIGSTOP');
      await until(() => /\) [TZ] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')), 'the worker stands');
      if (!isSending(pid)) return;
      this.kill('SIGCONT');
      await sleep(10);
    }
  }

  async stop(): Promise<void> {
    if (this.isAlive) this.#child.kill('SIGKILL');
    await this.ended;
  }
}

/** Whether a process that is stopped was at work, or waits until a socket takes the rest of what is to be sent. */
function isSending(pid: number): boolean {
  // It was not in a system call.
  if (readFileSync(`/proc/${pid}/syscall`, 'latin1').startsWith('-1 ')) return true;
  const EPOLLOUT = 4;
  return readdirSync(`/proc/${pid}/fdinfo`)
    .flatMap((fd) => [
      ...readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1').matchAll(/^tfd:.* events: +([0-9a-f]+)/gm),
    ])
    .some(([, events]) => (Number.parseInt(events ?? '0', 16) & EPOLLOUT) !== 0);
}
