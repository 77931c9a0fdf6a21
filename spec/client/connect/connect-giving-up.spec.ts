import { getEventListeners } from 'node:events';

import { describe, expect, it } from '@jest/globals';

import { NbdConnection, NbdConnectionError, type NbdError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { atAnyPace, handled } from '../../support/pace.js';
import { listenRaw, memoryPeer, newConnection, type RawPeer } from '../../support/raw-server.js';

type Script = (peer: RawPeer) => Promise<void> | void;

const TELL = g.reply(g.OPT.GO, g.INFO, g.infoExport(1 << 20, 1));
const ANSWER_SR = async (peer: RawPeer): Promise<void> => {
  peer.write(g.greeting());
  await peer.take(4);
  await peer.option();
};

// How far the server goes before it falls silent.
const PHASES: readonly (readonly [string, Script])[] = [
  ['before the greeting', () => undefined],
  ['in the greeting', (peer) => peer.write(g.greeting().subarray(0, 17))],
  [
    'after the greeting',
    async (peer) => {
      peer.write(g.greeting());
      await peer.take(4);
    },
  ],
  ['with an option unanswered', ANSWER_SR],
  [
    'in the header of an option reply',
    async (peer) => {
      await ANSWER_SR(peer);
      peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK).subarray(0, 11));
    },
  ],
  [
    'in the payload of an option reply',
    async (peer) => {
      await ANSWER_SR(peer);
      peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK));
      await peer.option();
      peer.write(TELL.subarray(0, 25));
    },
  ],
  [
    'between two replies to GO',
    async (peer) => {
      await ANSWER_SR(peer);
      peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK));
      await peer.option();
      peer.write(TELL);
    },
  ],
];

const options = { requestExtendedHeaders: false };

describe.each(PHASES)('a server that falls silent %s', (_phase, script) => {
  it('abort: rejects at once with the reason; the socket is closed, no listener is left', async () => {
    const server = await listenRaw();
    const controller = new AbortController();
    const connection = newConnection(options);
    const connecting = rejection(connection.connectUnix((server.target as { path: string }).path, controller.signal));
    const peer = await server.accept();
    await script(peer);
    await new Promise((resolve) => setImmediate(resolve));
    const closed = new Promise((resolve) => connection.once('close', resolve));
    const reason = { enough: true };
    controller.abort(reason);
    expect(await connecting).toBe(reason);
    expect(await closed).toBeInstanceOf(NbdConnectionError);
    expect(connection.aioIsDead()).toBe(true);
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
    await peer.ended;
    // Not even a farewell: the server is in the middle of something.
    expect(await peer.quiet(5)).toBe(0);
  });

  it('close(): rejects with ENOTCONN', async () => {
    const server = await listenRaw();
    const connection = newConnection(options);
    const connecting = rejection(connection.connectUnix((server.target as { path: string }).path));
    const peer = await server.accept();
    await script(peer);
    connection.close();
    expect(await connecting).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
    expect(connection.aioIsClosed()).toBe(true);
    await peer.ended;
  });

  it('connectTimeout: ETIMEDOUT at the deadline', async () => {
    await atAnyPace(async (pace) => {
      const connectTimeout = 100 * pace;
      const server = await listenRaw();
      const begun = performance.now();
      const connecting = rejection(NbdConnection.connect(server.target, { ...options, connectTimeout }));
      const peer = await server.accept();
      await script(peer);
      const error = await connecting;
      const took = performance.now() - begun;
      expect(error).toBeInstanceOf(NbdConnectionError);
      expect(error).toMatchObject({ code: 'ETIMEDOUT', syscall: 'connect' });
      const { message } = error as Error;
      expect(message).toMatch(/^connect to \/.*: the handshake did not end within /);
      expect(message).toContain(`within ${connectTimeout} ms (connectTimeout)`);
      expect(took).toBeGreaterThan(0.95 * connectTimeout);
      await peer.ended;
    });
  });
});

describe('abort of connect', () => {
  it('before the call: rejects with the reason, the connection stays as it was', async () => {
    const signal = AbortSignal.abort('no');
    const connection = newConnection();
    expect(await rejection(connection.connectTcp('localhost', 1, signal))).toBe('no');
    expect(await rejection(connection.connectUri('nbd://localhost:1', signal))).toBe('no');
    expect(await rejection(NbdConnection.connect({ port: 1 }, { signal }))).toBe('no');
    expect(connection.connectionState()).toBe('created');
  });

  it('in the same tick, over every transport', async () => {
    const unix = await listenRaw('unix');
    const tcp = await listenRaw('tcp');
    const { stream } = memoryPeer();
    for (const target of [unix.target, tcp.target, stream, { host: 'no-such-host.invalid' }]) {
      const controller = new AbortController();
      const connecting = rejection(NbdConnection.connect(target, { signal: controller.signal }));
      controller.abort('at once');
      expect(await connecting).toBe('at once');
      expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
    }
    expect(stream.destroyed).toBe(true);
  });

  it('after it has ended has no effect', async () => {
    const server = await listenRaw();
    const controller = new AbortController();
    const connection = newConnection();
    const connecting = connection.connectUnix((server.target as { path: string }).path, controller.signal);
    const peer = await server.accept();
    await peer.handshake();
    await connecting;
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
    controller.abort();
    void peer.serve();
    await connection.flush();
  });

  it('ends what a listener of stateChange sees: connecting, then dead, once each', async () => {
    const server = await listenRaw();
    const controller = new AbortController();
    const connection = newConnection();
    const seen: string[] = [];
    connection.on('stateChange', (state, previous) => seen.push(`${previous} ${state}`));
    connection.on('close', () => seen.push('close'));
    const connecting = rejection(connection.connectUnix((server.target as { path: string }).path, controller.signal));
    await server.accept();
    controller.abort();
    await connecting;
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(seen).toEqual(['created connecting', 'connecting dead', 'close']);
  });
});

describe('connectTimeout', () => {
  it('is for the whole handshake, not for each byte of it', async () => {
    await atAnyPace(async (pace) => {
      const server = await listenRaw();
      const connecting = rejection(NbdConnection.connect(server.target, { connectTimeout: 200 * pace }));
      const peer = await server.accept();
      let sent = 0;
      const trickle = setInterval(() => peer.write(g.greeting().subarray(sent, ++sent)), 20 * pace);
      const error = await connecting;
      clearInterval(trickle);
      expect(error).toMatchObject({ code: 'ETIMEDOUT' });
      expect(sent).toBeGreaterThan(1);
      expect(sent).toBeLessThan(18);
    });
  });

  it.each([0, Infinity])('of %p never ends the attempt', async (connectTimeout) => {
    const server = await listenRaw();
    const connection = newConnection({ connectTimeout });
    let settled = false;
    const connecting = connection.connectUnix((server.target as { path: string }).path).then(() => (settled = true));
    const peer = await server.accept();
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(settled).toBe(false);
    await peer.handshake();
    await connecting;
  });

  it('does not end a connection that is made', async () => {
    await atAnyPace(async (pace) => {
      const server = await listenRaw();
      const connecting = handled(NbdConnection.connect(server.target, { connectTimeout: 40 * pace }));
      const peer = await server.accept();
      await peer.handshake();
      const connection = await connecting;
      await new Promise((resolve) => setTimeout(resolve, 80 * pace));
      void peer.serve();
      await connection.flush();
      connection.close();
    });
  });

  it('ends a raw connect as well', async () => {
    const server = await listenRaw();
    const connection = newConnection({ connectTimeout: 40 });
    const closed = new Promise<NbdError | undefined>((resolve) => connection.once('close', resolve));
    connection.aioConnectUnix((server.target as { path: string }).path);
    expect(await closed).toMatchObject({ code: 'ETIMEDOUT' });
    expect(connection.aioIsDead()).toBe(true);
  });
});
