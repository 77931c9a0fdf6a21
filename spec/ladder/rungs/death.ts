// Connections that break. Between client and server stands a stream that does the damage, so that every server is as
// good as any other for it.

import { expect } from '@jest/globals';
import { connect as dial } from 'node:net';
import { Duplex, Transform } from 'node:stream';

import { type NbdConnection, NbdError } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import { closed, failure, type Group, OK, type Stage } from '../rung.js';

type Damage = 'none' | 'cut' | 'reset' | 'magic' | 'half' | 'silence';

interface Frail {
  readonly connection: NbdConnection;
  /** From now on, what the server sends is damaged. */
  readonly damage: (kind: Damage) => void;
}

/** A connection whose server can be made to seem broken. */
async function frail({ create, server }: Stage): Promise<Frail> {
  const connection = create({ closeTimeout: 200 });
  const socket = dial(server.path);
  let kind: Damage = 'none';
  const tamper = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      switch (kind) {
        case 'none':
          this.push(chunk);
          break;
        case 'magic':
          this.push(Buffer.concat([Buffer.from('deadbeef', 'hex'), chunk.subarray(4)]));
          break;
        case 'half':
          this.push(chunk.subarray(0, 10));
          this.push(null);
          break;
        case 'cut':
          this.push(null);
          break;
        case 'reset':
          done(new Error('the line went dead'));
          return;
        case 'silence':
          break;
      }
      done();
    },
  });
  socket.pipe(tamper);
  socket.on('error', () => tamper.destroy());
  const stream = Duplex.from({ readable: tamper, writable: socket });
  stream.on('close', () => socket.destroy());
  await connection.connectSocket(stream);
  return { connection, damage: (which) => (kind = which) };
}

/** Every pending command rejects with the reason, and the connection is over. */
async function dies(stage: Stage, kind: Damage, code: string): Promise<typeof OK> {
  const { connection, damage } = await frail(stage);
  const end = closed(connection);
  damage(kind);
  const pending = [connection.pread(512, 0), connection.pread(512, 512)].map(rejection);
  for (const error of await Promise.all(pending)) {
    expect(error).toMatchObject({ code: 'ENOTCONN', name: 'NbdConnectionError', sent: true });
    expect((error as NbdError).cause).toMatchObject({ code });
  }
  expect(await end).toBeInstanceOf(NbdError);
  expect([connection.aioIsDead(), connection.aioInFlight()]).toEqual([true, 0]);
  return OK;
}

export const DEATH: Group = {
  name: 'death',
  rungs: {
    'a wrong magic': (stage) => dies(stage, 'magic', 'EPROTO'),
    'the end in the middle of a reply': (stage) => dies(stage, 'half', 'ENOTCONN'),
    'the end with commands pending': async (stage) => {
      const { connection, damage } = await frail(stage);
      damage('cut');
      expect(await failure(connection.pread(512, 0))).toMatchObject({ code: 'ENOTCONN' });
      expect(connection.connectionState()).toMatch(/closed|dead/);
      return OK;
    },
    'an error of the stream': async (stage) => {
      const { connection, damage } = await frail(stage);
      damage('reset');
      expect(await failure(connection.pread(512, 0))).toMatchObject({ code: 'ENOTCONN' });
      expect(connection.aioIsDead()).toBe(true);
      return OK;
    },
    'after death everything is refused': async (stage) => {
      const { connection, damage } = await frail(stage);
      damage('magic');
      await rejection(connection.pread(512, 0));
      expect(await failure(connection.pread(512, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdStateError' });
      expect(caught(() => connection.getSize())).toMatchObject({ code: 'EINVAL' });
      expect(connection.getExportName()).not.toBe('');
      return OK;
    },
    'raw commands: called once, and retrievable': async (stage) => {
      const { connection, damage } = await frail(stage);
      damage('half');
      const told: unknown[] = [];
      const end = closed(connection);
      const cookie = connection.aioPread(Buffer.alloc(512), 0, (error) => void told.push(error?.code));
      await end;
      expect(told).toEqual(['ENOTCONN']);
      expect(caught(() => connection.aioCommandCompleted(cookie))).toMatchObject({ code: 'ENOTCONN' });
      expect(connection.aioCommandCompleted(cookie)).toBe(false);
      return OK;
    },
    'waiting commands were not sent, and report that': async (stage) => {
      const { connection, damage } = await frail(stage);
      damage('magic');
      const pending = Array.from({ length: 70 }, () => rejection(connection.pread(512, 0)));
      const errors = (await Promise.all(pending)) as NbdError[];
      expect(errors.map(({ code }) => code)).toEqual(Array<string>(70).fill('ENOTCONN'));
      expect([errors[0]?.sent, errors[69]?.sent]).toEqual([true, false]);
      return OK;
    },
    'a server that falls silent: requestTimeout': async ({ create, ...stage }) => {
      const impatient = (): NbdConnection => create({ requestTimeout: 50 });
      const { connection, damage } = await frail({ ...stage, create: impatient });
      damage('silence');
      const error = await failure(connection.pread(512, 0));
      expect(error).toMatchObject({ code: 'ETIMEDOUT', sent: true });
      expect(connection.aioIsDead()).toBe(true);
      return OK;
    },
    'shutdown after death resolves': async (stage) => {
      const { connection, damage } = await frail(stage);
      damage('magic');
      await rejection(connection.pread(512, 0));
      await connection.shutdown();
      connection.close();
      expect(connection.aioIsDead()).toBe(true);
      return OK;
    },
  },
};
