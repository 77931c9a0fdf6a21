// --timeout, --connect-timeout and --wait of every command that connects, and connections that are only a help.

import { createServer, type Socket } from 'node:net';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLI_COMMANDS } from '../../lib/cli/registry.js';
import { MemoryBackend, type NbdBackend, NbdServer } from '../../lib/server/index.js';
import { describeWith, freePort, startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';
import { until } from '../support/waiting.js';
import { catchesSignals, exitOf, nbd, out, start } from './support.js';

const LOCAL = ['serve', 'completion'];
/** Those of a fleet try again anyway when a server is not there yet. */
const TRYING = ['fleet plan', 'fleet work'];
const OPTIONS = ['timeout', 'connect-timeout', 'wait'];

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-connect-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function expected(name: string): readonly string[] {
  if (TRYING.includes(name)) return OPTIONS.filter((option) => option !== 'wait');
  return LOCAL.includes(name) || name.startsWith('fleet ') ? [] : OPTIONS;
}

describe('the options of connecting', () => {
  it('are those of every command that connects', async () => {
    for (const [name, load] of Object.entries(CLI_COMMANDS)) {
      const { spec } = await load();
      const names = spec.options.flatMap((option) => option.names);
      expect([name, OPTIONS.filter((option) => names.includes(option))]).toEqual([name, expected(name)]);
    }
  });

  it.each(OPTIONS)('--%s takes seconds and nothing else', async (option) => {
    const bad = ['x', '-1', '3000000'];
    const results = await Promise.all(
      bad.map(async (value) => nbd(['info', `--${option}=${value}`, 'nbd://127.0.0.1:1'])),
    );
    for (const [index, { code, stderr }] of results.entries()) {
      expect({ value: bad[index], code }).toEqual({ value: bad[index], code: 1 });
      expect(stderr).toMatch(new RegExp(`^nbd info: --${option}: could not parse: `));
    }
  });

  it('do not make the abbreviations of libnbd’s options ambiguous', async () => {
    const { stderr } = await nbd(['copy', '--conn=0', 'a', 'b']);
    expect(stderr).toMatch(/^nbd copy: --connections: could not parse: 0\n/);
  });
});

/** A server that never sends anything. */
async function silent(path: string, onSocket: (socket: Socket) => void = () => undefined): Promise<AsyncDisposable> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  await new Promise<void>((done) => server.listen(path, done));
  return {
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

describe('--connect-timeout', () => {
  it('ends a handshake that does not begin', async () => {
    await using _server = await silent(at('silent'));
    const { code, stderr } = await nbd(['info', '--connect-timeout=0.3', `nbd+unix:///?socket=${at('silent')}`]);
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(/300 ms/) as string });
  });
});

describeWith(['nbdkit'], '--connect-timeout of a slow server', () => {
  it('may be longer than the default, or switched off', async () => {
    await using server = await startNbdkit({ filters: ['delay'], args: ['1M', 'delay-open=1'] });
    expect((await nbd(['info', '--size', '--connect-timeout=0.2', server.uri()])).code).toBe(1);
    expect(await out(['info', '--size', '--connect-timeout=0', server.uri()])).toBe('1048576\n');
  });
});

describe('--timeout', () => {
  const stalled: NbdBackend = { size: 1 << 20, read: async () => new Promise<void>(() => undefined) };

  it.each([['copy', 'null:'], ['hash'], ['compare', 'SELF'], ['bench']])(
    'ends %s of a server that does not answer',
    async (command, ...more) => {
      const server = new NbdServer({});
      server.addExport('', { backend: stalled });
      await server.listenUnix(at('stalled'));
      try {
        const uri = `nbd+unix:///?socket=${at('stalled')}`;
        const words = more.map((word) => (word === 'SELF' ? uri : word));
        const { code, stderr } = await nbd([command, '--timeout=0.5', uri, ...words]);
        expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(/within 500 ms/) as string });
      } finally {
        await server.close();
      }
    },
  );
});

describe('--wait', () => {
  it.each(['unix', 'tcp'])('waits for a server on %s that comes later', async (transport) => {
    const port = await freePort();
    const uri = transport === 'unix' ? `nbd+unix:///?socket=${at('later')}` : `nbd://127.0.0.1:${port}`;
    const child = await start(['info', '--size', '--wait=30', uri]);
    const ended = exitOf(child);
    // Long enough for it to have tried; one that is slow to start finds the server at once.
    await sleep(500);
    const server = new NbdServer({});
    server.addExport('', { backend: new MemoryBackend(1 << 20) });
    await (transport === 'unix' ? server.listenUnix(at('later')) : server.listenTcp(port, '127.0.0.1'));
    try {
      expect([await ended, child.said(), child.err()]).toEqual([0, '1048576\n', '']);
    } finally {
      await server.close();
    }
  });

  it('ends with the reason when nothing comes, and at once when it is interrupted', async () => {
    const uri = `nbd+unix:///?socket=${at('never')}`;
    const { code, stderr } = await nbd(['info', '--wait=0.5', uri]);
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ENOENT|no such file/i) as string,
    });
    const child = await start(['info', '--wait=1000', uri]);
    const ended = exitOf(child);
    await until(() => catchesSignals(child));
    // It tries again meanwhile; whether it has begun to makes no difference to what is expected.
    await sleep(300);
    child.kill('SIGINT');
    expect(await ended).toBe(130);
  });

  it('does not try again what a server that is there refuses', async () => {
    const server = new NbdServer({});
    server.addExport('disk', { backend: new MemoryBackend(1 << 20) });
    await server.listenUnix(at('refuses'));
    try {
      const { code, stderr } = await nbd(['info', '--wait=1000', `nbd+unix:///other?socket=${at('refuses')}`]);
      expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(/no such export/) as string });
    } finally {
      await server.close();
    }
  });
});

describeWith(['qemu-nbd'], 'connections beyond the first', () => {
  it('are done without where the server takes no more clients', async () => {
    const content = Buffer.alloc(3 << 20, 'some content');
    await writeFile(at('image'), content);
    await using server = await startQemuNbd({ file: at('image'), shared: 2 });
    expect((await nbd(['info', '--can=multi-conn', server.uri()])).code).toBe(0);
    const { code, stderr } = await nbd(['copy', '-v', '-C4', '-T4', server.uri(), at('copied')]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/connections=4 /);
    expect(stderr.match(/continuing with fewer connections/g)).toHaveLength(2);
    expect((await nbd(['compare', at('image'), at('copied')])).code).toBe(0);
    expect(await out(['bench', '--time=0.1', '-C', '4', '--json', server.uri()])).toMatch(/"requests":/);
  });
});

describeWith(['nbd-server'], 'connections that are never greeted', () => {
  it('are done without', async () => {
    await writeFile(at('disk'), Buffer.alloc(1 << 20, 'x'));
    await using server = await startNbdServer({
      exports: { disk: { exportname: at('disk'), readonly: true } },
      transport: 'tcp',
    });
    expect((await nbd(['copy', '-C2', '-T2', server.uri('disk'), at('from-nbd-server')])).code).toBe(0);
  });
});
