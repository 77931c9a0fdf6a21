// Programs behind a connection: how they are started, what they inherit, how they end. Only a shell is needed.

import { beforeAll, describe, expect, it } from '@jest/globals';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { runCommand, type Running } from '../../lib/transport/subprocess.js';
import { bundled } from '../support/bundled.js';
import { rejection } from '../support/caught.js';
import { runTool } from '../support/tools.js';
import { held, isAlive, privateFolders, Probe, stillHeld } from '../support/transport-probe.js';

const OPTIONS = { errorOutput: 'capture', grace: 100 } as const;

async function start(argv: readonly string[], grace = 100): Promise<Running & { probe: Probe }> {
  const running = await runCommand(argv, { ...OPTIONS, grace });
  const probe = new Probe();
  running.transport.start(probe);
  return { ...running, probe };
}

const shell = (script: string, ...args: string[]): string[] => ['/bin/sh', '-c', script, 'sh', ...args];

describe('a command', () => {
  it('reads what is written and its output is read', async () => {
    const { transport, subprocess, probe } = await start(['cat']);
    transport.write([Buffer.from('one '), Buffer.from('two')], () => undefined);
    await probe.until(() => probe.text === 'one two');
    transport.end();
    await probe.until(() => probe.hasEnded);
    transport.destroy();
    await subprocess.ended;
    expect(subprocess.isRunning).toBe(false);
    expect(await probe.closed()).toBeNull();
  });

  it('has one socket as its stdin and stdout, as inetd gives it', async () => {
    const { transport, probe } = await start(shell('ls -l /proc/self/fd/0 /proc/self/fd/1 2>/dev/null || echo none'));
    await probe.until(() => probe.hasEnded);
    transport.destroy();
    if (probe.text.includes('none')) return;
    const sockets = [...probe.text.matchAll(/socket:\[(\d+)\]/g)].map(([, inode]) => inode);
    expect(sockets).toHaveLength(2);
    expect(sockets[0]).toBe(sockets[1]);
  });

  it('gets its arguments as they are, through no shell', async () => {
    const nasty = ['a b', '$(touch /tmp/x)', '`id`', ';', '|', '"', "'", '', '-x', '--', '*', '\\', 'é\n'];
    const { transport, probe } = await start(shell('for i; do printf "<%s>" "$i"; done', ...nasty));
    await probe.until(() => probe.hasEnded);
    transport.destroy();
    expect(probe.text).toBe(nasty.map((argument) => `<${argument}>`).join(''));
  });

  it('moves a megabyte both ways at once', async () => {
    const { transport, probe } = await start(['cat']);
    const block = Buffer.alloc(1 << 20, 'abcdefgh');
    transport.write([block], () => undefined);
    await probe.until(() => probe.length === block.length);
    expect(Buffer.from(probe.text).equals(block)).toBe(true);
    transport.destroy();
  });

  it('leaves no descriptor, folder, listener or timer behind', async () => {
    const run = async (): Promise<void> => {
      const { transport, subprocess, probe } = await start(['cat']);
      transport.destroy();
      await Promise.all([subprocess.ended, probe.closed()]);
    };
    await run();
    const before = held();
    for (let i = 0; i < 20; i++) await run();
    expect(await stillHeld(before)).toEqual({ descriptors: 0, listeners: 0 });
    expect(privateFolders()).toEqual([]);
  });
});

describe('a command that cannot be run', () => {
  it('is ENOENT when there is no such program', async () => {
    const error = await rejection(runCommand(['no-such-program-here'], OPTIONS));
    expect(error).toMatchObject({ code: 'ENOENT', message: 'program not found: no-such-program-here' });
    expect(privateFolders()).toEqual([]);
  });

  it('is EACCES when it may not be run', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'spec-'));
    const file = join(folder, 'data');
    await writeFile(file, 'no program');
    await chmod(file, 0o644);
    const error = await rejection(runCommand([file], OPTIONS));
    expect(error).toMatchObject({ code: 'EACCES', message: 'no permission to run the program data' });
    await rm(folder, { recursive: true });
  });

  it('rejects with the reason of a signal that is aborted, and runs nothing', async () => {
    const reason = new Error('enough');
    expect(await rejection(runCommand(['cat'], OPTIONS, AbortSignal.abort(reason)))).toBe(reason);
    expect(privateFolders()).toEqual([]);
  });
});

describe('the end of a command', () => {
  const endOf = async (script: string): Promise<Error | null> => {
    const { transport, probe } = await start(shell(script));
    const parted = probe.until(() => probe.hasEnded || probe.closedWith !== undefined);
    await parted;
    transport.destroy();
    return probe.closedWith ?? null;
  };

  it('in good order is an end like any other', async () => {
    expect(await endOf('exit 0')).toBeNull();
  });

  it('with a status is an error that contains it, with the end of its stderr', async () => {
    const error = await endOf('echo first >&2; printf "second\\tline\\033[1m\\n" >&2; exit 3');
    expect(error).toMatchObject({
      code: 'ENOTCONN',
      message: 'the command sh exited with status 3: first | second line [1m',
    });
  });

  it('by a signal is an error that names the signal', async () => {
    expect((await endOf('kill -KILL $$'))?.message).toBe('the command sh was ended by SIGKILL');
  });

  it('is reported with at most 2 KiB of its stderr', async () => {
    const error = await endOf('i=0; while [ $i -lt 5000 ]; do echo "line $i" >&2; i=$((i+1)); done; exit 1');
    expect(error?.message).toMatch(/\| line 4999$/);
    expect(error?.message.length).toBeLessThan(3000);
  });

  it('is not waited for when a child of its own holds its stderr', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-child-'));
    const pidOf = join(folder, 'pid');
    const error = await endOf(`sleep 600 >/dev/null </dev/null & echo $! >${pidOf}; exit 2`);
    expect(error?.message).toBe('the command sh exited with status 2');
    // The child is still there.
    process.kill(Number(await readFile(pidOf, 'utf8')), 'SIGKILL');
    await rm(folder, { recursive: true });
  });

  it('that does not come, though the connection has ended, is an end', async () => {
    const { transport, subprocess, probe } = await start(shell('exec 0<&- 1>&-; exec sleep 30'));
    await probe.until(() => probe.hasEnded);
    expect(subprocess.isRunning).toBe(true);
    transport.destroy();
    await subprocess.ended;
  });

  it('that we requested is reported at once, without a reason', async () => {
    const { transport, subprocess, probe } = await start(shell('cat >/dev/null; exit 5'));
    transport.end();
    await probe.until(() => probe.hasEnded);
    transport.destroy();
    await subprocess.ended;
    expect(await probe.closed()).toBeNull();
  });
});

describe('a command whose connection is gone', () => {
  it('ends by itself when it sees the end of its input', async () => {
    const { transport, subprocess } = await start(['cat'], 60_000);
    transport.destroy();
    await subprocess.ended;
  });

  it('gets SIGTERM when it runs on', async () => {
    const { transport, subprocess } = await start(['sleep', '30']);
    transport.destroy();
    await subprocess.ended;
    expect(isAlive(subprocess.pid)).toBe(false);
  });

  it('gets SIGKILL when it does not care', async () => {
    const { transport, subprocess, probe } = await start(shell('trap "" TERM; echo ready; while :; do sleep 1; done'));
    await probe.until(() => probe.text !== '');
    transport.destroy();
    await subprocess.ended;
  });

  it('can be waited for, but not for ever', async () => {
    const { transport, subprocess } = await start(['sleep', '600'], 600_000);
    transport.destroy();
    await subprocess.endedWithin(50);
    expect(subprocess.isRunning).toBe(true);
    expect(subprocess.kill('SIGKILL')).toBe(true);
    await subprocess.ended;
    expect(subprocess.kill('SIGKILL')).toBe(false);
  });
});

describe('a process that exits without closing its connections', () => {
  let imports = '';
  beforeAll(async () => {
    const path = await bundled(['lib/transport/subprocess.ts', 'lib/transport/socket-activation.ts']);
    imports = `import { runCommand } from ${JSON.stringify(path('subprocess'))};
               import { activate } from ${JSON.stringify(path('socket-activation'))};`;
  });
  const program = (body: string): Promise<{ code: number; stdout: string; stderr: string }> =>
    runTool(process.execPath, ['--input-type=module', '-e', imports + body], { env: { FORCE_COLOR: '0' } });

  it('takes its programs along', async () => {
    const { stdout, code } = await program(`
      const { subprocess } = await runCommand(['sleep', '60'], { errorOutput: 'inherit', grace: 60000 });
      console.log(subprocess.pid);
      process.exit(0);`);
    expect(code).toBe(0);
    const pid = Number(stdout);
    expect(pid).toBeGreaterThan(1);
    for (let i = 0; i < 3000 && isAlive(pid); i++) await sleep(20);
    expect(isAlive(pid)).toBe(false);
  });

  it('takes their sockets along', async () => {
    const { stdout, code } = await program(`
      const { subprocess, path } = await activate(['sleep', '60'], { errorOutput: 'capture', grace: 60000, socketName: '' });
      console.log(path);
      process.exit(0);`);
    expect({ code, path: stdout.trim() }).toEqual({ code: 0, path: expect.stringMatching(/nbd-\d+-\w+\/socket$/) });
    expect(existsSync(dirname(stdout.trim()))).toBe(false);
  });

  it('is not kept alive by a program', async () => {
    const { code, stderr } = await program(`
      const { transport } = await runCommand(['sleep', '60'], { errorOutput: 'capture', grace: 60000 });
      transport.unref();`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  it('shows the stderr of its programs when asked to', async () => {
    const { stderr } = await program(`
      const { transport } = await runCommand(['sh', '-c', 'echo seen >&2'], { errorOutput: 'inherit', grace: 100 });
      transport.start({ target: () => new Uint8Array(9), advance() {}, push() {}, end() { transport.destroy(); }, close() {} });`);
    expect(stderr).toBe('seen\n');
  });
});
