// A process that is ended by a signal, which no code of it sees: its programs end, and their folders go. And one that
// has no descriptors left: starting a program fails, and nothing stays.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

import { beforeAll, describe, expect, it } from '@jest/globals';

import { bundled } from '../support/bundled.js';
import { runTool } from '../support/tools.js';
import { isAlive } from '../support/transport-probe.js';

let programs: (name: string) => string;
beforeAll(async () => {
  programs = await bundled(['lib/transport/subprocess.ts', 'lib/transport/socket-activation.ts']);
});

const source = (body: string): string[] => [
  ...['--input-type=module', '-e'],
  `import { runCommand } from ${JSON.stringify(programs('subprocess'))};
   import { activate } from ${JSON.stringify(programs('socket-activation'))};
   import { closeSync, openSync, readdirSync } from 'node:fs';
   import { tmpdir } from 'node:os';
   const options = { errorOutput: 'inherit', grace: 60000, socketName: '' };
   ${body}`,
];

/** Programs that see nothing of the end of their input. */
const PARENT = `
  const [command, activated] = [await runCommand(['sleep', '60'], options), await activate(['sleep', '60'], options)];
  command.transport.ref();
  console.log(command.subprocess.pid, activated.subprocess.pid, activated.path);
  setInterval(() => undefined, 1000);`;

async function firstLine(output: Readable): Promise<string> {
  for await (const line of createInterface({ input: output })) return line;
  throw new Error('it ended without a word');
}

async function gone(check: () => boolean): Promise<void> {
  while (check()) await sleep(10);
}

describe('a process that a signal ends', () => {
  it('leaves nothing behind', async () => {
    await Promise.all((['SIGTERM', 'SIGHUP', 'SIGKILL'] as const).map(leavesNothing));
  });
});

async function leavesNothing(signal: NodeJS.Signals): Promise<void> {
  const parent = spawn(process.execPath, source(PARENT), { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => parent.once('exit', (_code, name) => resolve(name)));
  const line = await firstLine(parent.stdout);
  const [command = '', activated = '', path = ''] = line.split(' ');
  parent.kill(signal);
  // The default action of the signal happens: no handler is installed.
  expect(await ended).toBe(signal);
  await gone(() => isAlive(Number(command)) || isAlive(Number(activated)));
  await gone(() => existsSync(dirname(path)));
}

describe('a process without descriptors', () => {
  it('is refused a program, and nothing is left', async () => {
    const body = `
      await (await runCommand(['true'], options)).transport.destroy();
      const tries = { command: () => runCommand(['sleep', '60'], options), activated: () => activate(['sleep', '60'], options) };
      for (const [name, start] of Object.entries(tries)) {
        for (let free = 0; free < 9; free++) {
          const taken = [];
          try { for (;;) taken.push(openSync('/dev/null')); } catch {}
          for (let i = 0; i < free; i++) closeSync(taken.pop());
          const outcome = await start().then((running) => (running.transport.destroy(), running.subprocess.kill('SIGKILL'), 'runs'), (error) => error.code);
          for (const fd of taken) closeSync(fd);
          console.log(name, free, outcome);
        }
      }
      const left = () => readdirSync(tmpdir()).filter((entry) => entry.startsWith('nbd-' + process.pid + '-')).length;
      for (let i = 0; i < 10_000 && left() > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
      console.log(left());
      process.exit(0);`;
    const script = ['ulimit -n 120; exec "$@"', 'sh', process.execPath, ...source(body)];
    const { stdout, code } = await runTool('/bin/sh', ['-c', ...script]);
    const lines = stdout.trim().split('\n');
    expect({ code, left: lines.pop(), count: lines.length }).toEqual({ code: 0, left: '0', count: 18 });
    expect(lines.filter((line) => !/ (EMFILE|runs)$/.test(line))).toEqual([]);
    expect(lines.filter((line) => line.endsWith('EMFILE')).length).toBeGreaterThan(4);
  });
});
