// What the figures were measured on, without names of machines or people.

import { cpus, release, totalmem, type } from 'node:os';
import { hasTool, runTool } from '../../support/real-servers.js';

const VERSIONS: readonly (readonly [program: string, args: readonly string[]])[] = [
  ['nbdkit', ['--version']],
  ['nbdinfo', ['--version']],
  ['nbdcopy', ['--version']],
  ['qemu-img', ['--version']],
  ['gcc', ['-dumpfullversion']],
  ['fio', ['--version']],
];

export interface System {
  readonly node: string;
  readonly kernel: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly versions: Readonly<Record<string, string>>;
}

export async function describeSystem(): Promise<System> {
  const versions: Record<string, string> = {};
  for (const [program, args] of VERSIONS) {
    if (!hasTool(program)) continue;
    const { stdout } = await runTool(program, args);
    const version = /\d+(\.\d+)+/.exec(stdout)?.[0];
    if (version !== undefined) versions[program === 'nbdinfo' ? 'libnbd' : program] = version;
  }
  return {
    node: process.version,
    kernel: `${type()} ${release()}`,
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    versions,
  };
}

export function renderSystem({ node, kernel, processor, cores, memoryGib, versions }: System): string {
  const programs = Object.entries(versions).map(([program, version]) => `${program} ${version}`);
  return `${processor}, ${cores} cores, ${memoryGib} GiB; ${kernel}; Node ${node}; ${programs.join(', ')}\n`;
}
