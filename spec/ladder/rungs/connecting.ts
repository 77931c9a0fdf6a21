// Every way to a connection, and what a failed attempt leaves.

import { expect } from '@jest/globals';
import { connect as dial, type Socket } from 'node:net';
import { once } from 'node:events';

import { NbdConnection } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import { freePort } from '../../support/real-servers.js';
import { EXPORT, pattern } from '../image.js';
import { completed, expectBytes, failure, type Group, OK } from '../rung.js';

/** Asserts that the connection reads, and ends it. */
async function works(connection: NbdConnection): Promise<typeof OK> {
  expectBytes(await connection.pread(1000, 99), pattern(99, 1000));
  await connection.shutdown();
  return OK;
}

async function dialled(path: string): Promise<Socket> {
  const socket = dial(path);
  await once(socket, 'connect');
  return socket;
}

/** What a program does that carries stdin and stdout to a Unix socket. */
const BRIDGE = `
  const socket = require('node:net').connect(process.argv[1]);
  process.stdin.pipe(socket).pipe(process.stdout);
  socket.on('close', () => process.exit());`;

export const CONNECTING: Group = {
  name: 'connect forms',
  rungs: {
    'connect: a URI with a Unix socket': async ({ server }) => works(await NbdConnection.connect(server.uri)),
    'connect: a URI with a host': async ({ server }) => works(await NbdConnection.connect(server.readOnly.uri)),
    'connect: a URL object': async ({ server }) => works(await NbdConnection.connect(new URL(server.readOnly.uri))),
    'connect: a path': async ({ server }) =>
      works(await NbdConnection.connect({ path: server.path }, { exportName: EXPORT })),
    'connect: host and port': async ({ server: { readOnly } }) =>
      works(await NbdConnection.connect({ host: readOnly.host, port: readOnly.port }, { exportName: EXPORT })),
    'connect: a stream': async ({ server }) =>
      works(await NbdConnection.connect(await dialled(server.path), { exportName: EXPORT })),
    'connectUri, Unix': async ({ server, create }) => {
      const c = create({ exportName: 'another' });
      await c.connectUri(server.uri);
      expect(c.getExportName()).toBe(EXPORT);
      return works(c);
    },
    'connectUri, TCP': async ({ server, create }) => {
      const c = create();
      await c.connectUri(server.readOnly.uri);
      return works(c);
    },
    connectUnix: async ({ connect }) => works(await connect()),
    connectTcp: async ({ connectReadOnly }) => works(await connectReadOnly()),
    'connectTcp: localhost and a port in digits': async ({ server, create }) => {
      const c = create();
      await c.connectTcp('localhost', String(server.readOnly.port));
      return works(c);
    },
    connectSocket: async ({ server, create }) => {
      const c = create();
      const socket = await dialled(server.path);
      await c.connectSocket(socket);
      await works(c);
      expect(socket.destroyed).toBe(true);
      return OK;
    },
    connectCommand: async ({ server, create }) => {
      const c = create();
      await c.connectCommand([process.execPath, '-e', BRIDGE, server.path]);
      const pid = c.getSubprocessPid();
      expect(pid).toBeGreaterThan(0);
      await works(c);
      expect(caught(() => c.getSubprocessPid())).toMatchObject({ code: 'ESRCH' });
      return OK;
    },
    aioConnectUri: async ({ server, create }) => {
      const c = create();
      expect(await completed((done) => c.aioConnectUri(server.uri, done))).toBeNull();
      return works(c);
    },
    aioConnectUnix: async ({ server, create }) => {
      const c = create();
      const ready = completed((done) => c.aioConnectUnix(server.path, done));
      expect([c.aioIsConnecting(), c.aioIsReady()]).toEqual([true, false]);
      expect(await ready).toBeNull();
      return works(c);
    },
    aioConnectTcp: async ({ server: { readOnly }, create }) => {
      const c = create();
      expect(await completed((done) => c.aioConnectTcp(readOnly.host, readOnly.port, done))).toBeNull();
      return works(c);
    },
    aioConnectSocket: async ({ server, create }) => {
      const c = create();
      const socket = await dialled(server.path);
      expect(await completed((done) => c.aioConnectSocket(socket, done))).toBeNull();
      return works(c);
    },
    'the states on the way': async ({ server, create }) => {
      const c = create();
      const seen: string[] = [];
      c.on('stateChange', (state) => seen.push(state));
      await c.connectUnix(server.path);
      await c.shutdown();
      expect(seen).toEqual(['connecting', 'ready', 'closed']);
      return OK;
    },
    'no such socket: dead': async ({ server, create }) => {
      const c = create();
      expect(await failure(c.connectUnix(`${server.path}.not`))).toMatchObject({ code: 'ENOENT' });
      expect(c.aioIsDead()).toBe(true);
      return OK;
    },
    'no listener on the port: created, and may try again': async ({ server, create }) => {
      const c = create();
      expect(await failure(c.connectTcp(server.readOnly.host, await freePort()))).toMatchObject({
        code: 'ECONNREFUSED',
      });
      expect(c.aioIsCreated()).toBe(true);
      await c.connectTcp(server.readOnly.host, server.readOnly.port);
      return works(c);
    },
    'connected once only': async ({ server, connect }) => {
      const c = await connect();
      expect(await failure(c.connectUnix(server.path))).toMatchObject({ code: 'EINVAL' });
      return works(c);
    },
    'an abort before and during': async ({ server, create }) => {
      const reason = new Error('changed my mind');
      expect(await rejection(create().connectUnix(server.path, AbortSignal.abort(reason)))).toBe(reason);
      const controller = new AbortController();
      const connecting = rejection(create().connectUnix(server.path, controller.signal));
      controller.abort(reason);
      expect(await connecting).toBe(reason);
      return OK;
    },
    'two connections at once': async ({ connect }) => {
      const both = await Promise.all([connect(), connect()]);
      const [a, b] = await Promise.all(both.map((c) => c.pread(512, 512)));
      expect(a).toEqual(b);
      return OK;
    },
  },
};
