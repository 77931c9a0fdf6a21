// Hostile clients on real sockets, in the handshake: what serve.spec.ts shows for the coroutine, here with the server
// around it: that it closes or answers, takes no memory for what is only claimed, and goes on serving others.

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';

import { MemoryBackend, type NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { makeCertificates } from '../support/certificates.js';
import * as g from '../support/golden.js';
import { newServer, RawClient } from '../support/raw-client.js';
import { describeWith } from '../support/tools.js';
import { until } from '../support/waiting.js';

const { CMD, OPT, cat, option, u16, u32 } = g;
const SIZE = 1 << 20;
const ALL_OPTIONS = Object.entries(OPT);

let folder: string;
let server: NbdServer;
let errors: string[];

async function start(options: NbdServerOptions = {}): Promise<void> {
  errors = [];
  server = newServer({
    exports: { '': new MemoryBackend(SIZE) },
    onConnectionError: ({ message }) => errors.push(message),
    ...options,
  });
  await server.listenUnix(join(folder, 'socket'));
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-evil-'));
});
/** After every attack another client is served as before. */
async function servesOthers(): Promise<void> {
  const client = await RawClient.dial(server).handshake();
  expect((await client.read(0, 512)).length).toBe(512);
  client.stream.destroy();
  await rm(folder, { recursive: true, force: true });
}

/** A client that has sent its flags. */
async function greeted(flags = 3): Promise<RawClient> {
  const client = RawClient.dial(server);
  await client.take(18);
  client.write(u32(flags));
  return client;
}

/** The type and the text of the refusal. */
async function refusal(client: RawClient): Promise<{ type: number; text: string }> {
  const header = await client.take(20);
  const text = await client.take(header.readUInt32BE(16));
  return { type: header.readUInt32BE(12), text: text.toString() };
}

const named = (length: number, name: string, ...rest: Uint8Array[]): Buffer => cat(u32(length), name, ...rest);

/** The same connection can still open the export. */
async function opens(client: RawClient): Promise<void> {
  expect((await client.option(OPT.GO, cat(u32(0), u16(0)))).type).toBe(g.ACK);
  expect((await client.read(0, 16)).length).toBe(16);
}

describe('an evil client', () => {
  beforeEach(() => start());
  afterEach(servesOthers);

  it.each([4, 0x80, 0x8000, 0x1_0000, 0x8000_0000, 0xffff_ffff])(
    'V01 with client flags %d is disconnected',
    async (flags) => {
      const client = await greeted(flags);
      expect((await client.rest()).length).toBe(0);
      await until(() => errors.length === 1, 'the error is reported');
    },
  );

  it.each([0, 1, 2, 3, 4, 5, 6, 7])('V02 with byte %d of the magic wrong is disconnected', async (at) => {
    const bytes = option(OPT.GO, cat(u32(0), u16(0)));
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    const client = await greeted();
    client.write(bytes);
    expect((await client.rest()).length).toBe(0);
  });

  it.each(ALL_OPTIONS)(
    'V03 that claims 64 MiB + 1, 2 GiB or 4 GiB for %s is disconnected without an allocation',
    async (_, number) => {
      const before = process.memoryUsage().arrayBuffers;
      for (const length of [(1 << 26) + 1, 0x8000_0000, 0xffff_ffff]) {
        const client = await greeted();
        client.write(cat('IHAVEOPT', u32(number), u32(length)));
        expect((await client.rest()).length).toBe(0);
      }
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 << 20);
    },
  );

  it.each([OPT.INFO, OPT.GO, OPT.LIST_META, OPT.SET_META])(
    'V04 whose name is longer than option %d is refused, and may go on',
    async (number) => {
      const client = await greeted();
      await client.option(OPT.STRUCTURED_REPLY);
      for (const [length, name] of [
        [1, ''],
        [4, 'abc'],
        [0x7fff_ffff, 'abc'],
        [0xffff_fffa, 'abc'],
        [0xffff_ffff, 'abc'],
      ] as const) {
        client.write(option(number, named(length, name, u32(0).subarray(0, number === OPT.GO ? 2 : 4))));
        const { type } = await refusal(client);
        expect({ length, type }).toEqual({ length, type: g.ERR_INVALID });
      }
      await client.option(OPT.LIST);
      client.style = 'structured';
      await opens(client);
    },
  );

  it.each([
    [4095, 'n', g.ERR_UNKNOWN],
    [4096, 'n', g.ERR_UNKNOWN],
    [4096, '\x1b', g.ERR_UNKNOWN],
    [4096, '\xff', g.ERR_UNKNOWN],
    [4097, 'n', g.ERR_TOO_BIG],
    [65000, 'n', g.ERR_TOO_BIG],
    [100_000, 'n', g.ERR_TOO_BIG],
  ])('V05 with a name of %d bytes %j gets a short text', async (length, byte, expected) => {
    const client = await greeted();
    client.write(option(OPT.GO, cat(u32(length), Buffer.alloc(length, byte, 'latin1'), u16(0))));
    const { type, text } = await refusal(client);
    expect(type).toBe(expected);
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(4096);
    // eslint-disable-next-line no-control-regex -- the text is shown on a terminal
    expect(text).not.toMatch(/[\0-\x1f\x7f]/);
    await opens(client);
  });

  it.each([OPT.LIST, OPT.STRUCTURED_REPLY, OPT.EXTENDED])(
    'V06 with data for option %d is refused, and may go on',
    async (number) => {
      const client = await greeted();
      for (const length of [1, 16, 65536, 65537, 1 << 20]) {
        client.write(option(number, Buffer.alloc(length, 'IHAVEOPT')));
        expect((await refusal(client)).type).toBe(g.ERR_INVALID);
      }
      await opens(client);
    },
  );

  it('V07 with a million queries, or fewer than it declares, is refused, and may go on', async () => {
    const client = await greeted();
    await client.option(OPT.STRUCTURED_REPLY);
    client.write(option(OPT.SET_META, cat(u32(0), u32(1_000_000), Buffer.alloc(4_000_000))));
    expect((await refusal(client)).type).toBe(g.ERR_TOO_BIG);
    for (const count of [1, 2, 0xffff_ffff]) {
      client.write(option(OPT.SET_META, cat(u32(0), u32(count))));
      expect((await refusal(client)).type).toBe(g.ERR_INVALID);
    }
    client.style = 'structured';
    await opens(client);
  });

  it('V08 with options without end is disconnected after 256 of them', async () => {
    const client = await greeted();
    let served = 0;
    const serve = async (): Promise<void> => {
      for (;;) {
        expect((await client.option(OPT.STRUCTURED_REPLY)).type).toBe(g.ACK);
        served++;
      }
    };
    await expect(serve()).rejects.toThrow(/the server ended/);
    expect(served).toBe(256);
    const endless = await greeted();
    endless.write(...Array.from({ length: 10_000 }, () => option(OPT.STRUCTURED_REPLY)));
    await endless.ended;
  });

  it('V18 that sends DISC and more is ignored after it', async () => {
    const client = await RawClient.dial(server).handshake();
    client.write(client.request(CMD.DISC), client.request(CMD.WRITE, { payload: Buffer.alloc(512, 1) }));
    expect((await client.rest()).length).toBe(0);
    const other = await RawClient.dial(server).handshake();
    expect(await other.read(0, 512)).toEqual(Buffer.alloc(512));
    other.stream.destroy();
  });
});

describeWith(['openssl'], 'an evil client that may use TLS', () => {
  afterEach(servesOthers);

  it('V09 finds that what it agreed on in clear is forgotten inside', async () => {
    await using certificates = await makeCertificates();
    const { cert, key } = certificates.server;
    await start({ tls: 'on', tlsOptions: { cert, key } });
    const plain = await greeted();
    await plain.option(OPT.STRUCTURED_REPLY);
    await plain.option(OPT.SET_META, cat(u32(0), u32(1), u32(15), 'base:allocation'));
    expect((await plain.option(OPT.STARTTLS)).type).toBe(g.ACK);
    plain.stream.removeAllListeners('data');
    const client = new RawClient(connectTls({ socket: plain.stream, rejectUnauthorized: false }));
    await opens(client);
    // Simple replies, and no context: a block status is refused.
    expect(await client.ask(CMD.STATUS, { count: 512 })).toBe(22);
    client.stream.destroy();
  });
});
