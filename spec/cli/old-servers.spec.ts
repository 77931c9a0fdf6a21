// Servers that hang up at unknown options: the message of the command line, and the option that reaches them.

import { createServer, type Socket } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import * as g from '../support/golden.js';
import { RawPeer } from '../support/raw-server.js';
import { nbd } from './support.js';

let folder = '';
let uri = '';
const sockets = new Set<Socket>();
const server = createServer({ allowHalfOpen: true }, (socket) => {
  sockets.add(socket);
  void old(new RawPeer(socket)).catch(() => undefined);
});

async function old(peer: RawPeer): Promise<void> {
  peer.write(g.greeting());
  await peer.take(4);
  const { number } = await peer.option();
  if (number !== g.OPT.EXPORT_NAME) return void peer.stream.end();
  peer.write(g.u64(1 << 20), g.u16(g.ALL_FLAGS));
  peer.structured = false;
  await peer.serve();
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-old-'));
  await new Promise<void>((resolve) => server.listen(join(folder, 's'), resolve));
  uri = `nbd+unix:///disk?socket=${join(folder, 's')}`;
});

afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

describe('a server that knows NBD_OPT_EXPORT_NAME only', () => {
  it('is out of reach, and the message names the option', async () => {
    const { code, stdout, stderr } = await nbd(['info', '--size', uri]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/closed the connection during the handshake, at NBD_OPT_\w+.*try --export-name-only/);
  });

  it.each<[string, string[], RegExp]>([
    ['info --size', [], /^1048576\n$/],
    ['info', ['--no-content'], /export-size: 1048576 \(1M\)/],
    ['dump', ['-n', '16'], /^0000000000: /],
  ])('nbd %s --export-name-only', async (command, options, says) => {
    const { code, stdout, stderr } = await nbd([...command.split(' '), '--export-name-only', ...options, uri]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(says);
  });
});
