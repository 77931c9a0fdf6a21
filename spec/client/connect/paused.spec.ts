// Sockets that their owner has paused, so that nothing is lost before they are handed over.

import { describe, expect, it } from '@jest/globals';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

import * as g from '../../support/golden.js';
import { listenRaw, memoryPeer, newConnection, type RawPeer } from '../../support/raw-server.js';

async function socketPair(): Promise<{ stream: Socket; peer: RawPeer }> {
  const server = await listenRaw('tcp');
  const accepted = server.accept();
  const stream = connect((server.target as { port: number }).port, '127.0.0.1');
  await new Promise((resolve) => stream.once('connect', resolve));
  return { stream, peer: await accepted };
}

const STREAMS: readonly (readonly [string, () => Promise<{ stream: Duplex; peer: RawPeer }>])[] = [
  ['a socket', socketPair],
  ['a stream in memory', () => Promise.resolve(memoryPeer())],
];
const PAUSES: readonly (readonly [string, (stream: Duplex, peer: RawPeer) => Promise<void>])[] = [
  [
    'paused before anything came',
    (stream) => {
      stream.pause();
      return Promise.resolve();
    },
  ],
  [
    'paused with the greeting in it',
    async (stream, peer) => {
      stream.pause();
      peer.write(g.greeting().subarray(0, 8));
      await new Promise((resolve) => setTimeout(resolve, 20));
      // What is left of the greeting comes by itself.
      peer.write(g.greeting().subarray(8));
    },
  ],
  [
    'resumed and paused again',
    (stream) => {
      stream.resume();
      stream.pause();
      return Promise.resolve();
    },
  ],
];

describe.each(STREAMS)('%s', (_stream, open) => {
  it.each(PAUSES)('%s is read', async (title, pause) => {
    const { stream, peer } = await open();
    await pause(stream, peer);
    const connection = newConnection();
    const greeted = title.includes('greeting');
    const write = peer.write.bind(peer);
    // The handshake's first write is the greeting, which may be there already.
    let writes = 0;
    peer.write = (...parts) => (greeted && writes++ === 0 ? undefined : write(...parts));
    await Promise.all([connection.connectSocket(stream), peer.handshake()]);
    void peer.serve();
    expect(await connection.pread(512, 4096)).toEqual(g.content(4096, 512));
    await connection.shutdown();
  });
});
