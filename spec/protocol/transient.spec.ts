import { createServer } from 'node:net';

import { describe, expect, it } from '@jest/globals';

import * as errors from '../../lib/errors.js';
import { NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { rejection } from '../support/caught.js';

type ErrorClass = Exclude<keyof typeof errors, 'errnoOf' | 'withMessage'>;

const NETWORK = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTCONN'];

/** Class, the codes with which it is transient, and those with which it is not. */
const TABLE: readonly (readonly [ErrorClass, transient: readonly string[], final: readonly string[]])[] = [
  ['NbdStrictError', [], ['EINVAL', 'EPERM', 'ENOSPC', 'EIO', 'EAGAIN']],
  ['NbdProtocolError', [], ['EPROTO', 'EIO', 'ENOTCONN']],
  ['NbdStateError', [], ['EINVAL', 'ENOTCONN']],
  ['NbdQueueFullError', ['EAGAIN'], []],
  [
    'NbdCommandError',
    ['EIO', 'ENOMEM', 'ESHUTDOWN'],
    ['EPERM', 'EINVAL', 'ENOSPC', 'EOVERFLOW', 'ENOTSUP', 'ENOTHING'],
  ],
  ['NbdOptionError', ['ESHUTDOWN'], ['ENOENT', 'ENOTSUP', 'EACCES', 'EINVAL']],
  ['NbdConnectionError', [...NETWORK, 'ENOENT', 'EMFILE'], ['EACCES', 'EPROTO', 'ENOTSUP', 'ENOTFOUND', 'EFAULT']],
  ['NbdError', ['EIO', ...NETWORK], ['EINVAL', 'EPROTO', 'ENOTSUP', 'EPERM']],
];

describe.each(TABLE)('%s', (name, transient, final) => {
  it(`is transient with ${transient.join(', ') || 'nothing'}`, () => {
    for (const code of transient) expect([code, new errors[name]('x', { code }).transient]).toEqual([code, true]);
  });

  it(`is not with ${final.join(', ') || 'anything else'}`, () => {
    for (const code of final) expect([code, new errors[name]('x', { code }).transient]).toEqual([code, false]);
  });
});

describe('transient', () => {
  const ended = (cause: unknown) => new errors.NbdConnectionError('x', { code: 'ENOTCONN', cause });

  it('of the end of a connection is that of its reason', () => {
    expect(ended(new errors.NbdConnectionError('x', { code: 'ECONNRESET' })).transient).toBe(true);
    expect(ended(new errors.NbdProtocolError('x', { code: 'EPROTO' })).transient).toBe(false);
    expect(ended(ended(new errors.NbdProtocolError('x', { code: 'EPROTO' }))).transient).toBe(false);
    expect(ended(Object.assign(new Error('x'), { code: 'ECONNRESET' })).transient).toBe(true);
    expect(ended(Object.assign(new Error('x'), { code: 'ENOENT', syscall: 'spawn nbdkit' })).transient).toBe(false);
    const cause = ended(new Error('x'));
    expect(new errors.NbdStateError('x', { code: 'EINVAL', cause }).transient).toBe(true);
  });

  it('can be set by the code that creates the error, and is not enumerated otherwise', () => {
    expect(new errors.NbdCommandError('x', { code: 'EIO', transient: false }).transient).toBe(false);
    expect(new errors.NbdCommandError('x', { code: 'EINVAL', transient: true }).transient).toBe(true);
    expect(Object.keys(new errors.NbdCommandError('x', { code: 'EIO' }))).toEqual(['code', 'errno']);
  });

  it("of a user's own subclass goes by the code", () => {
    class MyError extends errors.NbdError {}
    expect(new MyError('x', { code: 'EIO' }).transient).toBe(true);
    expect(new MyError('x', { code: 'EINVAL' }).transient).toBe(false);
  });

  it('a server that is not there, a server that has gone, and a close() of our own', async () => {
    expect(await rejection(NbdConnection.connect('nbd+unix:///?socket=/nowhere/at/all'))).toMatchObject({
      code: 'ENOENT',
      transient: true,
    });
    // The client hangs up, and resets what it has not read.
    const greeting = createServer((socket) => socket.on('error', () => undefined).end('SSH-2.0-x\r\n'.repeat(20)));
    await new Promise<void>((done) => greeting.listen(0, '127.0.0.1', done));
    const { port } = greeting.address() as { port: number };
    expect(await rejection(NbdConnection.connect(`nbd://127.0.0.1:${port}`))).toMatchObject({ transient: false });
    greeting.close();

    for (const isOurs of [true, false]) {
      await using server = await new NbdServer({ exports: { '': new MemoryBackend(4096) } }).listenTcp();
      server.faults.push({ command: 'read', ...(isOurs ? { stall: true } : { cut: 'reset' }) });
      const connection = await NbdConnection.connect(server.uri());
      const read = rejection(connection.pread(512, 0));
      if (isOurs) setTimeout(() => connection.close(), 20);
      expect(await read).toMatchObject({ code: 'ENOTCONN', transient: !isOurs });
      expect(await rejection(connection.pread(512, 0))).toMatchObject({ code: 'EINVAL', transient: !isOurs });
      connection.close();
    }
  });
});
