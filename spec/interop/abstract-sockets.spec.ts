// Abstract Unix sockets that other programs listen on, and connect to: the name is taken exactly, without the
// NULs that Node before 22 fills it up with.

import { describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

import { NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { abstractCommands } from '../../lib/transport/programs.js';
import { findAbstract, keepsAbstractNames, unixListenProblem, unixPathProblem } from '../../lib/transport/unix-path.js';
import { rejection } from '../support/caught.js';
import { describeWith, findTool, runTool } from '../support/tools.js';

/** Passes bytes on between an abstract socket and the path of another one, and prints a line when it listens. */
const RELAY = `
import os, socket, sys, threading
name, path = os.fsencode(sys.argv[1]), sys.argv[2]
listener = socket.socket(socket.AF_UNIX)
listener.bind(b'\\0' + name)
listener.listen(8)
print('listening', flush=True)
def copy(a, b):
    while True:
        data = a.recv(65536)
        if not data: break
        b.sendall(data)
    try: b.shutdown(socket.SHUT_WR)
    except OSError: pass
while True:
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    for pair in ((client, server), (server, client)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
`;

async function withRelay(name: string, use: () => Promise<void>): Promise<void> {
  const path = `/tmp/nbd-abstract-${randomUUID()}`;
  await using server = new NbdServer({ exports: { x: { backend: new MemoryBackend(1 << 20) } } });
  await server.listenUnix(path);
  const relay = spawn(findTool('python3') ?? 'python3', ['-c', RELAY, name, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(relay.stdout, 'data');
    await use();
  } finally {
    relay.kill();
    await once(relay, 'exit');
  }
}

const readAndWrite = async (connection: NbdConnection): Promise<void> => {
  const data = Buffer.alloc(300_000, 'abstract');
  await connection.pwrite(data, 0);
  expect((await connection.pread(data.length, 0)).equals(data)).toBe(true);
  await connection.shutdown();
};

describeWith(['python3', 'socat'], 'an abstract socket of another program', () => {
  const id = randomUUID().slice(0, 8);
  it.each([
    ['a name', `nbd-${id}`],
    ['a path', `/run/nbd/${id}.sock`],
    ['what socat gives a meaning', `a:b,c=!!d"e'f\\g(h)[i]{j} k\`${id}`],
    ['other letters', `dé-${id}-日本`],
    ['as long as it can be', `${id}${'x'.repeat(107 - id.length)}`],
  ])('is reached by %s', async (_, name) => {
    await withRelay(name, async () => {
      await readAndWrite(await NbdConnection.connect({ path: `\0${name}` }, { exportName: 'x' }));
      const uri = `nbd+unix:///x?socket=%00${encodeURIComponent(name)}`;
      const connection = await NbdConnection.connect(uri);
      expect(connection.getUri()).toMatch(/socket=%00/);
      await readAndWrite(connection);
    });
  });

  it('is one that nothing listens on where only the beginning is the same', async () => {
    await withRelay(`nbd-${id}-longer`, async () => {
      const error = await rejection(NbdConnection.connect({ path: `\0nbd-${id}` }));
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ECONNREFUSED' });
    });
  });

  it('is reached from this package', async () => {
    await using server = new NbdServer({ exports: { '': { backend: new MemoryBackend(1 << 20) } } });
    const name = `\0nbd-own-${id}`;
    if (!keepsAbstractNames()) {
      expect(await rejection(server.listenUnix(name))).toMatchObject({ code: 'ENOTSUP' });
      return;
    }
    await server.listenUnix(name);
    const greeting =
      'import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect("\\0"+sys.argv[1]); print(s.recv(8))';
    const { stdout } = await runTool('python3', ['-c', greeting, name.slice(1)]);
    expect(stdout).toContain('NBDMAGIC');
  });

  it('of this Node is reached whatever it does to the name', async () => {
    const served = new NbdServer({ exports: { '': { backend: new MemoryBackend(1 << 20) } } });
    const listener = createServer((socket) => {
      served.serve(socket);
    });
    listener.listen({ path: `\0nbd-node-${id}` });
    await once(listener, 'listening');
    await readAndWrite(await NbdConnection.connect({ path: `\0nbd-node-${id}` }));
    listener.close();
    await served.close();
  });
});

describe('where a Unix socket is', () => {
  const LIST = [
    'Num       RefCount Protocol Flags    Type St Inode Path',
    'ffff9d3c0: 00000002 00000000 00010000 0001 01 30391 @exact',
    `ffff9d3c0: 00000002 00000000 00010000 0001 01 30392 @padded${'@'.repeat(101)}`,
    'ffff9d3c0: 00000003 00000000 00000000 0001 03 30393 @connected',
    'ffff9d3c0: 00000002 00000000 00010000 0001 01  3039 @with space @x',
    'ffff9d3c0: 00000002 00000000 00010000 0001 01 30395 /run/@file',
    '',
  ].join('\n');
  it.each([
    ['exact', 'exact'],
    ['padded', 'padded'],
    ['connected', 'absent'],
    ['with space \0x', 'exact'],
    ['exac', 'absent'],
    ['file', 'absent'],
  ])('the name %j is %s', async (name, expected) => {
    expect(await findAbstract(`\0${name}`, LIST)).toBe(expected);
  });

  it.each([
    [`/${'x'.repeat(106)}`, null],
    [`/${'x'.repeat(107)}`, 'ENAMETOOLONG'],
    [`/${'é'.repeat(54)}`, 'ENAMETOOLONG'],
    [`\0${'x'.repeat(107)}`, null],
    [`\0${'x'.repeat(108)}`, 'ENAMETOOLONG'],
  ])('%j fits or does not', async (path, code) => {
    expect(unixPathProblem(path)?.code ?? null).toBe(code);
    expect(unixListenProblem(path, '22.0.0')?.code ?? null).toBe(code);
    if (code === null) return;
    const server = new NbdServer({ exports: { '': { backend: new MemoryBackend(512) } } });
    const connection = new NbdConnection();
    const uri = `nbd+unix:///?socket=${encodeURIComponent(path)}`;
    const calls = [() => server.listenUnix(path), () => connection.connectUnix(path), () => connection.connectUri(uri)];
    for (const call of calls) {
      const error = await rejection(call());
      expect(error).toMatchObject({ code });
      expect((error as Error).message).toMatch(/limited to 10[78] bytes \(sun_path\), this one has \d+/);
    }
    expect(connection.connectionState()).toBe('created');
    await server.close();
  });

  it('is not an abstract name where Node would change it', () => {
    expect(unixListenProblem('\0name', '20.20.2')).toMatchObject({
      code: 'ENOTSUP',
      message: expect.stringMatching(/Node 22/),
    });
    expect(unixListenProblem('\0name', '22.12.0')).toBeNull();
    expect(unixListenProblem('/name', '20.20.2')).toBeNull();
  });

  it('is written as socat wants it', () => {
    expect(abstractCommands('\0a,b')[0]?.at(-1)).toBe('ABSTRACT-CONNECT:a\\,b');
  });
});
