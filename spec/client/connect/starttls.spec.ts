// STARTTLS against peers that break its rules, and what the client may send then. Each case is run over a Unix socket
// with a scripted server; `raw` is what came over the wire, so that what is not encrypted can be seen.

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, TLS_ALLOW, TLS_DISABLE, TLS_REQUIRE } from '../../../lib/index.js';
import {
  close,
  exportInfo,
  on,
  optionReply,
  type OptionScript,
  chunk,
  join,
  u64,
  type PeerRecording,
  type PeerScript,
  rawplain,
  recv,
  ScriptedPeer,
  stall,
  tls,
} from '../../../lib/testing/index.js';
import { rejection } from '../../support/caught.js';
import { type Certificates, makeCertificates } from '../../support/certificates.js';
import { atAnyPace } from '../../support/pace.js';
import { ONLY_STARTTLS, plaintextOf, STARTTLS_AND_ABORT } from '../../support/recording-proxy.js';
import { describeWith } from '../../support/tools.js';

const [ABORT, STARTTLS, GO, SR, SETMETA] = [2, 5, 7, 8, 10];
const [ACK, INFO] = [1, 3];
const refusal = (n: number): number => 0x8000_0000 + n;
const [UNSUP, POLICY, PLATFORM, TLS_REQD] = [1, 2, 4, 5].map(refusal);

let certificates: Certificates;

const reply = (option: number, type: number | undefined, data: Uint8Array | string = ''): Uint8Array =>
  optionReply(option, type ?? 0, typeof data === 'string' ? Buffer.from(data) : data);

/** Serves TLS as it should be. */
const goodTls = (): OptionScript => on(STARTTLS, [reply(STARTTLS, ACK), tls()]);

interface Attempt {
  /** What connect(), and a read after it, rejected with; undefined when all went well. */
  readonly error: unknown;
  readonly negotiated: boolean | undefined;
  readonly peer: PeerRecording;
  readonly milliseconds: number;
}

async function attempt(tlsMode: number, script: PeerScript, options: NbdConnectionOptions = {}): Promise<Attempt> {
  await using server = await ScriptedPeer.listen({ tls: certificates.server, ...script });
  const begun = Date.now();
  const connection = new NbdConnection({
    tls: tlsMode,
    ca: certificates.ca,
    tlsHostname: 'localhost',
    connectTimeout: 0,
    ...options,
  });
  let negotiated: boolean | undefined;
  let error: unknown;
  try {
    await connection.connectUri(server.uri());
    negotiated = connection.getTlsNegotiated();
    await connection.pread(512, 0);
    await connection.pread(512, 4096);
  } catch (reason) {
    error = reason;
  }
  const milliseconds = Date.now() - begun;
  if (error === undefined) await connection.shutdown();
  else expect(connection.connectionState()).toBe('dead');
  await server.idle();
  return { error, negotiated, peer: server.connection, milliseconds };
}

describeWith(['openssl'], 'STARTTLS', () => {
  beforeAll(async () => {
    certificates = await makeCertificates();
  });

  afterAll(() => certificates.remove());

  it('C01: everything goes inside when the server agrees', async () => {
    const { error, negotiated, peer } = await attempt(TLS_REQUIRE, { on: [goodTls()] });
    expect(error).toBeUndefined();
    expect(negotiated).toBe(true);
    expect(peer.violations).toEqual([]);
    expect(peer.options.map(({ tls: inside }) => inside)).toEqual([false, ...peer.options.slice(1).map(() => true)]);
    expect(plaintextOf(peer.raw)).toEqual(ONLY_STARTTLS);
  });

  it.each([
    ['localhost', '', true],
    ['localhost', '127.0.0.1', true],
    ['127.0.0.1', '', false],
    ['127.0.0.1', 'localhost', false],
  ])('names the TCP host %s (tlsHostname %j) in SNI where it is a name: %s', async (host, tlsHostname, isNamed) => {
    const script = { tls: certificates.server, on: [goodTls()] };
    await using server = await ScriptedPeer.listen(script, { transport: 'tcp' });
    const connection = new NbdConnection({ tls: TLS_REQUIRE, ca: certificates.ca, tlsHostname });
    await connection.connectTcp(host, server.port!);
    await connection.shutdown();
    await server.idle();
    expect(server.connection.raw.subarray(0, 600).includes('localhost')).toBe(isNamed);
  });

  it('C03: an acknowledgement with data breaks the protocol', async () => {
    const { error, peer } = await attempt(TLS_REQUIRE, {
      on: [on(STARTTLS, [reply(STARTTLS, ACK, 'abcd'), stall()])],
    });
    expect(error).toMatchObject({ name: 'NbdProtocolError', code: 'EPROTO' });
    expect(peer.raw).toEqual(ONLY_STARTTLS);
  });

  it.each([
    ['C04', UNSUP, 'ENOTSUP'],
    ['C05', POLICY, 'ENOTSUP'],
    ['C20', PLATFORM, 'ENOTSUP'],
  ])('%s: required and refused ends with an abort, in the clear and without a word more', async (_, type, code) => {
    const { error, peer } = await attempt(TLS_REQUIRE, {
      on: [on(STARTTLS, reply(STARTTLS, type, 'not here'))],
    });
    expect(error).toMatchObject({ name: 'NbdOptionError', code, serverMessage: 'not here' });
    expect((error as Error).message).toMatch(/TLS is required, but the server refused to start it/);
    expect(peer.raw).toEqual(STARTTLS_AND_ABORT);
  });

  it('C04: the same for an nbds URI, whatever was set before', async () => {
    await using server = await ScriptedPeer.listen({ on: [on(STARTTLS, reply(STARTTLS, UNSUP))] });
    const connection = new NbdConnection({ tls: TLS_ALLOW, ca: certificates.ca });
    const error = await rejection(connection.connectUri(server.uri().replace('nbd+', 'nbds+')));
    expect(error).toMatchObject({ name: 'NbdOptionError' });
    expect(connection.getTls()).toBe(TLS_REQUIRE);
    await server.idle();
    expect(server.connection.raw).toEqual(STARTTLS_AND_ABORT);
  });

  it.each([UNSUP, POLICY, PLATFORM])(
    'C06: allowed and refused (%#) goes on in plaintext, and getTlsNegotiated() is false',
    async (type) => {
      const { error, negotiated, peer } = await attempt(TLS_ALLOW, { on: [on(STARTTLS, reply(STARTTLS, type))] });
      expect(error).toBeUndefined();
      expect(negotiated).toBe(false);
      expect(peer.violations).toEqual([]);
    },
  );

  it('disabled does not even ask', async () => {
    const { error, peer } = await attempt(TLS_DISABLE, { on: [goodTls()] });
    expect(error).toBeUndefined();
    expect(peer.options.some(({ option: number }) => number === STARTTLS)).toBe(false);
  });

  it.each([TLS_ALLOW, TLS_REQUIRE])('C08: garbage for a ServerHello never falls back (%#)', async (mode) => {
    const garbage = Buffer.from('\x16\x03\x01\xff\xffgarbage'.repeat(50), 'latin1');
    const { error, peer } = await attempt(mode, {
      on: [on(STARTTLS, [reply(STARTTLS, ACK), recv(5), garbage, stall()])],
    });
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'EPROTO' });
    expect((error as Error).message).toMatch(/TLS: the handshake failed/);
    expect(plaintextOf(peer.raw)).toEqual(ONLY_STARTTLS);
  });

  it('F20: a server with TLS 1.1 at most is refused as too old', async () => {
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    const { error, peer } = await attempt(TLS_ALLOW, { tls: { ...certificates.server, ...old }, on: [goodTls()] });
    expect(error).toMatchObject({
      name: 'NbdConnectionError',
      code: 'EPROTO',
      cause: { code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' },
    });
    expect(plaintextOf(peer.raw)).toEqual(ONLY_STARTTLS);
  });

  it.each([TLS_ALLOW, TLS_REQUIRE])('C10: a stalled handshake is inside connectTimeout (%#)', async (mode) => {
    await atAnyPace(async (pace) => {
      const { error, peer, milliseconds } = await attempt(
        mode,
        { on: [on(STARTTLS, [reply(STARTTLS, ACK), stall()])] },
        { connectTimeout: 300 * pace },
      );
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ETIMEDOUT' });
      expect(milliseconds).toBeGreaterThanOrEqual(240 * pace);
      expect(plaintextOf(peer.raw)).toEqual(ONLY_STARTTLS);
    });
  });

  it('C10: a stalled handshake can be aborted', async () => {
    await using server = await ScriptedPeer.listen({ on: [on(STARTTLS, [reply(STARTTLS, ACK), stall()])] });
    const controller = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => controller.abort(reason), 50);
    const connecting = NbdConnection.connect(server.uri(), {
      tls: TLS_REQUIRE,
      ca: certificates.ca,
      signal: controller.signal,
    });
    expect(await rejection(connecting)).toBe(reason);
    await server.idle();
  });

  it('C10: a stalled handshake can be closed', async () => {
    await using server = await ScriptedPeer.listen({ on: [on(STARTTLS, [reply(STARTTLS, ACK), stall()])] });
    const connection = new NbdConnection({ tls: TLS_REQUIRE, ca: certificates.ca });
    const connecting = rejection(connection.connectUri(server.uri()));
    setTimeout(() => connection.close(), 50);
    expect(await connecting).toMatchObject({ code: 'ENOTCONN' });
    expect(connection.connectionState()).toBe('closed');
    await server.idle();
  });

  it.each([TLS_ALLOW, TLS_REQUIRE])('C11: a server that goes on in plaintext is left (%#)', async (mode) => {
    const further = [reply(SR, ACK), reply(GO, INFO, exportInfo()), reply(GO, ACK)];
    const { error, peer } = await attempt(mode, {
      on: [on(STARTTLS, [reply(STARTTLS, ACK), recv(16), ...further, stall()])],
    });
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'EPROTO' });
    expect(plaintextOf(peer.raw)).toEqual(ONLY_STARTTLS);
  });

  it.each([TLS_ALLOW, TLS_REQUIRE])('C12: bytes behind the acknowledgement do not survive it (%#)', async (mode) => {
    const injected = join(reply(STARTTLS, ACK), reply(SR, ACK), reply(GO, INFO, exportInfo()), reply(GO, ACK));
    const { error, peer } = await attempt(mode, { on: [on(STARTTLS, [injected, stall()])] });
    expect(error).toMatchObject({ name: 'NbdProtocolError', code: 'EPROTO' });
    expect((error as Error).message).toMatch(/in plaintext after it had agreed to TLS/);
    expect(peer.raw).toEqual(ONLY_STARTTLS);
  });

  it('C13: a server that demands TLS of a client without it: the error names TLS', async () => {
    const { error, peer } = await attempt(TLS_DISABLE, {
      on: [SR, SETMETA, GO].map((number) => on(number, reply(number, TLS_REQD))),
    });
    expect(error).toMatchObject({ name: 'NbdOptionError', code: 'ENOTSUP' });
    expect((error as Error).message).toMatch(/TLS/);
    expect(peer.options.at(-1)?.option).toBe(ABORT);
  });

  it('C15: STARTTLS is not sent twice', async () => {
    await using server = await ScriptedPeer.listen({ tls: certificates.server, on: [goodTls()] });
    const connection = new NbdConnection({ optMode: true, ca: certificates.ca, tlsHostname: 'localhost' });
    await connection.connectUri(server.uri());
    expect(connection.getTlsNegotiated()).toBe(false);
    expect(await connection.optStarttls()).toBe(true);
    expect(connection.getTlsNegotiated()).toBe(true);
    expect(await rejection(connection.optStarttls())).toMatchObject({ code: 'EINVAL' });
    expect(await connection.optStructuredReply()).toBe(true);
    await connection.optGo();
    await connection.pread(512, 0);
    await connection.shutdown();
    expect(server.connection.violations).toEqual([]);
  });

  it('in option mode: a refusal is false, a failed handshake is the end', async () => {
    await using refusing = await ScriptedPeer.listen({ on: [on(STARTTLS, reply(STARTTLS, UNSUP))] });
    const first = new NbdConnection({ optMode: true });
    await first.connectUri(refusing.uri());
    expect(await first.optStarttls()).toBe(false);
    await first.optGo();
    await first.shutdown();

    await using stranger = await ScriptedPeer.listen({ tls: certificates.server, on: [goodTls()] });
    const second = new NbdConnection({ optMode: true, tlsHostname: 'localhost' });
    await second.connectUri(stranger.uri());
    expect(await rejection(second.optStarttls())).toMatchObject({ name: 'NbdConnectionError', code: 'EACCES' });
    expect(second.connectionState()).toBe('dead');
    await stranger.idle();
    expect(plaintextOf(stranger.connection.raw).includes('IHAVEOPT\0\0\0\x07')).toBe(false);
  });

  it('in option mode: material that cannot be used is the end once the server has agreed', async () => {
    await using server = await ScriptedPeer.listen({ tls: certificates.server, on: [goodTls()] });
    const connection = new NbdConnection({ optMode: true, ca: 'x', cert: 'x', key: 'x' });
    await connection.connectUri(server.uri());
    expect(await rejection(connection.optStarttls())).toMatchObject({ name: 'NbdConnectionError', code: 'EINVAL' });
    expect(connection.connectionState()).toBe('dead');
    await server.idle();
    expect(server.connection.options.at(-1)?.option).toBe(STARTTLS);
  });

  it('C16: NBD_REP_ERR_TLS_REQD inside TLS ends the attempt', async () => {
    const { error, peer } = await attempt(TLS_REQUIRE, { on: [goodTls(), on(GO, reply(GO, TLS_REQD))] });
    expect(error).toMatchObject({ name: 'NbdOptionError', code: 'ENOTSUP' });
    expect(peer.options.at(-1)).toMatchObject({ option: ABORT, tls: true });
  });

  it('C18: plaintext in the middle of the session breaks it', async () => {
    const { error } = await attempt(TLS_REQUIRE, {
      on: [goodTls()],
      reply: (command) => rawplain(chunk(1, 1, command.cookie, join(u64(command.offset), command.data))),
    });
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN', cause: { code: 'EPROTO' } });
  });

  it('F21: an end without close_notify: in order when idle, lost in the middle', async () => {
    const lost = await attempt(TLS_REQUIRE, { on: [goodTls()], reply: close() });
    expect(lost.error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
  });

  it('nothing that was learnt in plaintext is believed inside', async () => {
    await using server = await ScriptedPeer.listen({ tls: certificates.server, on: [goodTls()] });
    const connection = new NbdConnection({ optMode: true, ca: certificates.ca, tlsHostname: 'localhost' });
    await connection.connectUri(server.uri());
    await connection.optInfo();
    expect(connection.getStructuredRepliesNegotiated()).toBe(true);
    await connection.optStarttls();
    expect(connection.getStructuredRepliesNegotiated()).toBe(false);
    expect(() => connection.getSize()).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    connection.close();
  });
});
