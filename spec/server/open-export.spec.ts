// Exports that are made when a client asks for them, the limit of bytes per second, and writes that are too long.

import { describe, expect, it } from '@jest/globals';
import { NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer, type NbdServerOptions, type OpenExport } from '../../lib/server/index.js';
import { atAnyPace } from '../support/pace.js';
import { until } from '../support/waiting.js';

const coded = (code: string, message: string): Error => Object.assign(new Error(message), { code });

/** Makes an export whose contents are its name, and counts. */
function maker(): { calls: string[]; closed: string[]; openExport: OpenExport } {
  const calls: string[] = [];
  const closed: string[] = [];
  const openExport: OpenExport = async (name, { connection }) => {
    calls.push(`${connection}:${name}`);
    await new Promise(setImmediate);
    if (name === 'denied') throw coded('EACCES', 'not for you');
    if (name === 'broken') throw new Error('the disk is broken');
    if (!name.startsWith('made-')) return undefined;
    const backend = MemoryBackend.from(Buffer.from(name.padEnd(512)));
    return { backend: Object.assign(backend, { close: () => void closed.push(name) }), description: `of ${name}` };
  };
  return { calls, closed, openExport };
}

const connect = (server: NbdServer, exportName: string): Promise<NbdConnection> =>
  NbdConnection.connect(server.connectMemory(), { exportName, fullInfo: true, metaContexts: ['base:allocation'] });

const VARIANTS: readonly [string, NbdServerOptions][] = [
  ['by NBD_OPT_GO', {}],
  ['by NBD_OPT_EXPORT_NAME', { features: { go: false, info: false, structuredReply: false, extendedHeaders: false } }],
];

describe('openExport', () => {
  it.each(VARIANTS)('makes an export %s, once for each connection, and closes it', async (_way, options) => {
    const { calls, closed, openExport } = maker();
    await using server = new NbdServer({ ...options, exports: { fixed: new MemoryBackend(10) }, openExport });
    const first = await connect(server, 'made-1');
    expect((await first.pread(6, 0)).toString()).toBe('made-1');
    const second = await connect(server, 'made-1');
    await first.pwrite(Buffer.from('first'), 0);
    expect((await second.pread(6, 0)).toString()).toBe('made-1');
    expect(calls).toEqual(['1:made-1', '2:made-1']);
    await first.shutdown();
    await until(() => closed.length === 1);
    await (await connect(server, 'fixed')).shutdown();
    expect(calls).toHaveLength(2);
    await server.close();
    expect(closed).toEqual(['made-1', 'made-1']);
    second.close();
  });

  it.each([
    ['unknown', 'ENOENT', /no export is named 'unknown'/],
    ['broken', 'ENOENT', /the disk is broken/],
    ['denied', 'EACCES', /not for you/],
  ])('refuses %s with %s', async (name, code, message) => {
    const { calls, openExport } = maker();
    await using server = new NbdServer({ openExport });
    await expect(connect(server, name)).rejects.toMatchObject({
      name: 'NbdOptionError',
      code,
      serverMessage: expect.stringMatching(message) as unknown,
    });
    // Metadata contexts and NBD_OPT_GO ask for the same name.
    expect(calls).toEqual([`1:${name}`]);
  });

  it('keeps what its function adds to the server, and shares it', async () => {
    let made = 0;
    let closed = 0;
    const server: NbdServer = new NbdServer({
      openExport: (name) => {
        const backend = Object.assign(new MemoryBackend(512), { close: () => void (closed += 1) });
        server.addExport(name, backend);
        made += 1;
        return backend;
      },
    });
    await using first = await connect(server, 'a');
    await first.pwrite(Buffer.from('shared'), 0);
    await first.shutdown();
    await using second = await connect(server, 'a');
    expect((await second.pread(6, 0)).toString()).toBe('shared');
    expect([made, closed]).toEqual([1, 0]);
    await server.close();
    expect(closed).toBe(1);
  });

  it('closes a backend that comes after the client has left', async () => {
    let give: (backend: MemoryBackend) => void = () => undefined;
    let closed = 0;
    let aborted = false;
    await using server = new NbdServer({
      openExport: (_name, { signal }) =>
        new Promise((resolve) => {
          give = resolve;
          signal.addEventListener('abort', () => (aborted = true));
        }),
    });
    const controller = new AbortController();
    const connecting = NbdConnection.connect(server.connectMemory(), { signal: controller.signal }).catch(
      () => undefined,
    );
    await until(() => server.statistics.openConnections === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    controller.abort();
    await connecting;
    await until(() => aborted);
    give(Object.assign(new MemoryBackend(1), { close: () => void (closed += 1) }));
    await until(() => closed === 1);
  });

  it('ends a connection whose export does not come in time, and reports a bad one', async () => {
    await atAnyPace(async (pace) => {
      const errors: string[] = [];
      await using server = new NbdServer({
        handshakeTimeout: 100 * pace,
        openExport: (name) => (name === 'never' ? new Promise(() => undefined) : ({ backend: 5 } as never)),
        onConnectionError: (error) => errors.push(error.message),
      });
      await expect(connect(server, 'never')).rejects.toMatchObject({ code: 'ENOTCONN' });
      expect(errors).toEqual(['the handshake took too long']);
      await expect(connect(server, 'bad')).rejects.toMatchObject({
        code: 'ENOENT',
        serverMessage: expect.stringMatching(/backend/) as unknown,
      });
    });
  });
});

describe('rate', () => {
  it('limits reads and writes, each by itself, over all connections', async () => {
    await using server = new NbdServer({ exports: { '': new MemoryBackend(1 << 20) }, rate: 1 << 20 });
    const connections = await Promise.all([connect(server, ''), connect(server, '')]);
    const begun = performance.now();
    // 512 KiB of each at 1 MiB/s: half a second, less the burst of 50 ms.
    await Promise.all(
      connections.flatMap((connection) =>
        Array.from({ length: 8 }, (_, at) => [
          connection.pread(32_768, at * 32_768),
          connection.pwrite(Buffer.alloc(32_768), at * 32_768),
        ]).flat(),
      ),
    );
    expect(performance.now() - begun).toBeGreaterThan(400);
    // What has no payload is not limited, and close() does not wait for what is.
    const late = connections[0].pread(1 << 20, 0).catch((error: unknown) => error);
    const later = connections[0].pread(1 << 20, 0).catch((error: unknown) => error);
    await connections[1].flush();
    for (const connection of connections) connection.close();
    expect(await late).toMatchObject({ code: 'ENOTCONN' });
    expect(await later).toMatchObject({ code: 'ENOTCONN' });
  });
});

describe('oversizedWrites', () => {
  it.each([
    ['refuse', 'EINVAL'],
    ['disconnect', 'ENOTCONN'],
  ] as const)('%s: a write above the maximum is %s', async (oversizedWrites, code) => {
    const errors: string[] = [];
    const backend = new MemoryBackend(1 << 20, { blockSize: { minimum: 1, preferred: 4096, maximum: 65_536 } });
    await using server = new NbdServer({
      exports: { '': { backend, oversizedWrites } },
      onConnectionError: (error) => errors.push(error.message),
    });
    await using connection = await connect(server, '');
    connection.setStrictMode(0);
    await connection.pwrite(Buffer.alloc(65_536, 1), 0);
    await expect(connection.pwrite(Buffer.alloc(65_537, 2), 0)).rejects.toMatchObject({ code });
    const first = Buffer.alloc(1);
    backend.read(first, 0);
    expect(first[0]).toBe(1);
    expect(errors.join()).toMatch(oversizedWrites === 'refuse' ? /^$/ : /65537 bytes of payload, limit 65536/);
  });
});
