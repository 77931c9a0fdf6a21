// While an option waits for its answer the connection is connecting, as in libnbd: whatever changes or reads the
// handshake is refused, and nothing else is.

import { describe, expect, it } from '@jest/globals';

import { type NbdConnection, type NbdConnectionOptions, SIZE_MINIMUM } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { listenRaw, newConnection, type RawPeer } from '../../support/raw-server.js';

const BASE = 'base:allocation';

async function negotiating(options: NbdConnectionOptions = {}): Promise<{ connection: NbdConnection; peer: RawPeer }> {
  const server = await listenRaw();
  const connection = newConnection({ optMode: true, requestExtendedHeaders: false, ...options });
  const connected = connection.connectUnix((server.target as { path: string }).path);
  const peer = await server.accept();
  peer.write(g.greeting());
  await peer.take(4);
  if (options.requestStructuredReplies !== false) {
    await peer.option();
    peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK));
  }
  await connected;
  return { connection, peer };
}

const states = (c: NbdConnection): string =>
  [c.connectionState(), c.aioIsConnecting(), c.aioIsNegotiating(), c.aioIsReady()].join();

/** A pending option, and the answer that it waits for. */
const OPTIONS: readonly (readonly [string, (c: NbdConnection) => unknown, (peer: RawPeer) => Buffer[]])[] = [
  ['aioOptList', (c) => c.aioOptList(() => undefined), () => [g.reply(g.OPT.LIST, g.ACK)]],
  ['optList', (c) => c.optList(), () => [g.reply(g.OPT.LIST, g.ACK)]],
  ['aioOptStructuredReply', (c) => c.aioOptStructuredReply(), () => [g.reply(g.OPT.STRUCTURED_REPLY, g.ACK)]],
  [
    'aioOptInfo',
    (c) => c.aioOptInfo(),
    () => [g.reply(g.OPT.INFO, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)), g.reply(g.OPT.INFO, g.ACK)],
  ],
  ['a refused aioOptInfo', (c) => c.aioOptInfo(), () => [g.reply(g.OPT.INFO, g.ERR_UNKNOWN)]],
];

/** What is refused meanwhile. */
const REFUSED: readonly (readonly [string, (c: NbdConnection) => unknown])[] = [
  ['setExportName', (c) => c.setExportName('other')],
  ['setFullInfo', (c) => c.setFullInfo(true)],
  ['setRequestBlockSize', (c) => c.setRequestBlockSize(false)],
  ['setRequestMetaContext', (c) => c.setRequestMetaContext(false)],
  ['addMetaContext', (c) => c.addMetaContext(BASE)],
  ['clearMetaContexts', (c) => c.clearMetaContexts()],
  ['setTls', (c) => c.setTls(1)],
  ['getSize', (c) => c.getSize()],
  ['getBlockSize', (c) => c.getBlockSize(SIZE_MINIMUM)],
  ['getProtocol', (c) => c.getProtocol()],
  ['canMetaContext', (c) => c.canMetaContext(BASE)],
  ['aioOptGo', (c) => c.aioOptGo()],
  ['aioOptAbort', (c) => c.aioOptAbort()],
];

/** What is not. */
const ALLOWED: readonly (readonly [string, (c: NbdConnection) => unknown])[] = [
  ['setStrictMode', (c) => c.setStrictMode(c.getStrictMode())],
  ['setPreadInitialize', (c) => c.setPreadInitialize(true)],
  ['setHandleName', (c) => c.setHandleName('h')],
  ['getExportName', (c) => c.getExportName()],
  ['statsBytesSent', (c) => c.statsBytesSent()],
];

describe('a pending option', () => {
  it.each(OPTIONS)('%s: connecting until the answer, then negotiating', async (_name, begin, answer) => {
    const { connection, peer } = await negotiating();
    expect(states(connection)).toBe('negotiating,false,true,false');
    const pending = begin(connection);
    expect(states(connection)).toBe('connecting,true,false,false');
    for (const [name, call] of REFUSED) {
      expect([name, caught(() => call(connection))]).toMatchObject([name, { code: 'EINVAL', syscall: name }]);
    }
    for (const method of ['optGo', 'optInfo', 'optList', 'optStarttls', 'optAbort'] as const) {
      expect(await rejection(connection[method]())).toMatchObject({ code: 'EINVAL', syscall: method });
    }
    for (const [, call] of ALLOWED) expect(() => call(connection)).not.toThrow();
    await peer.option();
    peer.write(...answer(peer));
    // The loop of libnbd's man pages.
    while (connection.aioIsConnecting()) await new Promise(setImmediate);
    await pending;
    expect(states(connection)).toBe('negotiating,false,true,false');
    for (const [name, call] of REFUSED.slice(0, 6)) {
      expect(() => call(connection)).not.toThrow();
      expect(name).toMatch(/^(set|add|clear)/);
    }
  });

  it('does not emit stateChange: the handshake goes on', async () => {
    const { connection, peer } = await negotiating();
    const seen: string[] = [];
    connection.on('stateChange', (state, previous) => seen.push(`${previous} ${state}`));
    const listed = connection.optList();
    await peer.option();
    peer.write(g.reply(g.OPT.LIST, g.ACK));
    await listed;
    const gone = connection.optGo();
    await peer.option();
    peer.write(g.reply(g.OPT.GO, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)), g.reply(g.OPT.GO, g.ACK));
    await gone;
    expect(seen).toEqual(['negotiating ready']);
  });

  it('that was aborted is still pending', async () => {
    const { connection, peer } = await negotiating();
    const listed = rejection(connection.optList(undefined, AbortSignal.abort('no')));
    expect(await listed).toBe('no');
    const controller = new AbortController();
    const second = rejection(connection.optList(undefined, controller.signal));
    await peer.option();
    controller.abort('enough');
    expect(await second).toBe('enough');
    expect(connection.aioIsConnecting()).toBe(true);
    peer.write(g.reply(g.OPT.LIST, g.ACK));
    while (connection.aioIsConnecting()) await new Promise(setImmediate);
    expect(connection.aioIsNegotiating()).toBe(true);
  });
});

describe('optAbort', () => {
  it.each(['optAbort', 'shutdown'] as const)('by %s is an option of 16 bytes in the statistics', async (method) => {
    const { connection, peer } = await negotiating();
    const before = [connection.statsBytesSent(), connection.statsChunksSent()];
    await connection[method]();
    expect((await peer.option()).number).toBe(g.OPT.ABORT);
    const after = [connection.statsBytesSent(), connection.statsChunksSent()];
    expect(after.map((count, i) => count - (before[i] ?? 0n))).toEqual([16n, 1n]);
  });
});

describe('metadata contexts', () => {
  const meta = (id: number, name: string): Buffer => g.reply(g.OPT.SET_META, g.META, g.metaContext(id, name));
  const can = (c: NbdConnection): boolean | string => {
    try {
      return c.canMetaContext(BASE);
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it.each<[string, Buffer[], string[] | string, boolean | string]>([
    ['agreed to', [meta(7, BASE), g.reply(g.OPT.SET_META, g.ACK)], [BASE], true],
    ['answered twice', [meta(7, BASE), meta(7, BASE), g.reply(g.OPT.SET_META, g.ACK)], [BASE, BASE], true],
    ['not there', [g.reply(g.OPT.SET_META, g.ACK)], [], false],
    ['refused', [g.reply(g.OPT.SET_META, g.ERR_UNSUP)], 'ENOTSUP', false],
    ['two names of one ID', [meta(7, BASE), meta(7, 'x:y')], 'EPROTO', 'EINVAL'],
  ])('known at once after optSetMetaContext: %s', async (_name, answer, names, known) => {
    const { connection, peer } = await negotiating({ metaContexts: [BASE, BASE] });
    expect([connection.getNrMetaContexts(), can(connection)]).toEqual([2, 'EINVAL']);
    const set = connection.optSetMetaContext().catch((error: unknown) => (error as { code: string }).code);
    const { data } = await peer.option();
    expect(data.toString('latin1').split(BASE)).toHaveLength(3);
    peer.write(...answer);
    expect(await set).toEqual(names);
    expect(can(connection)).toBe(known);
  });

  it('are listed without structured replies, but not set', async () => {
    const { connection, peer } = await negotiating({ requestStructuredReplies: false });
    const listed = connection.optListMetaContext();
    expect((await peer.option()).number).toBe(g.OPT.LIST_META);
    peer.write(g.reply(g.OPT.LIST_META, g.META, g.metaContext(0, BASE)), g.reply(g.OPT.LIST_META, g.ACK));
    expect(await listed).toEqual([BASE]);
    expect(await rejection(connection.optSetMetaContext())).toMatchObject({ code: 'ENOTSUP' });
  });
});
