// What goes wrong during whole-export work: the class and the fields of the error stay, a lost connection is one, block
// status that fails is read over, and nothing stays pending.

import { once } from 'node:events';
import { pipeline } from 'node:stream/promises';
import { Readable, Writable } from 'node:stream';

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';

import {
  blockHash,
  compare,
  copy,
  type CopyDestination,
  type CopySource,
  createReadStream,
  createWriteStream,
  extents,
  hash,
  NbdCommandError,
  NbdConnection,
  NbdConnectionError,
  nullDestination,
  prefetch,
} from '../../lib/index.js';
import { type Fault, MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { located } from '../../lib/bulk/failures.js';
import { rejection } from '../support/caught.js';
import { settled, until } from '../support/waiting.js';

const SIZE = 1 << 20;
const sink = (): Writable => new Writable({ write: (_chunk, _encoding, done) => done() });

let server: NbdServer;
const opened: NbdConnection[] = [];
const open = async (exportName = 'a'): Promise<NbdConnection> => {
  const connection = await NbdConnection.connect(server.connectMemory(), {
    exportName,
    metaContexts: ['base:allocation'],
  });
  opened.push(connection);
  return connection;
};

beforeEach(async () => {
  const a = new MemoryBackend(SIZE);
  a.write(Buffer.alloc(SIZE / 2, 1), SIZE / 4);
  server = await new NbdServer({ exports: { a, b: new MemoryBackend(SIZE) } }).listenTcp();
});
afterEach(async () => {
  for (const connection of opened.splice(0)) connection.close();
  await server.close();
});

type Work = (connection: NbdConnection, options?: object) => Promise<unknown>;

/** Each function, with something that reads. */
const READERS: readonly (readonly [string, Work])[] = [
  ['copy', (connection, options) => copy(connection, nullDestination(), options)],
  ['compare', (connection, options) => compare(connection, connection, options)],
  ['hash', hash],
  ['blockHash', blockHash],
  ['prefetch', (connection, options) => prefetch(connection, { read: true, ...options })],
  ['createReadStream', async (connection, options) => pipeline(createReadStream(connection, options), sink())],
];

describe.each(READERS)('%s', (name, work) => {
  it('keeps the class, the code and the fields of an error of a command, and adds where', async () => {
    server.faults.push({ command: 'read', times: 1, error: 'EIO', message: 'bad sector' });
    const error = await rejection(work(await open()));
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error).toMatchObject({ code: 'EIO', serverMessage: 'bad sector', transient: true });
    expect((error as NbdCommandError).message).toMatch(/^\w+: read at offset \d+ failed: pread of /);
    expect((error as NbdCommandError).cookie).toBeGreaterThan(0n);
  });

  it('reports a lost connection as one, with `sent`', async () => {
    server.faults.push({ command: 'read', nth: 1, cut: 'close' });
    const error = await rejection(work(await open(), name === 'hash' || name === 'blockHash' ? {} : { requests: 2 }));
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code: 'ENOTCONN', sent: true, transient: true });
  });

  it('reads over block status that fails, unless that is to be an error', async () => {
    const connection = await open();
    const whole = await work(connection, { extents: false }).catch(() => work(connection, { dataOnly: false }));
    for (const nth of [1, 2]) {
      server.faults.push({ command: 'blockStatus', nth, times: 1, error: 'EIO' });
      const result = await work(connection, { step: SIZE / 4 });
      if (name === 'hash' || name === 'blockHash') expect(result).toEqual(whole);
      if (name === 'copy') expect(result).toMatchObject({ total: BigInt(SIZE) });
      if (name === 'compare') expect(result).toMatchObject({ equal: true, compared: BigInt(SIZE) });
      if (name === 'prefetch') expect((result as { cached: bigint }).cached).toBeGreaterThanOrEqual(BigInt(SIZE / 2));
    }
    server.faults.push({ command: 'blockStatus', times: 1, error: 'EIO' });
    const error = await rejection(work(connection, { onStatusError: 'throw' }));
    expect(error).toMatchObject({ name: 'NbdCommandError', code: 'EIO' });
    expect((error as Error).message).toContain('block status at offset 0 failed');
  });

  it('asks about at most `step` bytes at a time', async () => {
    const asked: number[] = [];
    const watch = { command: 'blockStatus', when: ({ count }) => asked.push(Number(count)) < 0, stall: true } as Fault;
    server.faults.push(watch);
    await work(await open(), { step: 100_000 });
    expect(Math.max(...asked)).toBe(100_000);
    expect(asked.reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(SIZE);
  });

  it('ends with the reason of its signal, whenever it is aborted', async () => {
    for (const command of ['blockStatus', 'read'] as const) {
      server.faults.push({ command, nth: 1, stall: true });
      const reason = new Error('enough');
      const controller = new AbortController();
      const working = rejection(work(await open(), { signal: controller.signal }));
      setTimeout(() => controller.abort(reason), 30);
      const error = (await working) as Error;
      // A stream's own AbortError has the reason as its cause, as everywhere in Node.
      expect([error, error.cause]).toContain(reason);
    }
  });

  it('is ended by an onProgress that throws or rejects', async () => {
    if (name === 'createReadStream') return;
    const reason = new Error('no more');
    const connection = await open();
    expect(
      await rejection(
        work(connection, {
          onProgress: () => {
            throw reason;
          },
        }),
      ),
    ).toBe(reason);
    expect(await rejection(work(connection, { onProgress: () => Promise.reject(reason) }))).toBe(reason);
  });
});

describe('a connection that is lost while nothing is in flight', () => {
  it.each([false, true])('is ENOTCONN, never EINVAL; closed by the program: %p', async (isOurs) => {
    const connection = await open();
    const iterator = createReadStream(connection, { requestSize: 4096, requests: 1, extents: false })[
      Symbol.asyncIterator
    ]();
    await iterator.next();
    await new Promise((done) => setTimeout(done, 20));
    if (isOurs) connection.close();
    else await server.close();
    const error = await rejection(
      (async () => {
        while ((await iterator.next()).done !== true);
      })(),
    );
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });

    await expect(extents(connection).next()).rejects.toMatchObject({ code: 'ENOTCONN' });
  });

  it('is ENOTCONN between two questions of extents()', async () => {
    const connection = await open();
    const walk = extents(connection, { step: 4096, merge: false });
    await walk.next();
    connection.close();
    const error = await rejection(
      (async () => {
        while ((await walk.next()).done !== true);
      })(),
    );
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN', transient: false });
  });
});

it('extents() itself never reads over a failure', async () => {
  server.faults.push({ command: 'blockStatus', nth: 2, times: 1, error: 'EIO' });
  const walk = async (): Promise<void> => {
    for await (const _ of extents(await open(), { step: 65_536 }));
  };
  await expect(walk()).rejects.toMatchObject({ name: 'NbdCommandError', code: 'EIO' });
});

describe('ends that never settle', () => {
  const never = (): Promise<never> => new Promise(() => undefined);
  const source = (fields: Partial<CopySource> = {}): CopySource => ({
    size: SIZE,
    read: async (buffer) => void buffer.fill(1),
    ...fields,
  });
  const stuckRuns = async function* () {
    yield { offset: 0, length: 512, isZero: true };
    await never();
  };
  const ENDS: readonly (readonly [string, CopySource, Partial<CopyDestination>])[] = [
    ['read', source({ read: never }), {}],
    ['zeroRuns', source({ zeroRuns: stuckRuns }), {}],
    ['write', source(), { write: never }],
    ['zero', source({ read: async (buffer) => void buffer.fill(0) }), { zero: never }],
    ['flush', source(), { flush: never }],
    ['read of the destination', source({ size: 513 }), { minimumBlock: 512, read: never }],
  ];

  it.each(ENDS)('do not keep an aborted copy: %s', async (_what, from, fields) => {
    const to: CopyDestination = { size: 2 * SIZE, write: async () => undefined, ...fields };
    const controller = new AbortController();
    const reason = new Error('enough');
    const copying = rejection(copy(from, to, { signal: controller.signal, flush: 'flush' in fields }));
    setTimeout(() => controller.abort(reason), 20);
    expect(await copying).toBe(reason);
  });

  it('do not keep an aborted comparison', async () => {
    const comparing = rejection(compare(source({ read: never }), source(), { signal: AbortSignal.timeout(20) }));
    expect(await comparing).toMatchObject({ name: 'TimeoutError' });
  });
});

describe('work that waits for nothing', () => {
  it.each([
    ['hash', (connection, options) => hash(connection, options)],
    ['copy', (connection, options) => copy(connection, nullDestination(), options)],
    ['compare', (connection, options) => compare(connection, connection, options)],
  ] as [string, Work][])('leaves the event loop alive, and can be aborted: %s', async (_name, work) => {
    await using holes = await new NbdServer({ exports: { '': new MemoryBackend(2n ** 62n) } }).listenTcp();
    await using connection = await NbdConnection.connect(holes.uri(), { metaContexts: ['base:allocation'] });
    // compare() takes what both sides know to be zero in one piece, where the answers are long.
    const options = { signal: AbortSignal.timeout(100), step: 2 ** 30 };
    expect(await rejection(work(connection, options))).toMatchObject({ name: 'TimeoutError' });
  });
});

it('a write stream is destroyed as soon as a write fails, however slow its source is', async () => {
  server.faults.push({ command: 'write', times: 1, error: 'EIO' });
  const stream = createWriteStream(await open('b'), { requestSize: 4096 });
  const failed = once(stream, 'error');
  stream.write(Buffer.alloc(4096));
  expect(await failed).toMatchObject([{ name: 'NbdCommandError', code: 'EIO' }]);
  expect(stream.destroyed).toBe(true);
});

it('a write stream that is destroyed sends nothing more', async () => {
  server.faults.push({ command: 'write', stall: true });
  const connection = await NbdConnection.connect(server.connectMemory(), { exportName: 'b', maxInFlight: 1 });
  opened.push(connection);
  const stream = createWriteStream(connection, { requestSize: 4096, requests: 4 });
  stream.on('error', () => undefined);
  stream.write(Buffer.alloc(4096 * 3));
  await until(() => server.statistics.requests.pwrite === 1);
  stream.destroy();
  await once(stream, 'close');
  await expect(pipeline(Readable.from([Buffer.alloc(1)]), stream)).rejects.toMatchObject({
    // The second is what Node 24 reports.
    code: expect.stringMatching(/^ERR_STREAM_(PREMATURE_CLOSE|UNABLE_TO_PIPE)$/) as unknown,
  });
  await settled();
  expect(server.statistics.requests.pwrite).toBe(1);
});

describe('located', () => {
  const place = { syscall: 'copy', what: 'read', offset: 4096n };

  it('keeps a class that a user has derived, and its own range', () => {
    class Mine extends NbdCommandError {
      readonly ranges = [1, 2];
    }
    const cause = new Mine('why', { code: 'ENOSPC', offset: 5000n, count: 3n, sent: true });
    const error = located(cause, place) as Mine;
    expect(error).toBeInstanceOf(Mine);
    expect(error).toMatchObject({
      ...{ code: 'ENOSPC', errno: 28, offset: 5000n, count: 3n, sent: true },
      ranges: [1, 2],
    });
    expect(error).toMatchObject({ syscall: 'copy', message: 'copy: read at offset 4096 failed: why', cause });
    expect(error.stack).toMatch(/^NbdCommandError: copy: read at offset 4096 failed: why/);
    expect(cause.message).toBe('why');
  });

  it.each([
    ['an errno name', Object.assign(new Error('full'), { code: 'ENOSPC' }), 'ENOSPC'],
    ['another code', Object.assign(new Error('x'), { code: 'ERR_STREAM_DESTROYED' }), 'EIO'],
    ['no code', new Error('x'), 'EIO'],
    ['no error', 'text', 'EIO'],
    ['nothing', undefined, 'EIO'],
  ])('turns another error into an NbdError: %s', (_what, cause, code) => {
    expect(located(cause, place)).toMatchObject({ name: 'NbdError', code, offset: 4096n, syscall: 'copy' });
  });

  it("leaves a signal's reason alone", () => {
    const reason = new Error('enough');
    expect(located(reason, place, AbortSignal.abort(reason))).toBe(reason);
  });
});
