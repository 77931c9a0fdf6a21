// Where a flag mask may stand, { flags, signal } may stand too: every promise command of a connection and of a pool does
// the same in both forms, and what is not an option is refused before anything is sent.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { NbdConnection, type NbdExport, NbdPool } from 'nbd-sdk';
import * as api from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

import { rejection } from '../support/caught.js';

const LENGTH = 512;
const nothing = (): void => undefined;
const CONTEXT = [api.CONTEXT_BASE_ALLOCATION];

type Rest = readonly unknown[];
/** A command, with what stands in the places of flags and signal. */
type Call = (on: NbdExport, ...rest: Rest) => Promise<unknown>;
const given = (rest: Rest): [] => rest as [];

/** Flags are what the command accepts besides 0; null: none. */
const COMMANDS: readonly (readonly [name: string, flags: number | null, call: Call])[] = [
  ['cache', null, (on, ...rest) => on.cache(LENGTH, 0, ...given(rest))],
  ['pread', null, (on, ...rest) => on.pread(LENGTH, 0, ...given(rest))],
  [
    'preadInto',
    null,
    async (on, ...rest) => {
      const buffer = Buffer.alloc(LENGTH, 9);
      await on.preadInto(buffer, 0, ...given(rest));
      return buffer;
    },
  ],
  ['preadStructured', api.CMD_FLAG_DF, (on, ...rest) => on.preadStructured(LENGTH, 0, nothing, ...given(rest))],
  ['pwrite', api.CMD_FLAG_FUA, (on, ...rest) => on.pwrite(Buffer.alloc(LENGTH, 7), 0, ...given(rest))],
  ['trim', api.CMD_FLAG_FUA, (on, ...rest) => on.trim(LENGTH, 4096, ...given(rest))],
  ['zero', api.CMD_FLAG_NO_HOLE, (on, ...rest) => on.zero(LENGTH, 8192, ...given(rest))],
  ['flush', null, (on, ...rest) => on.flush(...given(rest))],
  ['blockStatus', api.CMD_FLAG_REQ_ONE, (on, ...rest) => on.blockStatus(LENGTH, 0, ...given(rest))],
  ['blockStatus', api.CMD_FLAG_REQ_ONE, (on, ...rest) => on.blockStatus(LENGTH, 0, nothing, ...given(rest))],
  ['blockStatus64', api.CMD_FLAG_REQ_ONE, (on, ...rest) => on.blockStatus64(LENGTH, 0, ...given(rest))],
  ['blockStatus64', api.CMD_FLAG_REQ_ONE, (on, ...rest) => on.blockStatus64(LENGTH, 0, nothing, ...given(rest))],
  ['blockStatusFilter', null, (on, ...rest) => on.blockStatusFilter(LENGTH, 0, CONTEXT, ...given(rest))],
  ['blockStatusFilter', null, (on, ...rest) => on.blockStatusFilter(LENGTH, 0, CONTEXT, nothing, ...given(rest))],
];

let server: NbdServer;
const ends = new Map<string, NbdExport>();
/** Names and flags of the requests that the server got. */
const requests: [name: string, flags: number][] = [];

beforeAll(async () => {
  server = await new NbdServer({
    exports: { '': new MemoryBackend(65_536) },
    onRequest: ({ command, flags }) => void requests.push([command, flags]),
  }).listenTcp();
  const options = { metaContexts: CONTEXT };
  ends.set('connection', await NbdConnection.connect(server.uri(), options));
  ends.set('pool', await NbdPool.connect(server.uri(), { ...options, connections: 2 }));
});

afterAll(async () => {
  for (const each of ends.values()) await (each as NbdConnection).shutdown();
  await server.close();
});

const on = (kind: string): NbdExport => ends.get(kind) as NbdExport;
/** What a call led to: its result, and what the server got of it. */
async function outcome(call: () => Promise<unknown>): Promise<unknown> {
  requests.length = 0;
  return [await call(), [...requests]];
}

const CASES = ['connection', 'pool'].flatMap((kind) =>
  COMMANDS.map(
    ([name, flags, call], index) => [`${name} (${String(index)}) of a ${kind}`, kind, name, flags, call] as const,
  ),
);

describe.each(CASES)('%s', (_title, kind, name, flags, call) => {
  it('does the same with flags, with options, and with neither', async () => {
    const plain = await outcome(() => call(on(kind)));
    expect((plain as [unknown, unknown[]])[1]).toHaveLength(1);
    for (const rest of [[{}], [{ flags: 0 }], [{ flags: undefined, signal: undefined }], [undefined], [0]]) {
      expect(await outcome(() => call(on(kind), ...rest))).toEqual(plain);
    }
    if (flags === null) return;
    const flagged = await outcome(() => call(on(kind), flags));
    expect(flagged).not.toEqual(plain);
    expect(await outcome(() => call(on(kind), { flags }))).toEqual(flagged);
  });

  it('rejects with the reason of a signal in its options, and sends nothing', async () => {
    const reason = new Error('enough');
    requests.length = 0;
    expect(await rejection(call(on(kind), { signal: AbortSignal.abort(reason) }))).toBe(reason);
    expect(requests).toEqual([]);
  });

  it('listens to the signal while it is in flight', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const called = call(on(kind), { signal: abort.signal });
    abort.abort(reason);
    expect(await rejection(called)).toBe(reason);
  });

  it.each<[key: string, rest: Rest]>([
    ['Signal', [{ Signal: AbortSignal.timeout(1000) }]],
    ['flag', [{ flag: 1 }]],
    ['flags', [{ flags: '1' }]],
    ['flags', [{ flags: 1.5 }]],
    ['flags', [{ flags: NaN }]],
    ['flags', [{ flags: null }]],
    ['signal', [{ signal: null }]],
    ['signal', [{ signal: new AbortController() }]],
    ['signal', [{ flags: 0 }, new AbortController().signal]],
    ['signal', [new AbortController().signal]],
    ['flags', [null]],
    ['options', [[]]],
  ])('names %s where it is refused', async (key, rest) => {
    requests.length = 0;
    const error = await rejection(call(on(kind), ...rest));
    expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
    expect((error as Error).message).toMatch(
      new RegExp(`^${name === 'preadInto' ? 'pread(Into)?' : name}: .*\\b${key}\\b`),
    );
    expect(requests).toEqual([]);
  });
});

describe('preadInto', () => {
  it.each(['connection', 'pool'])(
    'of a %s clears the buffer where its options are refused, as for wrong flags',
    async (kind) => {
      const buffer = Buffer.alloc(16, 1);
      await rejection(on(kind).preadInto(buffer, 0, { wrong: 1 } as object));
      expect(buffer).toEqual(Buffer.alloc(16));
    },
  );
});

describe('shutdown', () => {
  it('takes options too', async () => {
    const connection = await NbdConnection.connect(server.uri());
    const wrong = await rejection(connection.shutdown({ wait: true } as object));
    expect(wrong).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
    expect((wrong as Error).message).toMatch(/^shutdown: .*wait/);
    const pending = connection.pread(16, 0);
    const reason = await Promise.allSettled([pending, connection.shutdown({ flags: api.SHUTDOWN_ABANDON_PENDING })]);
    expect(reason).toMatchObject([{ status: 'rejected', reason: { code: 'ENOTCONN' } }, { status: 'fulfilled' }]);
  });
});
