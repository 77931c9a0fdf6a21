// The same steps on every runtime, against servers of this one: Node 20 to 26, Bun, Deno.

import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { readFile, rm } from 'node:fs/promises';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';

import { type WebSocket, WebSocketServer } from 'ws';

import { NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { projectWithPackage } from '../support/built-package.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { freePort } from '../support/server-process.js';
import { otherRuntimes } from '../support/runtimes.mjs';
import { runTool } from '../support/tools.js';

const STEPS = 35;
/** Ten times what the slowest takes. */
const TIMEOUT = 120_000;
jest.setTimeout(2 * TIMEOUT);

const RUNTIMES = [['this Node.js', process.execPath, []], ...otherRuntimes()] as ReturnType<typeof otherRuntimes>;
const WITHOUT_PSK = ['Bun', 'Deno'];

let folder = '';
let certificates: Certificates;
const servers: NbdServer[] = [];
const listeners: WebSocketServer[] = [];
let places: Record<string, unknown> = {};

beforeAll(async () => {
  folder = await projectWithPackage();
  certificates = await makeCertificates();
  const { cert, key } = certificates.server;
  const exports = (): Record<string, MemoryBackend> => ({ '': new MemoryBackend(16 * 1024 * 1024) });
  const [tcp, unix, tls, psk] = [
    await new NbdServer({ exports: exports() }).listenTcp(),
    await new NbdServer({ exports: exports() }).listenUnix(join(folder, 'socket')),
    await new NbdServer({ exports: exports(), tls: 'require', tlsOptions: { cert, key } }).listenTcp(),
    await new NbdServer({
      ...{ exports: exports(), tls: 'require' },
      tlsOptions: { psk: { alice: Buffer.from('ab'.repeat(16), 'hex') } },
    }).listenTcp(),
  ];
  servers.push(tcp, unix, tls, psk);
  const behindWebSocket = new NbdServer({ exports: exports() });
  servers.push(behindWebSocket);
  const webSocket = await listenForWebSockets((socket) => {
    behindWebSocket.serve(socket);
  });
  const media = await listenForWebSockets((socket) => void copyWithin(socket));
  places = {
    ...{
      tcp: tcp.uri(),
      unix: unix.uri(),
      tls: tls.uri(),
      psk: psk.uri(),
      refusing: `nbd://127.0.0.1:${await freePort()}`,
    },
    ...{ webSocket, media },
    ...{ ca: certificates.ca, cert, key },
    wrongCa: await readFile(join(certificates.strangerFolder, 'ca-cert.pem'), 'utf8'),
  };
  // Node 22 and before do not know `await using`.
  const script = join(import.meta.dirname, 'programs/smoke.mjs');
  const esbuild = join(import.meta.dirname, '../../node_modules/esbuild/bin/esbuild');
  const args = [script, '--target=es2022', '--format=esm', `--outfile=${join(folder, 'smoke.mjs')}`];
  expect((await runTool(process.execPath, [esbuild, ...args], { timeout: TIMEOUT })).code).toBe(0);
});

afterAll(async () => {
  for (const listener of listeners) {
    for (const client of listener.clients) client.terminate();
    listener.close();
  }
  for (const server of servers) await server.close();
  await certificates.remove();
  await rm(folder, { recursive: true, force: true });
});

async function listenForWebSockets(onSocket: (socket: WebSocket) => void): Promise<string> {
  const listener = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  listeners.push(listener);
  listener.on('connection', onSocket);
  await new Promise((resolve) => listener.once('listening', resolve));
  return `ws://127.0.0.1:${String((listener.address() as AddressInfo).port)}`;
}

/** The client of what a runtime serves: copies the first half of the export to the second. */
async function copyWithin(socket: WebSocket): Promise<void> {
  await using connection = await NbdConnection.connect(socket);
  await connection.pwrite(await connection.pread(65_536, 0), 65_536);
}

describe.each(RUNTIMES)('%s', (name, program, args) => {
  if (program === undefined && process.env['CI'] !== 'true') {
    it.skip('is skipped: not fetched, see npm run runtimes', () => undefined);
    return;
  }

  it('does every step, and ends by itself', async () => {
    if (program === undefined) throw new Error(`${name} was not fetched: npm run runtimes`);
    const where = JSON.stringify({ ...places, hasPsk: !WITHOUT_PSK.includes(name) });
    const { code, stdout, stderr } = await runTool(program, [...args, join(folder, 'smoke.mjs'), where], {
      cwd: folder,
      // Deno has a folder of its own, which is the user's otherwise.
      env: { DENO_DIR: join(folder, '.deno'), DENO_NO_UPDATE_CHECK: '1', NO_COLOR: '1' },
      timeout: TIMEOUT,
    });
    const steps = stdout.trim().split('\n');
    expect({ code, last: steps.at(-1), errors: code === 0 ? '' : `${stderr}${steps.slice(-20).join('\n')}` }).toEqual({
      ...{ code: 0, last: `steps: ${String(STEPS)}`, errors: '' },
    });
  });
});
