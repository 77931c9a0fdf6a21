// Faults below the protocol: names that are not looked up, sockets that may not be used, peers that vanish.

import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import dns from 'node:dns';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';

import { NbdConnection } from '../../lib/index.js';
import { ScriptedPeer } from '../../lib/testing/index.js';
import { leftovers, resources } from '../support/leftovers.js';
import { startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { outcome } from './invariants.js';

describe('F03: a name whose look-up gets no answer', () => {
  const lookup = dns.lookup;
  let answer: (address: string) => void = () => undefined;
  beforeEach(() => {
    // getaddrinfo cannot be cancelled: a connect that is given up must not wait for it.
    const silent = (name: string, options: { all?: boolean }, callback: (...found: unknown[]) => void): void => {
      if (name !== 'slow.example') {
        Reflect.apply(lookup, dns, [name, options, callback]);
        return;
      }
      answer = (address) => {
        if (options.all === true) callback(null, [{ address, family: 4 }]);
        else callback(null, address, 4);
      };
    };
    Object.assign(dns, { lookup: silent });
  });
  afterEach(() => void Object.assign(dns, { lookup }));

  it.each(['connectTimeout', 'signal'] as const)('is given up by %s; a late answer is ignored', async (by) => {
    const before = resources();
    const clients: Socket[] = [];
    const server = createServer((client) => void clients.push(client));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const signal = AbortSignal.timeout(100);
    const options = by === 'signal' ? { signal, connectTimeout: 0 } : { connectTimeout: 100 };
    const { word, error } = await outcome(NbdConnection.connect({ host: 'slow.example', port }, options));
    if (by === 'signal') expect(error).toBe(signal.reason);
    else expect(word).toBe('ETIMEDOUT');
    answer('127.0.0.1');
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(clients).toHaveLength(0);
    await new Promise((resolve) => server.close(resolve));
    expect(await leftovers(before)).toEqual([]);
  });
});

describe('F04: a Unix socket', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-transport-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('without a listener is ECONNREFUSED', async () => {
    const path = join(folder, 'stale');
    await using server = await startStale(path);
    expect(server.path).toBe(path);
    expect(await outcome(NbdConnection.connect({ path }))).toMatchObject({
      ...{ word: 'ECONNREFUSED', error: { name: 'NbdConnectionError', syscall: 'connect' } },
    });
  });

  it('that may not be used is EACCES', async () => {
    await using peer = await ScriptedPeer.listen();
    const path = peer.socketPath as string;
    await chmod(path, 0o000);
    // Root may use everything; nobody may not.
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65534);
    try {
      expect((await outcome(NbdConnection.connect({ path }))).word).toBe('EACCES');
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });
});

/** A socket's file whose server is gone: closing one in order would remove it, so its process is killed. */
async function startStale(path: string): Promise<AsyncDisposable & { readonly path: string }> {
  const server = await startNbdkit({ socketPath: path, args: ['1M'] });
  server.kill('SIGKILL');
  await server.ended;
  return { path, [Symbol.asyncDispose]: () => server.stop() };
}

describeWith(['nbdkit'], 'F11: a peer that vanishes without a word', () => {
  it('is noticed by the kernel: keepalive is on', async () => {
    await using server = await startNbdkit({ transport: 'tcp', args: ['1M'] });
    await using connection = await NbdConnection.connect(server.uri());
    await connection.pread(512, 0);
    const hex = (server.port as number).toString(16).toUpperCase().padStart(4, '0');
    // Of each socket: local and remote address, state, queues, and its timer, of which 02 is keepalive.
    const line = (await readFile('/proc/net/tcp', 'utf8'))
      .split('\n')
      .find((text) => new RegExp(`^ *\\d+: \\S+ \\S+:${hex} 01 `).test(text));
    expect(line).toMatch(/^ *\d+: \S+ \S+ 01 \S+ 02:/);
  });
});
