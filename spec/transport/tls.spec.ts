// A TLS session over a transport that has been used before, against node:tls in the same process.

import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, createSecureContext, TLSSocket, type TLSSocketOptions } from 'node:tls';

import { dialUnix } from '../../lib/transport/dial.js';
import { duplexPair } from '../../lib/transport/memory.js';
import { StreamTransport } from '../../lib/transport/stream.js';
import { startTls, type TlsMoment, type TlsOptions, type TlsTransport } from '../../lib/transport/tls.js';
import { rejection } from '../support/caught.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith } from '../support/tools.js';
import { held, Probe, stillHeld } from '../support/transport-probe.js';

let certificates: Certificates;
let folder: string;
const servers = new Set<Server>();
const streams = new Set<Duplex>();
const explained: { error: Error | null; moment: TlsMoment }[] = [];

/** What the client is given: the CA of the certificates, no name check. */
function options(extra: Partial<TlsOptions> = {}): TlsOptions {
  return {
    context: createSecureContext({ ca: certificates.ca }),
    serverName: '',
    verify: true,
    checkIdentity: () => undefined,
    explain: (error, moment) => {
      explained.push({ error, moment });
      return error;
    },
    ...extra,
  };
}

function serverSide(stream: Duplex, extra: TLSSocketOptions = {}): TLSSocket {
  const secureContext = createSecureContext({ ...certificates.server });
  const socket = new TLSSocket(stream, { isServer: true, secureContext, ...extra });
  socket.on('error', () => undefined);
  streams.add(socket);
  return socket;
}

let sockets = 0;

/** A raw transport of each kind, and the stream at its other end. */
const KINDS: Readonly<Record<string, () => Promise<{ raw: StreamTransport; peer: Duplex }>>> = {
  'a socket that this package opened': async () => {
    const server = createServer({ allowHalfOpen: true });
    servers.add(server);
    const path = join(folder, `s${++sockets}`);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
    const raw = await dialUnix(path);
    return { raw, peer: await accepted };
  },
  'a socket that was opened elsewhere': async () => {
    const { raw, peer } = await KINDS['a socket that this package opened']!();
    const stream = raw.detach();
    return { raw: new StreamTransport(peer, 'other'), peer: stream };
  },
  'a stream in memory': () => {
    const [stream, peer] = duplexPair();
    return Promise.resolve({ raw: new StreamTransport(stream, 'memory'), peer });
  },
  'another TLS session': async () => {
    const { raw, peer } = await KINDS['a socket that this package opened']!();
    const outer = serverSide(peer);
    const inner = connectTls({
      socket: raw.detach(),
      ca: certificates.ca,
      checkServerIdentity: () => undefined,
    });
    streams.add(inner);
    await new Promise((resolve) => inner.once('secureConnect', resolve));
    return { raw: new StreamTransport(inner, 'tunnel'), peer: outer };
  },
};

async function open(kind = 'a socket that this package opened'): Promise<{ raw: StreamTransport; peer: Duplex }> {
  const pair = await KINDS[kind]!();
  streams.add(pair.peer);
  pair.peer.on('error', () => undefined);
  return pair;
}

/** Both ends of a session. */
async function openSecure(
  kind?: string,
  extra: Partial<TlsOptions> = {},
  serverExtra: TLSSocketOptions = {},
): Promise<{ secure: TlsTransport; peer: TLSSocket; raw: StreamTransport; below: Duplex }> {
  const { raw, peer: below } = await open(kind);
  raw.start(new Probe());
  const peer = serverSide(below, serverExtra);
  const secure = await startTls(raw, options(extra));
  return { secure, peer, raw, below };
}

describeWith(['openssl'], 'TLS over a transport', () => {
  beforeAll(async () => {
    certificates = await makeCertificates();
    folder = await mkdtemp(join(tmpdir(), 'spec-'));
  });

  afterAll(async () => {
    await certificates.remove();
    await rm(folder, { recursive: true });
  });

  afterEach(() => {
    for (const stream of streams) stream.destroy();
    for (const server of servers) server.close();
    streams.clear();
    servers.clear();
    explained.length = 0;
  });

  it.each(Object.keys(KINDS))('moves bytes over %s', async (kind) => {
    const { secure, peer } = await openSecure(kind);
    const probe = new Probe();
    secure.start(probe);
    peer.pipe(peer);
    const block = Buffer.alloc(3 << 20, 'the quick brown fox ');
    const flushed = new Promise<void>((resolve) => secure.write([Buffer.from('begin '), block], resolve));
    await probe.until(() => probe.length === block.length + 6);
    await flushed;
    expect(probe.text).toBe(`begin ${block.toString()}`);
    secure.destroy();
    expect(await probe.closed()).toBeNull();
  });

  it.each(Object.keys(KINDS))('ends in good order over %s', async (kind) => {
    const { secure, peer } = await openSecure(kind);
    const probe = new Probe();
    secure.start(probe);
    peer.once('data', () => peer.end('last words'));
    secure.write([Buffer.from('bye')], () => undefined);
    await probe.until(() => probe.hasEnded);
    expect(probe.text).toBe('last words');
    secure.destroy();
    await probe.closed();
  });

  it('begins in the very event that requested it, so that nothing is read as plaintext after it', async () => {
    const { raw, peer } = await open();
    const early: string[] = [];
    let session: Promise<TlsTransport> | undefined;
    const probe = new Probe();
    probe.push = (chunk) => {
      early.push(Buffer.from(chunk).toString());
      session ??= startTls(raw, options());
    };
    raw.start(probe);
    peer.write('now');
    serverSide(peer).write('inside');
    while (session === undefined) await sleep(1);
    const secure = await session;
    const inside = new Probe();
    secure.start(inside);
    await inside.until(() => inside.text === 'inside');
    expect(early).toEqual(['now']);
    expect(probe.closedWith).toBeUndefined();
    secure.destroy();
  });

  it('loses nothing that arrives before there is a receiver', async () => {
    const { secure, peer } = await openSecure();
    peer.write('early');
    await sleep(50);
    const probe = new Probe();
    secure.start(probe);
    await probe.until(() => probe.text === 'early');
    secure.destroy();
  });

  it.each(Object.keys(KINDS))('gives up at once when %s is destroyed in the middle', async (kind) => {
    const { raw } = await open(kind);
    const session = startTls(raw, options());
    await sleep(20);
    raw.destroy();
    expect(await rejection(session)).toMatchObject({ message: expect.any(String) });
    expect(explained).toMatchObject([{ moment: 'handshake' }]);
  });

  it('rejects when the peer hangs up in the middle', async () => {
    const { raw, peer } = await open();
    peer.resume();
    peer.end();
    expect(await rejection(startTls(raw, options()))).toMatchObject({ code: 'ECONNRESET' });
    expect(explained).toMatchObject([{ moment: 'handshake', error: { code: 'ECONNRESET' } }]);
  });

  it('rejects bytes that are not TLS', async () => {
    const { raw, peer } = await open();
    peer.write('this is what a server says that goes on in plaintext');
    expect(await rejection(startTls(raw, options()))).toMatchObject({ code: 'ERR_SSL_WRONG_VERSION_NUMBER' });
    const { writableEnded, destroyed } = peer;
    expect(writableEnded || destroyed).toBe(false);
  });

  it('rejects an authority that is not trusted, and a name that is not accepted', async () => {
    const first = await open();
    serverSide(first.peer);
    const stranger = options({ context: createSecureContext({ ca: [] }) });
    expect(await rejection(startTls(first.raw, stranger))).toMatchObject({ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    const second = await open();
    serverSide(second.peer);
    const wrong = Object.assign(new Error('wrong'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    expect(await rejection(startTls(second.raw, options({ checkIdentity: () => wrong })))).toBe(wrong);
  });

  it('asks nothing of the certificate when it is not to verify', async () => {
    const context = createSecureContext({ ca: [] });
    const { secure } = await openSecure(undefined, { verify: false, context });
    secure.destroy();
  });

  it.each([
    ['TLSv1.2', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    ['TLSv1.3', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
  ] as const)('uses a pre-shared key with %s, and never a certificate instead', async (version, refused) => {
    const key = Buffer.alloc(32, 7);
    const ciphers = 'TLS_AES_128_GCM_SHA256:PSK-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256';
    const context = createSecureContext({ ciphers, ca: [], maxVersion: version });
    const psk = { identity: 'alice', key };
    const { raw, peer } = await open();
    // Not in TLSSocketOptions' type, and yet an option.
    serverSide(peer, {
      secureContext: createSecureContext({ ciphers, maxVersion: version }),
      ...({ pskCallback: (_: unknown, name: string) => (name === 'alice' ? key : null) } as object),
    });
    const secure = await startTls(raw, options({ context, psk }));
    secure.destroy();

    const other = await open();
    serverSide(other.peer);
    expect(await rejection(startTls(other.raw, options({ context, psk })))).toMatchObject({ code: refused });
  });

  it('reports a refusal that arrives first after the handshake', async () => {
    const { secure } = await openSecure(undefined, {}, { requestCert: true, rejectUnauthorized: true });
    const probe = new Probe();
    secure.start(probe);
    secure.write([Buffer.from('hello')], () => undefined);
    const error = await probe.closed();
    expect(error).toMatchObject({ code: 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED' });
    expect(explained).toEqual([{ error, moment: 'beginning' }]);
  });

  it('distinguishes an end before the first bytes from a later one', async () => {
    const first = await openSecure();
    const probe = new Probe();
    first.secure.start(probe);
    first.peer.end();
    await probe.until(() => probe.hasEnded);
    expect(explained).toEqual([{ error: null, moment: 'beginning' }]);
    first.secure.destroy();

    const second = await openSecure();
    const other = new Probe();
    second.secure.start(other);
    second.peer.end('word');
    await other.until(() => other.hasEnded);
    expect(explained[1]).toEqual({ error: null, moment: 'later' });
    second.secure.destroy();
  });

  it('breaks on plaintext in the middle of the session', async () => {
    const { secure, peer, below } = await openSecure('a stream in memory');
    const probe = new Probe();
    secure.start(probe);
    peer.write('good');
    await probe.until(() => probe.text === 'good');
    below.write('bad bad bad bad');
    expect(await probe.closed()).toMatchObject({ code: expect.stringMatching(/^ERR_SSL_/) });
    expect(probe.text).toBe('good');
  });

  it('asks the owner of the peer why a connection was lost, but not why it was refused', async () => {
    const lost = await open();
    const died = new Error('it died');
    const asked: unknown[] = [];
    lost.raw.explainEnd = (error) => {
      asked.push(error);
      return Promise.resolve(died);
    };
    lost.peer.resume();
    lost.peer.end();
    expect(await rejection(startTls(lost.raw, options()))).toBe(died);
    expect(asked).toHaveLength(1);

    const refused = await open();
    serverSide(refused.peer);
    refused.raw.explainEnd = lost.raw.explainEnd;
    const context = createSecureContext({ ca: [] });
    await rejection(startTls(refused.raw, options({ context })));
    expect(asked).toHaveLength(1);
  });

  it('leaves nothing behind', async () => {
    for (let i = 0; i < 3; i++) (await openSecure()).secure.destroy();
    for (const stream of streams) stream.destroy();
    await sleep(50);
    const before = held();
    for (let i = 0; i < 20; i++) {
      const { secure, peer } = await openSecure('a socket that this package opened');
      secure.destroy();
      peer.destroy();
      const { raw, peer: stalled } = await open();
      const session = startTls(raw, options());
      raw.destroy();
      stalled.destroy();
      await rejection(session);
    }
    for (const server of servers) server.close();
    servers.clear();
    expect(await stillHeld(before)).toEqual({ descriptors: 0, listeners: 0 });
  });
});
