// The scripted peer, seen from a raw socket: what it sends by default, and what it records. What scripts make it send
// is in scripts.spec.ts.

import { describe, expect, it } from '@jest/globals';
import { NbdConnection } from '../../lib/index.js';

import {
  blockSizeInfo,
  chunk,
  DEFAULT_FLAGS,
  DEFAULT_SIZE,
  exportInfo,
  extendedChunk,
  greeting,
  join,
  metaContext,
  oldstyle,
  optionReply,
  pattern,
  type PeerScript,
  ScriptedPeer,
  simpleReply,
  stall,
  u16,
  u32,
  u64,
  u8,
} from '../../lib/testing/index.js';
import { type RawClient } from '../support/raw-client.js';
import {
  ABORT,
  BLOCK_STATUS,
  DISC,
  enter,
  EXPORT_NAME,
  EXT,
  FLUSH,
  GO,
  INFO,
  INFO_AND_ACK,
  LIST,
  peers,
  dial,
  READ,
  SETMETA,
  SR,
  start,
  STARTTLS,
  WRITE,
} from './scripted.js';

describe('the messages', () => {
  it('have the bytes that the protocol defines', () => {
    expect(greeting().toString('latin1')).toBe('NBDMAGICIHAVEOPT\0\x03');
    expect(optionReply(GO, 1).toString('hex')).toBe('0003e889045565a9' + '00000007' + '00000001' + '00000000');
    expect(optionReply(LIST, 0x80000001, 'no', { length: 9 }).toString('hex')).toBe(
      '0003e889045565a9' + '00000003' + '80000001' + '00000009' + '6e6f',
    );
    expect(exportInfo(2 ** 32, 3).toString('hex')).toBe('0000' + '0000000100000000' + '0003');
    expect(blockSizeInfo(1, 4096, 1 << 25).toString('hex')).toBe('0003' + '00000001' + '00001000' + '02000000');
    expect(simpleReply(5, 7, 'x').toString('hex')).toBe('67446698' + '00000005' + '0000000000000007' + '78');
    expect(chunk(1, 0x8001, 7, 'x').toString('hex')).toBe(
      '668e33ef' + '0001' + '8001' + '0000000000000007' + '00000001' + '78',
    );
    expect(extendedChunk(1, 1, 7, 8, 'x', { length: 2n ** 32n }).toString('hex')).toBe(
      '6e8a278c' + '0001' + '0001' + '0000000000000007' + '0000000000000008' + '0000000100000000' + '78',
    );
    expect(oldstyle(1, 2, 3).subarray(0, 28).toString('hex')).toBe(
      '4e42444d41474943' + '0000420281861253' + '0000000000000001' + '0002' + '0003',
    );
    expect(oldstyle()).toHaveLength(152);
    expect(metaContext(2, 'a:b').toString('hex')).toBe('00000002' + '613a62');
    expect(join(u8(255), u64(-1)).toString('hex')).toBe('ff'.repeat(9));
    expect(DEFAULT_FLAGS).toBe(0xded);
  });

  it('have contents that depend on the offset alone', () => {
    expect([...pattern(0, 4)]).toEqual([0, 7, 14, 21]);
    expect(pattern(300, 1)[0]).toBe((7 * 300 + 1) & 255);
    expect(pattern(2n ** 63n + 255n, 3)).toEqual(pattern(255, 3));
    expect(pattern(65530, 70000).subarray(6, 100)).toEqual(pattern(0, 94));
  });
});

describe('a peer without a script', () => {
  it('greets, negotiates and answers in simple replies', async () => {
    const { peer, client } = await start({});
    expect(await client.upTo(18)).toEqual(greeting(3));
    client.write(u32(3));
    client.sendOption(STARTTLS);
    expect(await client.upTo(20)).toEqual(optionReply(STARTTLS, 0x80000001));
    client.sendOption(EXT);
    expect(await client.upTo(20)).toEqual(optionReply(EXT, 0x80000001));
    client.sendOption(LIST);
    expect(await client.upTo(69)).toEqual(
      join(optionReply(LIST, 2, u32(0)), optionReply(LIST, 2, join(u32(1), 'a')), optionReply(LIST, 1)),
    );
    client.sendGo();
    expect(await client.upTo(52)).toEqual(INFO_AND_ACK);
    client.send(READ, { cookie: 1, offset: 4096, count: 512 });
    expect(await client.upTo(16 + 512)).toEqual(simpleReply(0, 1, pattern(4096, 512)));
    client.send(WRITE, { cookie: 2, count: 3 });
    client.write('abc');
    expect(await client.upTo(16)).toEqual(simpleReply(0, 2));
    client.send(READ, { cookie: 3, offset: DEFAULT_SIZE, count: 1 });
    expect(await client.upTo(16)).toEqual(simpleReply(22, 3));
    client.send(DISC, { cookie: 4 });
    expect(await client.rest()).toHaveLength(0);
    client.stream.end();
    await peer.idle();
    const seen = peer.connection;
    expect(seen.clientFlags).toBe(3);
    expect(seen.options.map((option) => option.option)).toEqual([STARTTLS, EXT, LIST, GO]);
    expect(seen.commands.map(({ type, cookie }) => [type, cookie])).toEqual([
      [READ, 1n],
      [WRITE, 2n],
      [READ, 3n],
      [DISC, 4n],
    ]);
    expect(seen.payloadOf(seen.commands[1]!)?.toString()).toBe('abc');
    expect(seen).toMatchObject({ ending: 'fin', violations: [], inTransmission: true, tls: false });
    expect(seen.raw).toHaveLength(seen.bytesReceived);
  });

  it('answers in structured replies with block status once they are granted', async () => {
    const { client } = await start({ blockSize: [1, 4096, 1 << 25] });
    await client.upTo(18);
    client.write(u32(3));
    client.sendOption(SR);
    expect(await client.upTo(20)).toEqual(optionReply(SR, 1));
    client.sendOption(SETMETA, join(u32(0), u32(1), u32(15), 'base:allocation'));
    expect(await client.upTo(59)).toEqual(
      join(optionReply(SETMETA, 4, metaContext(1, 'base:allocation')), optionReply(SETMETA, 1)),
    );
    client.sendOption(INFO, join(u32(0), u16(0)));
    expect(await client.upTo(32 + 34 + 20)).toHaveLength(86);
    client.sendGo();
    await client.upTo(86);
    client.send(READ, { cookie: 1, count: 4 });
    expect(await client.upTo(32)).toEqual(chunk(1, 1, 1, join(u64(0), pattern(0, 4))));
    client.send(FLUSH, { cookie: 2 });
    expect(await client.upTo(20)).toEqual(chunk(1, 0, 2));
    client.send(BLOCK_STATUS, { cookie: 3, count: 4096 });
    expect(await client.upTo(32)).toEqual(chunk(1, 5, 3, join(u32(1), u32(4096), u32(0))));
    client.send(99, { cookie: 4, count: 1 });
    expect(await client.upTo(26)).toEqual(chunk(1, 0x8001, 4, join(u32(22), u16(0))));
  });

  it('takes extended headers where the script grants them', async () => {
    const { peer, client } = await start({ extendedHeaders: true });
    await client.upTo(18);
    client.write(u32(3));
    client.sendOption(EXT);
    expect(await client.upTo(20)).toEqual(optionReply(EXT, 1));
    client.sendGo();
    await client.upTo(52);
    client.write(u32(0x21e41c71), u16(0x20), u16(WRITE), u64(9), u64(512), u64(2), 'hi');
    expect(await client.upTo(32)).toEqual(extendedChunk(1, 0, 9, 512));
    client.send(FLUSH, { cookie: 10 });
    await client.upTo(32);
    expect(peer.connection.violations).toEqual(['a compact header in extended mode']);
  });

  it('answers EXPORT_NAME, with zeroes for clients that did not decline them', async () => {
    const { client } = await start({ handshakeFlags: 0 });
    await client.upTo(18);
    client.write(u32(0));
    client.sendOption(EXPORT_NAME, 'x');
    expect(await client.upTo(134)).toEqual(join(u64(DEFAULT_SIZE), u16(DEFAULT_FLAGS), Buffer.alloc(124)));
    client.send(READ, { cookie: 1, count: 1 });
    expect(await client.upTo(17)).toEqual(simpleReply(0, 1, pattern(0, 1)));
  });

  it('acknowledges ABORT and closes', async () => {
    const { client } = await start({}, { transport: 'tcp' });
    await client.upTo(18);
    client.write(u32(3));
    client.sendOption(ABORT);
    expect(await client.rest()).toEqual(optionReply(ABORT, 1));
  });

  it('serves several clients, each with the script anew', async () => {
    const peer = await ScriptedPeer.listen((index) => ({ handshakeFlags: index }));
    peers.push(peer);
    const first = dial(peer);
    expect(await first.upTo(18)).toEqual(greeting(0));
    const second = dial(peer);
    expect(await second.upTo(18)).toEqual(greeting(1));
    expect(peer.connections).toHaveLength(2);
    first.stream.destroy();
    second.stream.destroy();
    await peer.idle();
  });
});

describe('what the protocol forbids', () => {
  const violations = async (act: (client: RawClient) => void | Promise<void>, script: PeerScript = {}) => {
    const both = await enter(script);
    await act(both.client);
    both.client.stream.end();
    await both.peer.idle();
    return both.peer.connection.violations;
  };

  it.each<[string, (client: RawClient) => void]>([
    ['command 0 of length 0', (c) => c.send(READ, { cookie: 1 })],
    ['command 3 with an offset or a length', (c) => c.send(FLUSH, { cookie: 1, offset: 512 })],
    ['command 0 with flags 0x1', (c) => c.send(READ, { cookie: 1, count: 1, flags: 1 })],
    [
      'PAYLOAD_LEN in a compact header',
      (c) => c.write(u32(0x25609513), u16(0x20), u16(1), u64(1), u64(0), u32(1), 'x'),
    ],
    ['unknown command 99', (c) => c.send(99, { cookie: 1, count: 1 })],
    ['bytes that are not a command', (c) => c.write('nonsense')],
  ])('%s', async (expected, act) => {
    expect(await violations(act)).toEqual([expected]);
  });

  it('a cookie reused while it is in flight', async () => {
    const reuse = (c: RawClient): void => {
      c.send(READ, { cookie: 7, count: 1 });
      c.send(READ, { cookie: 7, offset: 1, count: 1 });
    };
    expect(await violations(reuse, { reply: stall() })).toEqual([]);
    expect(await violations(reuse, { reply: { collect: 2, steps: [] } })).toEqual(['cookie 7 reused in flight']);
  });

  it('in the handshake', async () => {
    const { client, peer } = await start({ handshakeFlags: 1 });
    await client.upTo(18);
    client.write(u32(3));
    client.sendOption(SR, 'data');
    await client.upTo(20);
    client.sendOption(GO, join(u32(0), u16(2), u16(3), u16(3)));
    client.send(FLUSH, { cookie: 1 });
    await client.upTo(52 + 20);
    client.stream.destroy();
    await peer.idle();
    expect(peer.connection.violations).toEqual([
      'client flags 0x2 that were not offered',
      'option 8 with 4 bytes of data',
      'bytes after option 7',
      'an information request twice',
    ]);
  });

  it('a script that throws is recorded', async () => {
    const { client, peer } = await enter({
      reply: () => {
        throw new Error('oops');
      },
    });
    client.send(READ, { cookie: 1, count: 1 });
    await client.rest();
    await peer.idle();
    await new Promise(setImmediate);
    expect(peer.connection.violations).toEqual(['the script failed: Error: oops']);
  });

  it('so is a function that has no script for a connection, which ends', async () => {
    await using peer = await ScriptedPeer.listen(() => {
      throw new Error('oops');
    });
    await expect(NbdConnection.connect(peer.uri())).rejects.toThrow(/closed|reset|ended/);
    expect(peer.connection.violations).toEqual(['the script failed: Error: oops']);
  });
});
