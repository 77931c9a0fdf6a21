// The scripted peer, seen from a raw socket: what a script makes it send.

import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { connect as tlsConnect } from 'node:tls';

import {
  chunk,
  close,
  fin,
  greeting,
  join,
  mode,
  oldstyle,
  on,
  optionReply,
  pattern,
  quiet,
  rawplain,
  recv,
  repeat,
  rst,
  seq,
  simpleReply,
  sleep,
  stall,
  tls,
  trickle,
  u16,
  u32,
  u64,
  u8,
} from '../../lib/testing/index.js';
import { makeCertificates } from '../support/certificates.js';
import { atAnyPace } from '../support/pace.js';
import { describeWith } from '../support/tools.js';
import { until } from '../support/waiting.js';
import { DISC, enter, FLUSH, GO, INFO_AND_ACK, LIST, READ, SR, start, STARTTLS, WRITE } from './scripted.js';

describe('a script', () => {
  it('replaces the greeting, whole, in pieces or as oldstyle', async () => {
    const { client } = await start({ greet: [greeting().subarray(0, 9), close()] });
    expect(await client.rest()).toEqual(greeting().subarray(0, 9));
    const old = await start({ greet: oldstyle() });
    await old.client.upTo(152);
    old.client.send(READ, { cookie: 1, count: 2 });
    expect(await old.client.upTo(18)).toEqual(simpleReply(0, 1, pattern(0, 2)));
  });

  it('replaces the answer to an option, each time or the n-th time', async () => {
    const { client } = await start({
      on: [on(LIST, optionReply(LIST, 0x80000002), 2), on(SR, ({ option }) => optionReply(option, 1))],
      structuredReplies: false,
    });
    await client.upTo(18);
    client.write(u32(3));
    client.sendOption(LIST);
    expect(await client.upTo(69)).toHaveLength(69);
    client.sendOption(LIST);
    expect(await client.upTo(20)).toEqual(optionReply(LIST, 0x80000002));
    client.sendOption(SR);
    expect(await client.upTo(20)).toEqual(optionReply(SR, 1));
    client.sendGo();
    await client.upTo(52);
    client.send(FLUSH, { cookie: 1 });
    expect(await client.upTo(20)).toEqual(chunk(1, 0, 1));
  });

  it('answers one command otherwise, then answers well', async () => {
    const { client, peer } = await enter({ reply: ({ cookie }) => simpleReply(5, cookie) });
    client.send(READ, { cookie: 1, count: 512 });
    expect(await client.upTo(16)).toEqual(simpleReply(5, 1));
    expect(peer.connection.mark).toMatchObject({ options: 1, commands: 1 });
    client.send(READ, { cookie: 2, count: 1 });
    expect(await client.upTo(17)).toEqual(simpleReply(0, 2, pattern(0, 1)));
  });

  it('waits for several commands of a type', async () => {
    const { client } = await enter({
      reply: {
        command: READ,
        collect: 2,
        steps: (a, b) => [simpleReply(0, b.cookie, b.data), simpleReply(0, a.cookie, a.data)],
      },
    });
    client.send(READ, { cookie: 1, count: 1 });
    client.send(FLUSH, { cookie: 2 });
    expect(await client.upTo(16)).toEqual(simpleReply(0, 2));
    client.send(READ, { cookie: 3, offset: 7, count: 1 });
    expect(await client.upTo(34)).toEqual(join(simpleReply(0, 3, pattern(7, 1)), simpleReply(0, 1, pattern(0, 1))));
  });

  it('answers a write before its payload', async () => {
    const { client, peer } = await enter({ afterWriteHeader: ({ cookie }) => simpleReply(28, cookie) });
    client.send(WRITE, { cookie: 1, count: 4 });
    expect(await client.upTo(16)).toEqual(simpleReply(28, 1));
    client.write('late');
    client.send(FLUSH, { cookie: 2 });
    expect(await client.upTo(16)).toEqual(simpleReply(0, 2));
    expect(peer.connection.payloadOf(peer.connection.commands[0]!)?.toString()).toBe('late');
  });

  it('speaks first in the transmission phase, and after DISC', async () => {
    const { client, peer } = await enter({
      onTransmission: simpleReply(0, 1),
      onDisconnect: [simpleReply(0, 99), fin()],
    });
    expect(await client.upTo(16)).toEqual(simpleReply(0, 1));
    client.send(DISC, { cookie: 1 });
    expect(await client.rest()).toEqual(simpleReply(0, 99));
    client.write('xx');
    client.stream.end();
    await peer.idle();
    expect(peer.connection.violations).toEqual(['2 bytes after NBD_CMD_DISC']);
  });

  it('stalls: sends nothing more and still records', async () => {
    const { client, peer } = await enter({ reply: stall() });
    client.send(READ, { cookie: 1, count: 1 });
    client.send(READ, { cookie: 2, count: 1 });
    client.send(DISC, { cookie: 3 });
    client.stream.end();
    expect(await client.rest()).toHaveLength(0);
    await peer.idle();
    expect(peer.connection.commands).toHaveLength(3);
    expect(peer.connection.mark).toMatchObject({ commands: 1 });
  });

  it('trickles, repeats and counts', async () => {
    const { client } = await enter(
      { reply: [trickle(Buffer.from('abcdefgh'), 5), repeat(100_000, Buffer.from('x')), seq(3, (i) => u8(i))] },
      { transport: 'tcp' },
    );
    client.segments = 0;
    client.send(READ, { cookie: 1, count: 1 });
    expect((await client.upTo(8)).toString()).toBe('abcdefgh');
    expect(client.segments).toBeGreaterThan(4);
    expect((await client.upTo(100_000)).every((byte) => byte === 0x78)).toBe(true);
    expect([...(await client.upTo(3))]).toEqual([0, 1, 2]);
  });

  it('stops repeating when the client is gone', async () => {
    const { client, peer } = await enter({ reply: repeat(1e9, Buffer.alloc(1000)) });
    client.send(READ, { cookie: 1, count: 1 });
    await client.upTo(1000);
    client.stream.destroy();
    await peer.idle();
  });

  it('resets on TCP', async () => {
    const { client } = await enter({ reply: [recv(4), rst()] }, { transport: 'tcp' });
    client.send(READ, { cookie: 1, count: 1 });
    client.write('four');
    await client.closed();
    expect(client.error?.code).toBe('ECONNRESET');
  });

  it('sleeps and changes the style of its answers', async () => {
    const { client } = await enter({ reply: [sleep(50), mode('structured')] });
    const before = Date.now();
    client.send(READ, { cookie: 1, count: 1 });
    client.send(FLUSH, { cookie: 2 });
    expect(await client.upTo(20)).toEqual(chunk(1, 0, 2));
    expect(Date.now() - before).toBeGreaterThanOrEqual(45);
  });

  it('records that a client did not wait', async () => {
    await atAnyPace(async (pace) => {
      const { client, peer } = await start({ on: [on(SR, [quiet(50 * pace), optionReply(SR, 1)])] });
      await client.upTo(18);
      client.write(u32(3));
      client.sendOption(SR);
      await until(() => peer.connection.options.length === 1);
      client.sendOption(LIST);
      await client.upTo(20 + 69);
      expect(peer.connection.violations).toEqual(['16 bytes while the client had to wait']);
    });
  });
});

describeWith(['openssl'], 'TLS in a script', () => {
  it('starts in the middle and lets plaintext through below', async () => {
    await using certificates = await makeCertificates();
    const { server, ca } = certificates;
    const { client, peer } = await start({
      tls: server,
      on: [on(STARTTLS, [optionReply(STARTTLS, 1), tls()])],
      reply: rawplain(Buffer.from('this is no TLS record')),
    });
    await client.upTo(18);
    client.write(u32(3));
    client.sendOption(STARTTLS);
    await client.upTo(20);
    client.stream.removeAllListeners('data');
    const secure = tlsConnect({ socket: client.stream, ca, servername: 'localhost' });
    await once(secure, 'secureConnect');
    const received: Buffer[] = [];
    secure.on('data', (bytes: Buffer) => received.push(bytes));
    const failed = once(secure, 'error');
    secure.write(join('IHAVEOPT', u32(GO), u32(6), u32(0), u16(0)));
    while (Buffer.concat(received).length < 52) await once(secure, 'data');
    expect(Buffer.concat(received)).toEqual(INFO_AND_ACK);
    secure.write(join(u32(0x25609513), u32(0), u64(1), u64(0), u32(1)));
    expect(await failed).toMatchObject([{ code: expect.stringMatching(/SSL/) as unknown }]);
    secure.destroy();
    await peer.idle();
    expect(peer.connection.options.map(({ option, tls }) => [option, tls])).toEqual([
      [STARTTLS, false],
      [GO, true],
    ]);
    expect(peer.connection.tls).toBe(true);
    expect(peer.connection.raw.includes('IHAVEOPT\0\0\0\x07')).toBe(false);
  });
});
