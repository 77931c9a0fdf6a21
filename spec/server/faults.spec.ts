import { describe, expect, it } from '@jest/globals';
import { type Fault, type FaultedRequest, FaultPlan, MemoryBackend, type NbdServer } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { type HandshakeOptions, newServer, RawClient } from '../support/raw-client.js';
import { settled, until } from '../support/waiting.js';

const { CMD } = g;
const SIZE = 1 << 20;

async function served(
  faults: Fault[],
  options: HandshakeOptions = {},
): Promise<{ server: NbdServer; client: RawClient }> {
  const server = newServer({ exports: { '': new MemoryBackend(SIZE), b: new MemoryBackend(SIZE) } });
  server.faults.push(...faults);
  return { server, client: await RawClient.of(server).handshake(options) };
}

describe('FaultPlan', () => {
  const request = (command: FaultedRequest['command'], more: Partial<FaultedRequest> = {}): FaultedRequest => ({
    command,
    flags: 0,
    offset: 0,
    count: 1,
    exportName: '',
    connection: 1,
    ...more,
  });

  it('counts what matches the conditions, each fault for itself', () => {
    const plan = new FaultPlan();
    expect(plan.isEmpty).toBe(true);
    plan.push({ command: 'cache', nth: 2, error: 'EIO' }, { nth: 4, error: 'EPERM' });
    const seen = (['cache', 'pread', 'cache', 'cache', 'cache'] as const).map((name) => plan.match(request(name)));
    expect(seen.map((chosen) => (chosen !== null && 'error' in chosen.fault ? chosen.fault.error : null))).toEqual([
      null,
      null,
      'EIO',
      'EPERM',
      null,
    ]);
  });

  it('without nth happens every time, or a number of times', () => {
    const plan = new FaultPlan();
    plan.push({ command: 'read', times: 2, stall: true }, { command: 'read', delay: 5 });
    const seen = Array.from({ length: 4 }, () => plan.match(request('pread')));
    expect(seen.map((chosen) => Object.keys(chosen!.fault).at(-1))).toEqual(['stall', 'stall', 'delay', 'delay']);
  });

  it('goes by export and by any other condition', () => {
    const plan = new FaultPlan();
    plan.push({ exportName: 'b', when: ({ offset, connection }) => offset === 512 && connection === 2, error: 'EIO' });
    expect(plan.match(request('pread', { exportName: 'b', offset: 512 }))).toBeNull();
    expect(plan.match(request('pread', { offset: 512, connection: 2 }))).toBeNull();
    expect(plan.match(request('pread', { exportName: 'b', offset: 512, connection: 2 }))).not.toBeNull();
  });

  it('takes the lowest limit on bytes that concerns a connection', () => {
    const plan = new FaultPlan();
    plan.push({ afterBytes: 100, then: 'close' }, { afterBytes: 50, then: 'stall', connection: 2 });
    expect(plan.bytesFault(1)?.afterBytes).toBe(100);
    expect(plan.bytesFault(2)?.afterBytes).toBe(50);
    plan.clear();
    expect(plan.bytesFault(2)).toBeNull();
  });
});

describe('faults of a server', () => {
  it('an errno at the nth command, which is then not carried out', async () => {
    const { server, client } = await served([{ command: 'write', nth: 2, error: 'ENOSPC' }]);
    expect(await client.ask(CMD.WRITE, { offset: 0, payload: 'a' })).toBe(0);
    expect(await client.ask(CMD.WRITE, { offset: 1, payload: 'b' })).toBe(28);
    expect(await client.ask(CMD.WRITE, { offset: 2, payload: 'c' })).toBe(0);
    expect((await client.read(0, 3)).toString('latin1')).toBe('a\0c');
    expect(server.statistics).toMatchObject({ errors: 1, requests: { pwrite: 3, pread: 1 } });
  });

  it('the text of an error, where replies carry one', async () => {
    const { client } = await served([{ command: 'cache', error: 'EIO', message: 'the disk is on fire' }], {
      style: 'structured',
    });
    client.send(CMD.CACHE, { cookie: 5, count: 1 });
    const expected = g.errorChunk(5, 5, 'the disk is on fire');
    expect((await client.take(expected.length)).equals(expected)).toBe(true);
  });

  it('a stall concerns one request, however many stall', async () => {
    const { client } = await served([{ command: 'cache', stall: true }]);
    for (let i = 0; i < 100; i += 1) client.send(CMD.CACHE, { count: 1 });
    expect((await client.read(0, 4)).length).toBe(4);
  });

  it('a delay makes a request late and lets the others pass', async () => {
    const { client } = await served([{ command: 'read', nth: 1, delay: 40 }]);
    client.send(CMD.READ, { cookie: 1, count: 1 });
    client.send(CMD.READ, { cookie: 2, count: 1 });
    expect((await client.simple()).cookie).toBe(2);
    await client.take(1);
    expect((await client.simple()).cookie).toBe(1);
  });

  it('a cut ends the connection in place of a reply', async () => {
    const { server, client } = await served([{ command: 'flush', nth: 1, cut: 'close' }]);
    client.send(CMD.CACHE, { count: 1 });
    client.send(CMD.FLUSH);
    client.send(CMD.CACHE, { count: 1 });
    expect((await client.rest()).length).toBe(16);
    client.stream.destroy();
    const again = await RawClient.of(server).handshake();
    expect(await again.ask(CMD.FLUSH)).toBe(0);
  });

  it('a reset is one, on TCP', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    await server.listenTcp();
    const client = await RawClient.dial(server).handshake();
    const codes: unknown[] = [];
    client.stream.on('error', (error: NodeJS.ErrnoException) => codes.push(error.code));
    server.faults.push({ cut: 'reset' });
    client.send(CMD.FLUSH);
    await client.ended;
    await until(() => codes.length > 0, 'the reset has come');
    expect(codes).toEqual(['ECONNRESET']);
  });

  it('a close is not a reset, also on TCP with unread requests', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    await server.listenTcp();
    const client = await RawClient.dial(server).handshake();
    const codes: unknown[] = [];
    client.stream.on('error', (error: NodeJS.ErrnoException) => codes.push(error.code));
    server.faults.push({ cut: 'close' });
    client.send(CMD.FLUSH);
    client.send(CMD.WRITE, { payload: Buffer.alloc(SIZE) });
    await client.ended;
    client.stream.end();
    await until(() => server.statistics.openConnections === 0, 'the server has let go');
    expect(codes).toEqual([]);
  });

  it('a limit on bytes cuts exactly there, in either phase', async () => {
    const whole = async (faults: Fault[]): Promise<Buffer> => {
      const server = newServer({ exports: { '': MemoryBackend.from(g.content(0, 1000)) } });
      server.faults.push(...faults);
      const client = RawClient.of(server);
      client.write(
        g.u32(3),
        g.option(g.OPT.GO, g.cat(g.u32(0), g.u16(0))),
        client.request(CMD.READ, { count: 600 }),
        client.request(CMD.FLUSH),
        client.request(CMD.DISC),
      );
      const said = await client.rest();
      client.stream.destroy();
      return said;
    };
    const all = await whole([]);
    expect(all.length).toBe(18 + 32 + 20 + 616 + 16);
    for (let afterBytes = 0; afterBytes <= all.length; afterBytes += afterBytes < 100 ? 1 : 37) {
      const said = await whole([{ afterBytes, then: 'close' }]);
      expect(said.toString('hex')).toBe(all.subarray(0, afterBytes).toString('hex'));
    }
  });

  it('a limit on bytes that stalls: silence, and the connection stays', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    server.faults.push({ afterBytes: 18 + 32 + 20 + 10, then: 'stall', connection: 1 });
    const client = await RawClient.of(server).handshake();
    client.send(CMD.FLUSH);
    await client.take(10);
    await settled();
    expect(client.buffered).toBe(0);
    expect(server.statistics).toMatchObject({ openConnections: 1, bytesSent: 18 + 32 + 20 + 10 });
    expect(await (await RawClient.of(server).handshake()).ask(CMD.FLUSH)).toBe(0);
  });

  it('may come and go while the server runs', async () => {
    const { server, client } = await served([]);
    expect(await client.ask(CMD.CACHE, { count: 1 })).toBe(0);
    server.faults.push({ command: 'cache', error: 'EIO' });
    expect(await client.ask(CMD.CACHE, { count: 1 })).toBe(5);
    server.faults.clear();
    expect(await client.ask(CMD.CACHE, { count: 1 })).toBe(0);
  });
});
