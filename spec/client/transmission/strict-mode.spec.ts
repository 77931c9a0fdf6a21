import { describe, expect, it } from '@jest/globals';

import { NbdStrictError } from '../../../lib/index.js';
import * as s from '../../../lib/protocol/client-constants.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { newConnection, openRaw, type OpenOptions } from '../../support/raw-server.js';
import { type Arguments, CALLS, type CallKind, EACH_CALL } from '../calls.js';

const MIB = 1 << 20;
const CONTEXTS = { 1: 'base:allocation' };

interface Row {
  readonly title: string;
  readonly server?: OpenOptions;
  readonly args: Arguments;
  readonly code: string;
  readonly only?: readonly string[];
  readonly not?: readonly string[];
  readonly says: RegExp;
  /** STRICT_* bits in force; default all. */
  readonly strict?: number;
}

const WRITES = ['pwrite', 'trim', 'zero'];
const READS = ['pread', 'preadInto', 'preadStructured', 'cache', 'blockStatus', 'blockStatus64'];
const without = (flag: number): OpenOptions => ({ flags: g.ALL_FLAGS & ~flag });
const ALIGNED: OpenOptions = { blockSize: [4096, 4096, 32 * MIB] };

// libnbd's checks in libnbd's order, one row each, then calls that break two at once.
const ROWS: readonly Row[] = [
  { title: 'an unknown flag', args: { flags: 0x80 }, code: 'EINVAL', says: /invalid flag 0x80/ },
  {
    title: 'a flag above 16 bits, in any mode',
    args: { flags: 0x10000 },
    strict: 0,
    code: 'EINVAL',
    says: /invalid flag/,
  },
  { title: 'FUA', only: [...READS, 'flush'], args: { flags: 1 }, code: 'EINVAL', says: /invalid flag FUA/ },
  ...(
    [
      ['flush', g.SEND_FLUSH],
      ['trim', g.SEND_TRIM],
      ['cache', g.SEND_CACHE],
      ['zero', g.SEND_ZERO],
    ] as const
  ).map(([name, flag]): Row => ({
    ...{ title: 'a command that was not advertised', only: [name], server: without(flag), args: {} },
    ...{ code: 'EINVAL', says: new RegExp(`does not support ${name} operations`) },
  })),
  {
    ...{ title: 'a write to a read-only export', only: WRITES, args: {} },
    ...{ server: { flags: g.ALL_FLAGS | g.READ_ONLY }, code: 'EPERM', says: /read-only/ },
  },
  ...(
    [
      [WRITES, 1, g.SEND_FUA, 'FUA'],
      [['preadStructured'], 4, g.SEND_DF, 'DF'],
      [['zero'], 16, g.SEND_FAST_ZERO, 'FAST_ZERO'],
    ] as const
  ).map(([only, flags, needs, name]): Row => ({
    ...{ title: `${name} that was not advertised`, only, args: { flags }, server: without(needs) },
    ...{ code: 'EINVAL', says: new RegExp(`does not support the ${name} flag`) },
  })),
  {
    ...{ title: 'block status without structured replies', only: ['blockStatus', 'blockStatus64'], args: {} },
    ...{ server: { structured: false }, code: 'ENOTSUP', says: /structured replies/ },
  },
  {
    ...{ title: 'block status without contexts', only: ['blockStatus', 'blockStatus64'], args: {} },
    ...{ server: { contexts: {} }, code: 'ENOTSUP', says: /addMetaContext/ },
  },
  { title: 'no bytes', args: { count: 0 }, code: 'EINVAL', says: /count cannot be 0/ },
  {
    title: 'a range past the end',
    only: READS,
    args: { offset: MIB - 511 },
    code: 'EINVAL',
    says: /ends 1 bytes beyond/,
  },
  {
    title: 'a range past the end',
    only: WRITES,
    args: { offset: MIB - 511 },
    code: 'ENOSPC',
    says: /ends 1 bytes beyond/,
  },
  {
    title: 'an offset past 2^64',
    only: ['cache'],
    args: { offset: 2n ** 64n - 1n },
    code: 'EINVAL',
    says: /beyond the export/,
  },
  {
    title: 'an offset off the block size',
    server: ALIGNED,
    args: { count: 4096, offset: 512 },
    code: 'EINVAL',
    says: /offset is not a multiple/,
  },
  {
    title: 'a count off the block size',
    server: ALIGNED,
    args: { count: 512 },
    code: 'EINVAL',
    says: /count is not a multiple/,
  },
  {
    ...{ title: 'a write above the server’s maximum', only: ['pwrite'], args: { count: 2 * MIB } },
    ...{
      server: { size: 2 ** 30, blockSize: [1, 512, 65536] },
      code: 'ERANGE',
      says: /at most 1048576 bytes in one write/,
    },
  },
  {
    ...{ title: 'more than 64 MiB, in any mode', only: ['pread', 'preadInto', 'preadStructured', 'pwrite'] },
    ...{ args: { count: 64 * MIB + 1 }, strict: 0, code: 'ERANGE', says: /at most 67108864 bytes/ },
  },
  {
    ...{ title: '4 GiB, in any mode', only: ['trim', 'cache', 'zero', 'blockStatus', 'blockStatus64'] },
    ...{ args: { count: 2 ** 32 }, strict: 0, code: 'ERANGE', says: /extended headers: split it/ },
  },

  {
    title: 'unadvertised before no bytes',
    only: ['cache'],
    server: without(g.SEND_CACHE),
    args: { count: 0 },
    code: 'EINVAL',
    says: /canCache/,
  },
  {
    ...{ title: 'unadvertised before read-only', only: ['trim'], args: {} },
    ...{ server: { flags: (g.ALL_FLAGS | g.READ_ONLY) & ~g.SEND_TRIM }, code: 'EINVAL', says: /canTrim/ },
  },
  {
    title: 'an unknown flag before unadvertised',
    only: ['cache'],
    server: without(g.SEND_CACHE),
    args: { flags: 0x80 },
    code: 'EINVAL',
    says: /invalid flag/,
  },
  { title: 'no bytes before bounds', args: { count: 0, offset: MIB + 1 }, code: 'EINVAL', says: /count cannot be 0/ },
  {
    title: 'bounds before alignment',
    only: READS,
    server: ALIGNED,
    args: { count: 512, offset: MIB },
    code: 'EINVAL',
    says: /beyond the export/,
  },
  {
    title: 'bounds before alignment',
    only: WRITES,
    server: ALIGNED,
    args: { count: 512, offset: MIB },
    code: 'ENOSPC',
    says: /beyond the export/,
  },
  {
    title: '8 GiB of 1 MiB: bounds',
    only: ['cache'],
    args: { count: 2 ** 33 },
    code: 'EINVAL',
    says: /beyond the export/,
  },
  {
    title: '8 GiB of 1 MiB without BOUNDS: length',
    only: ['cache'],
    strict: 0x7f & ~4,
    args: { count: 2 ** 33 },
    code: 'ERANGE',
    says: /4 GiB/,
  },
];

async function expectRefused(row: Row, call: CallKind): Promise<void> {
  const { connection, peer } = await openRaw({ contexts: CONTEXTS, ...row.server });
  if (row.strict !== undefined) connection.setStrictMode(row.strict);
  const before = connection.statsBytesSent();
  let completions = 0;
  const errors = [
    await rejection(call.promise(connection, row.args)),
    caught(() =>
      call.aio(connection, row.args, () => {
        completions++;
      }),
    ),
  ];
  for (const error of errors) {
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: row.code });
    expect((error as Error).message).toMatch(row.says);
    expect((error as Error).message).toMatch(new RegExp(`^${call.name.replace('Into', '(Into)?')}`));
  }
  expect(connection.aioInFlight()).toBe(0);
  expect(connection.aioIsReady()).toBe(true);

  // Nothing went out, and no cookie was used: the first thing that the server sees is this.
  connection.setStrictMode(0);
  expect(connection.aioFlush()).toBe(1n);
  expect(await peer.request()).toMatchObject({ type: g.CMD.FLUSH, cookie: 1n });
  expect(connection.statsBytesSent()).toBe(before + 28n);
  expect(completions).toBe(0);
}

describe.each(EACH_CALL)('strict checks of %s', (name, call) => {
  const rows = ROWS.filter(({ only, args }) =>
    only === undefined ? call.hasRange || (args.count === undefined && args.offset === undefined) : only.includes(name),
  );
  it.each(rows.map((row) => [row.title, row.code, row] as const))('%s: %s', (_title, _code, row) =>
    expectRefused(row, call),
  );
});

describe('setStrictMode', () => {
  it('is possible in every state, and the getter returns it', async () => {
    const { connection } = await openRaw();
    expect(connection.getStrictMode()).toBe(s.STRICT_MASK);
    connection.setStrictMode(0);
    expect(connection.getStrictMode()).toBe(0);
    connection.close();
    connection.setStrictMode(s.STRICT_BOUNDS);
    expect(connection.getStrictMode()).toBe(4);

    const { connection: dead, peer } = await openRaw();
    const closed = new Promise((resolve) => dead.once('close', resolve));
    peer.write('what is this?');
    await closed;
    expect(dead.aioIsDead()).toBe(true);
    dead.setStrictMode(s.STRICT_ALIGN);
    expect(dead.getStrictMode()).toBe(16);

    const created = newConnection({ strictMode: 5 });
    created.setStrictMode(6);
    expect(created.getStrictMode()).toBe(6);
  });

  it.each([0x80, 0x17f, -1, 1.5, NaN, '0', null])('refuses %p and keeps the old bits', (bits) => {
    const connection = newConnection({ strictMode: 0x15 });
    expect(caught(() => connection.setStrictMode(bits as number))).toMatchObject({
      code: 'EINVAL',
      syscall: 'setStrictMode',
    });
    expect(connection.getStrictMode()).toBe(0x15);
  });

  it('counts from the next call on; commands that wait already are not affected', async () => {
    const { connection, peer } = await openRaw({
      client: { maxInFlight: 1, strictMode: s.STRICT_MASK & ~s.STRICT_BOUNDS },
    });
    const first = connection.cache(512, 0);
    const outside = connection.cache(512, MIB);
    connection.setStrictMode(s.STRICT_MASK);
    expect(await rejection(connection.cache(512, MIB))).toMatchObject({ code: 'EINVAL' });
    peer.answer(await peer.request());
    await first;
    const second = await peer.request();
    expect(second).toMatchObject({ offset: BigInt(MIB), cookie: 2n });
    peer.write(g.simple(second.cookie, 22));
    expect(await rejection(outside)).toMatchObject({ code: 'EINVAL', name: 'NbdCommandError' });
  });

  it('applies at submission, from the constructor on', async () => {
    const { connection, peer } = await openRaw({ client: { strictMode: 0 }, flags: g.HAS_FLAGS });
    for (const call of CALLS.filter(({ type }) => type !== g.CMD.STATUS)) {
      const pending = rejection(call.promise(connection, { count: 0, offset: 2 * MIB, flags: 0x8000 }));
      const request = await peer.request();
      expect(request).toMatchObject({ type: call.type, flags: 0x8000, length: 0 });
      peer.write(g.errorChunk(request.cookie, 22, 'no such thing'));
      expect(await pending).toMatchObject({ code: 'EINVAL', serverMessage: 'no such thing', name: 'NbdCommandError' });
    }
  });
});
