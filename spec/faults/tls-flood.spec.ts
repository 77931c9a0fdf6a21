// Z15: a server that renegotiates, or changes its keys, without end. The limits are OpenSSL's and Node's own; what is
// ours is that the connection ends in time and the process lives.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';

import { NbdConnection, TLS_REQUIRE } from '../../lib/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import * as g from '../support/golden.js';
import { atAnyPace } from '../support/pace.js';
import { describeWith, findTool } from '../support/tools.js';
import { outcome } from './invariants.js';

let certificates: Certificates;
beforeAll(async () => {
  certificates = await makeCertificates();
});
afterAll(() => certificates.remove());

const children: ChildProcess[] = [];
const closers: (() => void)[] = [];
/** Pieces of the server's side of TLS: that there is a flood. */
let pieces = 0;
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const close of closers.splice(0)) close();
});

/** `openssl s_server`, which obeys letters on its standard input, on a free port. */
async function openssl(version: string, letter: string): Promise<number> {
  const { folder } = certificates;
  const files = ['-cert', join(folder, 'server-cert.pem'), '-key', join(folder, 'server-key.pem')];
  const child = spawn(findTool('openssl')!, ['s_server', '-accept', '127.0.0.1:0', version, ...files], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  children.push(child);
  child.stdin.on('error', () => undefined);
  return new Promise((resolve) => {
    let said = '';
    let flood: NodeJS.Timeout | undefined;
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString('latin1');
      const found = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(said);
      if (found !== null) resolve(Number(found[1]));
      // The session is there.
      if (flood === undefined && said.includes('CIPHER is')) {
        flood = setInterval(() => child.stdin.write(`${letter}\n`), 2);
        closers.push(() => clearInterval(flood));
      }
    });
  });
}

/** A server that agrees to TLS and leaves the rest to another. */
async function gateway(port: number): Promise<number> {
  const server = createServer((client) => {
    void serve(client, port);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

async function serve(client: Socket, port: number): Promise<void> {
  client.on('error', () => undefined);
  closers.push(() => client.destroy());
  client.write(g.greeting());
  let seen = 0;
  // The client's flags, and STARTTLS.
  while (seen < 4 + 16) seen += ((await once(client, 'data')) as [Buffer])[0].length;
  const inner = connect(port, '127.0.0.1');
  inner.on('error', () => undefined);
  inner.on('close', () => client.destroy());
  client.on('close', () => inner.destroy());
  inner.on('data', () => pieces++);
  client.pipe(inner);
  inner.pipe(client, { end: false });
  client.write(g.reply(g.OPT.STARTTLS, g.ACK));
}

describeWith(['openssl'], 'Z15: a flood inside TLS', () => {
  it.each([
    ['renegotiations in TLS 1.2', '-tls1_2', 'r'],
    ['changes of keys in TLS 1.3', '-tls1_3', 'k'],
    ['changes of keys on both sides in TLS 1.3', '-tls1_3', 'K'],
  ])('%s: the connection ends in time', async (_title, version, letter) => {
    const port = await openssl(version, letter);
    await atAnyPace(async (pace) => {
      pieces = 0;
      const connection = new NbdConnection({
        tls: TLS_REQUIRE,
        ca: certificates.ca,
        tlsHostname: 'localhost',
        connectTimeout: 1500 * pace,
      });
      const closes: unknown[] = [];
      connection.on('close', (error) => closes.push(error));
      const { word, error } = await outcome(connection.connectTcp('127.0.0.1', await gateway(port)));
      expect(word).toMatch(/^(ETIMEDOUT|ENOTCONN|EPROTO)$/);
      expect(error).toBeInstanceOf(Error);
      expect(connection.connectionState()).toBe('dead');
      expect(closes).toHaveLength(1);
      expect(pieces).toBeGreaterThan(20);
      expect((await outcome(connection.pread(512, 0))).word).toBe('EINVAL');
    });
  });
});
