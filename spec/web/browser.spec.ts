// nbd-sdk/web in headless Chromium: a client of nbdkit behind websockify, and a server whose clients are libnbd's
// nbdcopy behind websockify, and a peer that does not read.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';
import { type WebSocket, WebSocketServer } from 'ws';

import { Browser } from '../support/browser.js';
import { describeWith, findTool, freePort, runTool, startNbdkit } from '../support/real-servers.js';
import { until } from '../support/waiting.js';
import { servePage } from './bundle.js';

const MIB = 1024 * 1024;
const SIZE = 64 * MIB;
/** Many times what any of it takes on an idle machine. */
const LIMIT = 120_000;

/** websockify, from WebSockets on the port that it reports to a TCP port or a Unix socket. */
async function startWebsockify(target: readonly string[]): Promise<{ url: string; stop: () => Promise<void> }> {
  const port = await freePort();
  const child = spawn(findTool('websockify') ?? 'websockify', [`127.0.0.1:${port}`, ...target], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const stop = async (): Promise<void> => {
    // Its children, one per connection, end with their connections.
    if (child.exitCode === null) child.kill('SIGTERM');
    await ended;
  };
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`websockify ended: ${log}`);
    return fetch(`http://127.0.0.1:${port}/`).then(
      () => true,
      () => false,
    );
  });
  return { url: `ws://127.0.0.1:${port}/`, stop };
}

/** Bytes of nbdkit's pattern. */
function pattern(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 8) bytes.writeUInt32BE(at, at + 4);
  return bytes;
}

describeWith(['chromium', 'websockify', 'nbdkit', 'nbdcopy'], 'nbd-sdk/web in Chromium', () => {
  let folder: string;
  let browser: Browser;
  const stops: (() => Promise<unknown>)[] = [];
  const run = <Result>(scenario: string, ...args: unknown[]): Promise<Result> =>
    browser.evaluate(`page.${scenario}(${args.map((each) => JSON.stringify(each)).join()})`) as Promise<Result>;

  /** nbdkit behind websockify. */
  async function serveNbd(
    ...args: Parameters<typeof startNbdkit>
  ): Promise<Awaited<ReturnType<typeof startNbdkit>> & { url: string; cut: () => Promise<void> }> {
    const nbdkit = await startNbdkit(...args);
    const { url, stop } = await startWebsockify([`--unix-target=${nbdkit.socketPath ?? ''}`]);
    stops.push(stop);
    return Object.assign(nbdkit, { url, cut: stop });
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-web-spec-'));
    const site = await servePage();
    browser = new Browser(join(folder, 'profile'));
    stops.push(
      () => site.close(),
      () => browser.close(),
    );
    await browser.open(site.url);
    await browser.evaluate('import("/page.js").then(() => undefined)');
  }, LIMIT);
  afterAll(async () => {
    await Promise.all(stops.map((stop) => stop()));
    await rm(folder, { recursive: true, force: true });
  }, LIMIT);

  it(
    'reads 64 MiB without anything of Node, in a page, a worker, and without a bundler',
    async () => {
      const server = await serveNbd({ plugin: 'pattern', args: [String(SIZE)] });
      expect(await run('platform', server.url)).toEqual({
        process: 'undefined',
        buffer: 'undefined',
        isPlain: true,
        uri: server.url,
        protocol: 'newstyle-fixed',
      });
      expect(await run('read', server.url)).toEqual({ size: SIZE, wrong: 0 });
      const start = [...pattern(16)];
      const inWorker = `new Promise((resolve) => {
      const worker = new Worker('/worker.js', { type: 'module' });
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage(${JSON.stringify(server.url)});
    })`;
      expect(await browser.evaluate(inWorker)).toEqual(start);
      const unbundled = `import('/lib/web/index.js').then(async ({ NbdConnection }) => {
      const connection = await NbdConnection.connect(${JSON.stringify(server.url)});
      const bytes = await connection.pread(16, 0);
      await connection.shutdown();
      return [...bytes];
    })`;
      expect(await browser.evaluate(unbundled)).toEqual(start);
    },
    LIMIT,
  );

  it(
    'writes, zeroes, maps, flushes and copies',
    async () => {
      const size = 8 * MIB;
      const server = await serveNbd({ args: [String(size)] });
      expect(await run('write', server.url)).toEqual({ size, wrong: 0, mapped: size });
      const other = await serveNbd({ args: [String(size)] });
      expect(await run('copy', server.url, other.url)).toEqual({
        total: size,
        read: expect.any(Number) as unknown,
        changed: size,
      });
      const expected = pattern(size).fill(0, 0, 4096);
      for (const { uri } of [server, other]) {
        await using connection = await NbdConnection.connect(uri());
        expect(expected.equals(await connection.pread(size, 0))).toBe(true);
      }
    },
    LIMIT,
  );

  it(
    'aborts a command, and reports a lost connection',
    async () => {
      const server = await serveNbd({ plugin: 'pattern', filters: ['delay'], args: ['1M', 'rdelay=1'] });
      expect(await run('abort', server.url)).toEqual({
        error: expect.objectContaining({ name: 'AbortError' }) as unknown,
        inFlight: 1,
        again: [0, 0, 0, 0, 0, 0, 0, 8],
      });
      const lost = run('lost');
      await until(async () => (await run<number>('inFlight')) === 2);
      server.kill('SIGKILL');
      const ended = { name: 'NbdConnectionError', code: 'ENOTCONN' };
      expect(await lost).toEqual({
        errors: [expect.objectContaining(ended), expect.objectContaining(ended)] as unknown[],
        cause: expect.objectContaining({ code: 'ENOTCONN' }) as unknown,
        later: expect.objectContaining({ name: 'NbdStateError', code: 'EINVAL' }) as unknown,
        state: true,
      });
      await server.cut();
      expect(await run('refused', server.url)).toEqual([
        expect.objectContaining({ name: 'NbdConnectionError', code: 'ECONNREFUSED' }),
        expect.objectContaining({ name: 'NbdStrictError', code: 'ENOTSUP' }),
        expect.objectContaining({ name: 'NbdStrictError', code: 'EINVAL' }),
      ]);
    },
    LIMIT,
  );

  it(
    'serves a file of 64 MiB to nbdcopy, as the virtual media of a BMC does',
    async () => {
      // The page connects to websockify, that to us; nbdcopy connects to a socket of ours, and both are joined.
      const fromPage = new Promise<Socket>((resolve) => {
        const listener = createServer((socket) => {
          listener.close();
          resolve(socket);
        });
        stops.push(async () => listener.close());
        listener.listen(0, '127.0.0.1', () => {
          ready((listener.address() as AddressInfo).port);
        });
      });
      let ready = (_port: number): void => undefined;
      const port = await new Promise<number>((resolve) => {
        ready = resolve;
      });
      const { url, stop } = await startWebsockify([`127.0.0.1:${port}`]);
      stops.push(stop);
      expect(await run('serve', url, SIZE)).toBe('open');
      const page = await fromPage;
      const socketPath = join(folder, 'joined');
      const joined = createServer((client) => {
        page.pipe(client).pipe(page);
        for (const each of [page, client]) each.on('error', () => undefined);
      });
      await new Promise<void>((resolve) => joined.listen(socketPath, resolve));
      stops.push(async () => joined.close());
      const copied = await runTool('nbdcopy', ['--connections=1', `nbd+unix:///?socket=${socketPath}`, '-']);
      expect(copied.stderr).toBe('');
      const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
      expect(copied.output).toHaveLength(SIZE);
      expect(digest(copied.output)).toBe(digest(pattern(SIZE)));
      await until(async () => (await run<{ openConnections: number }>('served')).openConnections === 0);
      expect(await run('served')).toMatchObject({ errors: 0 });
      await run('unserve');
    },
    LIMIT,
  );

  describe('with a peer that stops reading', () => {
    let listener: WebSocketServer;
    beforeAll(async () => {
      listener = new WebSocketServer({ host: '127.0.0.1', port: 0 });
      await new Promise((resolve) => listener.once('listening', resolve));
    });
    afterAll(() => listener.close());
    const accepted = (): Promise<WebSocket> => new Promise((resolve) => listener.once('connection', resolve));
    const url = (): string => `ws://127.0.0.1:${(listener.address() as AddressInfo).port}/`;

    it(
      'a server does not produce replies that nobody takes',
      async () => {
        // At once: a greeting that comes before there is a listener is lost.
        const connecting = accepted().then(async (ws) => ({
          socket: ws,
          opened: await NbdConnection.connect(ws, { exportName: 'image', connectTimeout: LIMIT }),
        }));
        const size = 24 * MIB;
        await run('serve', url(), size);
        const { socket, opened } = await connecting;
        await using connection = opened;
        socket.pause();
        const reads = Array.from({ length: size / MIB }, (_, at) => connection.pread(MIB, at * MIB));
        // What Chromium, the kernel and ws hold is sent; then nothing more.
        let before: number | undefined;
        let now = await run<{ bytesSent: number; held: number }>('served');
        for (let same = 0; same < 5; same = now.bytesSent === before ? same + 1 : 0) {
          before = now.bytesSent;
          await new Promise((resolve) => setTimeout(resolve, 100));
          now = await run('served');
        }
        expect(now.bytesSent).toBeLessThan(size - 4 * MIB);
        // What is held doubles while Chromium takes it: 8 MiB after it has taken 7, and 9 at the most after 15.
        expect(now.held).toBeLessThan(12 * MIB);
        socket.resume();
        const expected = pattern(size);
        for (const [at, bytes] of (await Promise.all(reads)).entries()) {
          expect(bytes.equals(expected.subarray(at * MIB, (at + 1) * MIB))).toBe(true);
        }
        await connection.shutdown();
        await run('unserve');
      },
      LIMIT,
    );

    it(
      'a client does not send what nobody takes',
      async () => {
        const held: (() => void)[] = [];
        let isOpen = false;
        const size = 24 * MIB;
        const backend = new MemoryBackend(size);
        const write = backend.write.bind(backend);
        const slow = Object.assign(backend, {
          async write(...args: Parameters<typeof write>): Promise<void> {
            if (!isOpen) await new Promise<void>((resolve) => held.push(resolve));
            write(...args);
          },
        });
        await using server = new NbdServer({ exports: { '': slow }, maxInFlight: 4 });
        const connecting = accepted();
        const filling = run<{ held: number }>('fill', url(), size);
        server.serve(await connecting);
        await until(() => held.length >= 4);
        await new Promise((resolve) => setTimeout(resolve, 500));
        expect(server.statistics.bytesWritten).toBeLessThan(size);
        isOpen = true;
        for (const resolve of held) resolve();
        expect((await filling).held).toBeLessThan(4 * MIB);
        expect(server.statistics.bytesWritten).toBe(size);
      },
      LIMIT,
    );
  });
});
