// Several connections to one export, and the flush at the end.

import { once } from 'node:events';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import {
  compare,
  copy,
  type CopyDestination,
  createWriteStream,
  exportDestination,
  exportSource,
  NbdConnection,
  nullDestination,
} from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { caught } from '../support/caught.js';

const SIZE = 1 << 20;
const BLOCKS = { minimum: 512, preferred: 4096, maximum: 1 << 20 };

let server: NbdServer;
const opened: NbdConnection[] = [];

const open = async (exportName: string, metaContexts = ['base:allocation']): Promise<NbdConnection> => {
  const connection = await NbdConnection.connect(server.connectMemory(), { exportName, metaContexts });
  opened.push(connection);
  return connection;
};

beforeAll(async () => {
  server = await new NbdServer({
    exports: {
      disk: new MemoryBackend(SIZE),
      larger: new MemoryBackend(2 * SIZE),
      blocks: { backend: new MemoryBackend(SIZE), blockSize: BLOCKS },
      fixed: new MemoryBackend(SIZE, { readOnly: true }),
      single: { backend: new MemoryBackend(SIZE), flags: { multiConn: false } },
      fixedSingle: { backend: new MemoryBackend(SIZE, { readOnly: true }), flags: { multiConn: false } },
      unflushed: { backend: new MemoryBackend(SIZE), flags: { flush: false, fua: false } },
    },
  }).listenTcp();
});
afterAll(async () => {
  for (const connection of opened) connection.close();
  await server.close();
});

const sent = (): number => Object.values(server.statistics.requests).reduce((sum, count) => sum + count, 0);

describe('several connections', () => {
  it.each([
    ['sizes', 'disk', 'larger', /differ in their sizes: 1048576 and 2097152/],
    ['sizes, the larger first', 'larger', 'disk', /differ in their sizes/],
    ['read-only flags', 'disk', 'fixed', /differ in their read-only flags/],
    ['block sizes', 'disk', 'blocks', /differ in their minimum block sizes: 1 and 512/],
    ['no multi-conn', 'single', 'single', /multi-conn/],
  ])('that differ, %s, are refused before anything is sent', async (_what, one, other, pattern) => {
    const pair = [await open(one), await open(other)];
    const before = sent();
    const refusal = { name: 'NbdStrictError', code: 'EINVAL', message: expect.stringMatching(pattern) };
    await expect(copy(pair, nullDestination())).rejects.toMatchObject(refusal);
    await expect(copy({ size: 1, read: async () => undefined }, pair)).rejects.toMatchObject(refusal);
    await expect(compare(pair, pair)).rejects.toMatchObject(refusal);
    expect(caught(() => exportSource(pair))).toMatchObject(refusal);
    expect(caught(() => exportDestination(pair))).toMatchObject(refusal);
    expect(sent()).toBe(before);
  });

  it('must have negotiated the same contexts', async () => {
    const pair = [await open('disk'), await open('disk', [])];
    await expect(copy(pair, nullDestination())).rejects.toMatchObject({ code: 'EINVAL', message: /contexts/ });
  });

  it('need no multi-conn where nothing can be written, nor where there is one', async () => {
    await copy([await open('fixedSingle'), await open('fixedSingle')], nullDestination());
    await copy([await open('single')], [await open('disk')]);
  });

  it('are all flushed, each once', async () => {
    const one = await open('disk');
    const pair = [one, await open('disk'), one];
    const before = server.statistics.requests.flush;
    await copy(await open('fixed'), pair, { flush: true });
    expect(server.statistics.requests.flush - before).toBe(2);
  });

  it('fail where the flush of any of them fails', async () => {
    for (const nth of [1, 2]) {
      const pair = [await open('disk'), await open('disk')];
      server.faults.push({ command: 'flush', nth, times: 1, error: 'EIO' });
      await expect(copy(await open('fixed'), pair, { flush: true })).rejects.toMatchObject({
        name: 'NbdCommandError',
        code: 'EIO',
        message: expect.stringMatching(/^copy: flush failed: /),
      });
    }
  });
});

describe('a flush', () => {
  it('that is not possible is refused before anything is copied or written', async () => {
    const source = await open('disk');
    const to = await open('unflushed');
    const refusal = { name: 'NbdStrictError', code: 'EINVAL', message: expect.stringMatching(/cannot flush/) };
    const before = sent();
    await expect(copy(source, to, { flush: true })).rejects.toMatchObject(refusal);
    const own: CopyDestination = { size: SIZE, write: async () => undefined };
    await expect(copy(source, own, { flush: true })).rejects.toMatchObject(refusal);
    expect(caught(() => createWriteStream(to, { flush: true }))).toMatchObject(refusal);
    expect(sent()).toBe(before);
    await copy(source, to, { flush: false });
    await once(createWriteStream(to, { flush: false }).end('x'), 'finish');
  });

  it('that fails destroys a write stream, which does not finish', async () => {
    server.faults.push({ command: 'flush', times: 1, error: 'EIO' });
    const stream = createWriteStream(await open('disk'), { flush: true }).end('x');
    await expect(once(stream, 'finish')).rejects.toMatchObject({ name: 'NbdCommandError', code: 'EIO' });
  });
});

it('a read-only export is refused as destination', async () => {
  const fixed = await open('fixed');
  expect(caught(() => exportDestination(fixed))).toMatchObject({ code: 'EPERM' });
  await expect(copy(await open('disk'), [fixed, await open('fixed')])).rejects.toMatchObject({ code: 'EPERM' });
});
