import { inspect } from 'node:util';

import { describe, expect, it } from '@jest/globals';

import { extents, type NbdConnection, NbdError, NbdStateError, NbdStrictError } from '../../../lib/index.js';
import { SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PAYLOAD, SIZE_PREFERRED } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { listenRaw, memoryPeer, newConnection, openRaw, type RawPeer } from '../../support/raw-server.js';

const MIB = 1 << 20;

/** Every fact that the handshake provides. */
const FACTS: readonly (readonly [string, (c: NbdConnection) => unknown])[] = [
  ['getSize', (c) => c.getSize()],
  ['getBlockSize', (c) => c.getBlockSize(SIZE_MINIMUM)],
  ['isReadOnly', (c) => c.isReadOnly()],
  ['isRotational', (c) => c.isRotational()],
  ['canFlush', (c) => c.canFlush()],
  ['canFua', (c) => c.canFua()],
  ['canTrim', (c) => c.canTrim()],
  ['canZero', (c) => c.canZero()],
  ['canFastZero', (c) => c.canFastZero()],
  ['canDf', (c) => c.canDf()],
  ['canMultiConn', (c) => c.canMultiConn()],
  ['canCache', (c) => c.canCache()],
  ['canBlockStatusPayload', (c) => c.canBlockStatusPayload()],
];
/** Those that the negotiation provides, before an export is chosen. */
const NEGOTIATED: typeof FACTS = [
  ['getProtocol', (c) => c.getProtocol()],
  ['getStructuredRepliesNegotiated', (c) => c.getStructuredRepliesNegotiated()],
  ['getExtendedHeadersNegotiated', (c) => c.getExtendedHeadersNegotiated()],
  ['getTlsNegotiated', (c) => c.getTlsNegotiated()],
  ['canMetaContext', (c) => c.canMetaContext('base:allocation')],
];

async function optionMode(): Promise<{ connection: NbdConnection; peer: RawPeer }> {
  const { stream, peer } = memoryPeer();
  const connection = newConnection({ optMode: true, requestExtendedHeaders: false });
  const connected = connection.connectSocket(stream);
  peer.write(g.greeting());
  await peer.take(4);
  await peer.option();
  peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK));
  await connected;
  return { connection, peer };
}

describe('facts and states', () => {
  it.each([...FACTS, ...NEGOTIATED])(
    '%s: ENOTCONN before connecting, EINVAL while connecting and after death',
    async (name, ask) => {
      expect(caught(() => ask(newConnection()))).toMatchObject({
        ...{ name: 'NbdStateError', code: 'ENOTCONN', syscall: name },
        message: expect.stringMatching(
          new RegExp(`^${name}: invalid state: created: the connection must be negotiating, connected or closed`),
        ),
      });
      const server = await listenRaw();
      const connecting = newConnection();
      connecting.aioConnectUnix((server.target as { path: string }).path);
      expect(caught(() => ask(connecting))).toMatchObject({ code: 'EINVAL', syscall: name });

      const { connection, peer } = await openRaw();
      const before = ask(connection);
      const closed = new Promise((resolve) => connection.once('close', resolve));
      peer.write('what is this?');
      const cause = await closed;
      expect(caught(() => ask(connection))).toMatchObject({ code: 'EINVAL', cause });

      const ended = (await openRaw()).connection;
      ended.close();
      expect(ask(ended)).toEqual(before);
    },
  );

  it.each(FACTS)('%s: EINVAL in option mode until the server has sent it', async (name, ask) => {
    const { connection } = await optionMode();
    const error = caught(() => ask(connection));
    expect(error).toBeInstanceOf(NbdStateError);
    expect(error).toMatchObject({
      code: 'EINVAL',
      message: expect.stringMatching(/export information is not available yet/),
    });
    expect((error as Error).message).toMatch(new RegExp(`^${name}: `));
  });

  it.each(NEGOTIATED)('%s is available in option mode', async (name, ask) => {
    const { connection } = await optionMode();
    expect(ask(connection)).toBe(
      { getProtocol: 'newstyle-fixed', getStructuredRepliesNegotiated: true }[name] ?? false,
    );
  });
});

describe('transmission flags', () => {
  const READERS: readonly (readonly [string, number, (c: NbdConnection) => boolean])[] = [
    ['isReadOnly', 0x002, (c) => c.isReadOnly()],
    ['canFlush', 0x004, (c) => c.canFlush()],
    ['canFua', 0x008, (c) => c.canFua()],
    ['isRotational', 0x010, (c) => c.isRotational()],
    ['canTrim', 0x020, (c) => c.canTrim()],
    ['canZero', 0x040, (c) => c.canZero()],
    ['canDf', 0x080, (c) => c.canDf()],
    ['canMultiConn', 0x100, (c) => c.canMultiConn()],
    ['canCache', 0x400, (c) => c.canCache()],
    ['canFastZero', 0x800, (c) => c.canFastZero()],
    ['canBlockStatusPayload', 0x1000, (c) => c.canBlockStatusPayload()],
  ];

  it.each(READERS)('%s', async (name, bit) => {
    const needs = name === 'canFastZero' ? 0x40 : 0;
    for (const flags of [1 | bit | needs, 0xffff & ~bit]) {
      const { connection } = await openRaw({ flags, extended: true });
      for (const [other, otherBit, ask] of READERS) {
        // FAST_ZERO without WRITE_ZEROES is not believed.
        const isMasked = other === 'canFastZero' && (flags & 0x40) === 0;
        expect([other, ask(connection)]).toEqual([other, (flags & otherBit) !== 0 && !isMasked]);
      }
    }
  });

  it('DF is not believed without structured replies, nor the status filter without extended headers', async () => {
    const { connection } = await openRaw({ flags: 0xffff, structured: false });
    expect(connection.canDf()).toBe(false);
    expect(connection.canBlockStatusPayload()).toBe(false);
    expect(connection.getStructuredRepliesNegotiated()).toBe(false);
  });
});

describe('getSize', () => {
  it.each([0n, 1n, 512n, 2n ** 32n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n])('%s, as bigint', async (size) => {
    const { connection } = await openRaw({ size });
    expect(connection.getSize()).toBe(size);
  });
});

describe('getBlockSize', () => {
  it.each<[string, readonly [number, number, number] | undefined, number[]]>([
    ['none advertised', undefined, [0, 0, 0, 32 * MIB]],
    ['as advertised', [512, 4096, 4 * MIB], [512, 4096, 4 * MIB, 4 * MIB]],
    ['a small maximum', [1, 512, 65536], [1, 512, 65536, MIB]],
    ['no maximum', [1, 4096, 0xffffffff], [1, 4096, 0xffffffff, 64 * MIB]],
    ['a triple that breaks the rules is ignored as a whole', [3, 4096, MIB], [0, 0, 0, 32 * MIB]],
  ])('%s', async (_title, blockSize, expected) => {
    const { connection } = await openRaw(blockSize === undefined ? {} : { blockSize });
    const kinds = [SIZE_MINIMUM, SIZE_PREFERRED, SIZE_MAXIMUM, SIZE_PAYLOAD];
    expect(kinds.map((kind) => connection.getBlockSize(kind))).toEqual(expected);
  });

  it.each([4, -1, 1.5, NaN, '0', null, undefined])('of kind %p is EINVAL', async (kind) => {
    const { connection } = await openRaw();
    const error = caught(() => connection.getBlockSize(kind as number));
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL', syscall: 'getBlockSize' });
  });
});

describe('getProtocol', () => {
  const open = async (play: (peer: RawPeer) => Promise<void> | void): Promise<NbdConnection> => {
    const { stream, peer } = memoryPeer();
    const connection = newConnection();
    await Promise.all([connection.connectSocket(stream), play(peer)]);
    return connection;
  };

  it('returns the handshake that the server uses', async () => {
    const plain = async (peer: RawPeer): Promise<void> => {
      peer.write(g.greeting(0));
      await peer.take(4);
      await peer.option();
      peer.write(g.u64(MIB), g.u16(1), Buffer.alloc(124));
    };
    expect((await open((peer) => peer.write(g.oldstyle(MIB, 1)))).getProtocol()).toBe('oldstyle');
    expect((await open(plain)).getProtocol()).toBe('newstyle');
    expect((await open((peer) => peer.handshake())).getProtocol()).toBe('newstyle-fixed');
  });

  it('an oldstyle export can be read', async () => {
    let peer: RawPeer | undefined;
    const connection = await open((each) => {
      peer = each;
      each.structured = false;
      each.write(g.oldstyle(MIB, g.HAS_FLAGS | g.SEND_CACHE));
    });
    void peer?.serve();
    expect(await connection.pread(16, 0)).toEqual(g.content(0, 16));
    expect(connection.canCache()).toBe(true);
    await connection.cache(16, 0);
  });
});

describe('metadata contexts', () => {
  it('canMetaContext is what the server agreed to', async () => {
    const { connection } = await openRaw({
      contexts: { 3: 'base:allocation' },
      client: { metaContexts: ['base:allocation', 'x:y'] },
    });
    expect(connection.canMetaContext('base:allocation')).toBe(true);
    expect(connection.canMetaContext('x:y')).toBe(false);
    expect(connection.canMetaContext('never:asked')).toBe(false);
  });

  it('is false where no context was requested, and where there cannot be one', async () => {
    expect((await openRaw()).connection.canMetaContext('base:allocation')).toBe(false);
    const { connection } = await openRaw({ structured: false, client: { metaContexts: ['base:allocation'] } });
    expect(connection.canMetaContext('base:allocation')).toBe(false);
    // The error comes from extents() and names what is missing; it is not that of canMetaContext.
    expect(await rejection(extents(connection).next())).toMatchObject({ code: 'ENOTSUP', syscall: 'extents' });
  });

  it('a context that is requested, and answered, twice appears once in block status', async () => {
    const server = await listenRaw();
    const base = 'base:allocation';
    const connection = newConnection({ metaContexts: [base, base], requestExtendedHeaders: false });
    const connected = connection.connectUnix((server.target as { path: string }).path);
    const peer = await server.accept();
    peer.write(g.greeting());
    await peer.take(4);
    await peer.option();
    peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK));
    await peer.option();
    const answer = g.reply(g.OPT.SET_META, g.META, g.metaContext(1, base));
    peer.write(answer, answer, g.reply(g.OPT.SET_META, g.ACK));
    await peer.option();
    peer.write(g.reply(g.OPT.GO, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)), g.reply(g.OPT.GO, g.ACK));
    await connected;
    expect([connection.getNrMetaContexts(), connection.canMetaContext(base)]).toEqual([2, true]);
    const status = connection.blockStatus(4096, 0);
    peer.answer(await peer.request());
    expect([...(await status).keys()]).toEqual([base]);
  });

  it.each([7, null, 'x'.repeat(4097), 'a\0b'])('an invalid name is refused: %p', async (name) => {
    const { connection } = await openRaw();
    expect(caught(() => connection.canMetaContext(name as string))).toBeInstanceOf(NbdStrictError);
  });
});

describe('names and descriptions', () => {
  it('are available if they were requested and sent', async () => {
    const { connection } = await openRaw({
      infos: [g.infoName('sda'), g.infoDescription('my disk')],
      client: { fullInfo: true },
    });
    expect(connection.getCanonicalExportName()).toBe('sda');
    expect(connection.getExportDescription()).toBe('my disk');
  });

  it('are ENOTSUP otherwise', async () => {
    const { connection } = await openRaw();
    for (const ask of [() => connection.getCanonicalExportName(), () => connection.getExportDescription()]) {
      const error = caught(ask);
      expect(error).toBeInstanceOf(NbdError);
      expect(error).toMatchObject({ code: 'ENOTSUP', message: expect.stringMatching(/setFullInfo/) });
    }
  });
});

describe('inspect', () => {
  it('shows what a connection is and holds no secrets', async () => {
    expect(inspect(newConnection({ exportName: 'disk' }))).toBe(
      "NbdConnection { state: 'created', exportName: 'disk', inFlight: 0 }",
    );
    const { connection } = await openRaw({ over: 'tcp' });
    connection.aioFlush();
    const shown = inspect(connection);
    expect(shown).toMatch(/^NbdConnection \{/);
    expect(shown).toMatch(/state: 'ready'/);
    expect(shown).toMatch(/target: '127.0.0.1:\d+'/);
    expect(shown).toMatch(/size: 1048576n/);
    expect(shown).toMatch(/inFlight: 1/);
  });
});
