// systemd's socket activation as a program sees it. Only a shell and Node are needed.

import { describe, expect, it } from '@jest/globals';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { activate, type Activated } from '../../lib/transport/socket-activation.js';
import { rejection } from '../support/caught.js';
import { held, privateFolders, Probe, stillHeld } from '../support/transport-probe.js';

const OPTIONS = { errorOutput: 'capture', grace: 200, socketName: '' } as const;

/** A server on descriptor 3 that greets with its own facts and then echoes. */
const SERVER = `
  const { LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES } = process.env;
  const facts = { LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, pid: process.pid, argv: process.argv.slice(1) };
  require('node:net').createServer((socket) => {
    socket.write(JSON.stringify(facts) + '\\n');
    socket.pipe(socket);
  }).listen({ fd: 3 });
`;
const server = (...args: string[]): string[] => [process.execPath, '-e', SERVER, '--', ...args];

interface Facts {
  readonly LISTEN_FDS?: string;
  readonly LISTEN_PID?: string;
  readonly LISTEN_FDNAMES?: string;
  readonly pid: number;
  readonly argv: readonly string[];
}

async function start(argv: readonly string[], options = {}): Promise<Activated & { probe: Probe; facts: Facts }> {
  const activated = await activate(argv, { ...OPTIONS, ...options });
  const probe = new Probe();
  activated.transport.start(probe);
  await probe.until(() => probe.text.includes('\n'));
  return { ...activated, probe, facts: JSON.parse(probe.text) as Facts };
}

async function stop({ transport, subprocess }: Activated): Promise<void> {
  transport.destroy();
  await subprocess.ended;
}

/** The message for an activated script that ends, before or after the connection. */
async function endOf(script: string): Promise<unknown> {
  try {
    const { transport } = await activate(['/bin/sh', '-c', script], OPTIONS);
    const probe = new Probe();
    transport.start(probe);
    return await probe.closed();
  } catch (error) {
    return error;
  }
}

describe('an activated program', () => {
  it('finds a listening socket at descriptor 3, and its own pid in LISTEN_PID', async () => {
    const activated = await start(server());
    const { facts, subprocess } = activated;
    expect(facts).toMatchObject({ LISTEN_FDS: '1', LISTEN_FDNAMES: 'unknown', pid: subprocess.pid });
    expect(Number(facts.LISTEN_PID)).toBe(facts.pid);
    await stop(activated);
  });

  it('learns the name of the socket', async () => {
    const activated = await start(server(), { socketName: 'disk1' });
    expect(activated.facts.LISTEN_FDNAMES).toBe('disk1');
    await stop(activated);
  });

  it('gets its arguments as they are', async () => {
    const nasty = ['a b', '$(touch /tmp/x)', '`id`', '; exit', '>x', "'", '"', '', '-c', '--', '*', '$1', 'é\n'];
    const activated = await start(server(...nasty));
    expect(activated.facts.argv).toEqual(nasty);
    await stop(activated);
  });

  it('may have a name that a shell would make something of', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'spec-'));
    for (const name of ['-x', 'a b', '$(id)', "it's"]) {
      await symlink(process.execPath, join(folder, name));
      const [, ...args] = server();
      const activated = await start([join(folder, name), ...args]);
      expect(activated.facts.pid).toBe(activated.subprocess.pid);
      await stop(activated);
    }
    await rm(folder, { recursive: true });
  });

  it('accepts further connections at its path as long as it runs', async () => {
    const activated = await start(server());
    const second = connect(activated.path);
    second.setEncoding('utf8');
    const text = await new Promise<string>((resolve) => second.once('data', (chunk) => resolve(String(chunk))));
    expect(JSON.parse(text)).toMatchObject({ pid: activated.subprocess.pid });
    second.destroy();
    await stop(activated);
  });

  it('moves bytes', async () => {
    const activated = await start(server());
    const { transport, probe } = activated;
    const before = probe.text.length;
    transport.write([Buffer.from('echo'), Buffer.from(' this')], () => undefined);
    await probe.until(() => probe.text.length === before + 9);
    expect(probe.text.slice(before)).toBe('echo this');
    await stop(activated);
  });

  it('gets SIGTERM, and its socket is removed, when the connection ends', async () => {
    const activated = await start(server());
    activated.transport.destroy();
    await activated.probe.closed();
    expect(existsSync(dirname(activated.path))).toBe(false);
    await activated.subprocess.ended;
  });

  it('sees the end of its stdin, and cannot write to our stdout', async () => {
    const script = 'read x; echo "to stdout: $? $x"; exit 7';
    expect(await endOf(script)).toMatchObject({ message: 'the command sh exited with status 7: to stdout: 1' });
  });

  it('leaves no descriptor, folder, listener or timer behind', async () => {
    await stop(await start(server()));
    const before = held();
    for (let i = 0; i < 5; i++) await stop(await start(server()));
    expect(await stillHeld(before)).toEqual({ descriptors: 0, listeners: 0 });
    expect(privateFolders()).toEqual([]);
  });
});

describe('a program that cannot be activated', () => {
  it.each([
    ['no-such-program-here', 'ENOENT', 'program not found: no-such-program-here'],
    ['/no/such/program', 'ENOENT', 'program not found: /no/such/program'],
    ['/', 'ENOENT', 'program not found: /'],
  ])('%s is %s', async (program, code, message) => {
    expect(await rejection(activate([program], OPTIONS))).toMatchObject({ code, message });
    expect(privateFolders()).toEqual([]);
  });

  it('is EACCES when it may not be run', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'spec-'));
    const file = join(folder, 'data');
    await writeFile(file, 'no program');
    await chmod(file, 0o644);
    expect(await rejection(activate([file], OPTIONS))).toMatchObject({ code: 'EACCES' });
    await rm(folder, { recursive: true });
  });

  it('reports its stderr when it ends at once', async () => {
    for (let i = 0; i < 10; i++) {
      expect(await endOf('echo no disk >&2; exit 4')).toMatchObject({
        message: 'the command sh exited with status 4: no disk',
      });
    }
    expect(privateFolders()).toEqual([]);
  });

  it('runs nothing when the signal is aborted already', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'spec-'));
    const mark = join(folder, 'ran');
    const reason = new Error('enough');
    const argv = ['/bin/sh', '-c', 'echo yes > "$0"', mark];
    expect(await rejection(activate(argv, OPTIONS, AbortSignal.abort(reason)))).toBe(reason);
    await sleep(50);
    await expect(readFile(mark)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(privateFolders()).toEqual([]);
    await rm(folder, { recursive: true });
  });
});
