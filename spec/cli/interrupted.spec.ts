// Ctrl-C, SIGTERM and SIGHUP at moments at which nothing moves: the command reports it and ends; servers that were
// started are waited for when all went well, and only then.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { isAlive } from '../support/transport-probe.js';
import { until } from '../support/waiting.js';
import { catchesSignals, cliPath, exitOf, HALF_WAY, nbd, printed, start } from './support.js';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-interrupted-'));
  await writeFile(at('source'), Buffer.alloc(100_000, 1));
  await runTool('mkfifo', [at('silent'), at('unread')]);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const SIGNALS = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const;

describeWith(['nbdkit'], 'a signal while nothing moves', () => {
  it.each(SIGNALS)('ends a copy from a server that is frozen (%s)', async (signal, code) => {
    await using server = await startNbdkit({ plugin: 'pattern', filters: ['delay'], args: ['1G', 'rdelay=50ms'] });
    const child = await start(['copy', '-R2', '--progress=1', server.uri(), 'null:']);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    process.kill(server.pid, 'SIGSTOP');
    await sleep(100);
    child.kill(signal);
    expect(await exit).toBe(code);
    expect(child.err()).toMatch(/^nbd copy: the copy is incomplete: .*\nnbd copy: interrupted\n$/);
    process.kill(server.pid, 'SIGCONT');
  });

  it('leaves the server as it was: the connection ends in good order', async () => {
    await using server = await startNbdkit({ plugin: 'pattern', filters: ['delay'], args: ['1G', 'rdelay=20ms'] });
    for (let i = 0; i < 3; i++) {
      const child = await start(['copy', '-R16', '--progress=1', server.uri(), 'null:']);
      const exit = exitOf(child);
      await printed(child, HALF_WAY);
      child.kill('SIGINT');
      expect(await exit).toBe(130);
    }
    expect(isAlive(server.pid)).toBe(true);
    expect((await nbd(['info', '--size', server.uri()])).stdout).toBe('1073741824\n');
  });
});

describe('a signal while a pipe is silent', () => {
  const WAITING: readonly (readonly [title: string, words: string[], stdin: 'pipe' | 'ignore'])[] = [
    ['standard input', ['copy', '-', 'copied'], 'pipe'],
    ['a fifo without a writer', ['copy', 'silent', 'copied'], 'ignore'],
    ['a fifo without a reader', ['copy', 'source', 'unread'], 'ignore'],
    ['standard output that is full', ['copy', '/dev/zero', '-'], 'ignore'],
  ];

  it.each(WAITING)('ends it: %s', async (_title, words, stdin) => {
    const child = spawn(process.execPath, [await cliPath(), ...words], {
      cwd: folder,
      stdio: [stdin, 'pipe', 'ignore'],
    });
    // Nobody reads from its standard output, or writes to its input.
    const exit = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
    await until(() => catchesSignals(child));
    await sleep(200);
    child.kill('SIGINT');
    expect(await exit).toBe(130);
    child.stdout?.destroy();
  });
});

/** A server that takes `delay` seconds after SIGTERM, and exits with `status`. */
const slow = (done: string, delay: number, status = 0): string[] => [
  ...['[', 'sh', '-c'],
  `trap 'kill $server; wait $server; sleep ${delay}; : > ${done}; exit ${status}' TERM
   sh -c 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"' sh nbdkit -f memory 1M & server=$!
   wait $server`,
  ']',
];

describeWith(['nbdkit'], 'a server that was started for a command', () => {
  it('is waited for, with a message', async () => {
    const { code, stderr } = await nbd(['copy', at('source'), ...slow(at('done'), 2.5)]);
    expect({ code, stderr, done: existsSync(at('done')) }).toEqual({
      code: 0,
      stderr: expect.stringMatching(
        /^nbd copy: waiting for the server \(process \d+\) to store its data and exit\n$/,
      ) as unknown as string,
      done: true,
    });
  });

  it.each([
    ['copy', () => ['copy', at('source')]],
    ['zero', () => ['zero', '--yes']],
    ['discard', () => ['discard', '--yes']],
  ])('has failed the command when it fails: %s', async (name, words) => {
    const { code, stderr } = await nbd([...words(), ...slow(at('failed'), 0, 7)]);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^nbd ${name}: shutdown: the command sh exited with status 7; what was written`));
  });

  it('is left to its end by Ctrl-C, and killed by a second one', async () => {
    for (const times of [1, 2]) {
      const child = await start(['copy', at('source'), ...slow(at(`never-${times}`), 30)]);
      const exit = exitOf(child);
      await printed(child, 'waiting for the server');
      const pid = Number(/process (\d+)/.exec(child.err())?.[1]);
      child.kill('SIGINT');
      if (times === 2) {
        await sleep(50);
        child.kill('SIGINT');
      }
      expect(await exit).toBe(130);
      if (times === 1) {
        expect(child.err()).toMatch(
          /interrupted: the server \(process \d+\) was asked to exit, and is still running\n/,
        );
        expect(isAlive(pid)).toBe(true);
        process.kill(pid, 'SIGKILL');
      } else {
        while (isAlive(pid)) await sleep(10);
      }
    }
  });
});
