import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { connect as tlsConnect, type ConnectionOptions } from 'node:tls';
import { MemoryBackend, type NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import * as g from '../support/golden.js';
import { atAnyPace } from '../support/pace.js';
import { newServer, RawClient } from '../support/raw-client.js';
import { describeWith } from '../support/real-servers.js';
import { until } from '../support/waiting.js';

const { CMD, OPT } = g;
const SIZE = 1 << 20;
const GO = g.option(OPT.GO, g.cat(g.u32(0), g.u16(0)));

describeWith(['openssl'], 'TLS of the embedded server', () => {
  let pki: Certificates;
  beforeAll(async () => {
    pki = await makeCertificates();
  });
  afterAll(() => pki.remove());

  const secure = (options: NbdServerOptions = {}): NbdServer =>
    newServer({
      exports: { '': MemoryBackend.from(g.content(0, SIZE)) },
      tls: 'on',
      tlsOptions: { cert: pki.server.cert, key: pki.server.key },
      ...options,
    });

  /** Greets, starts TLS, and gives the client on the other side of it, which has not greeted. */
  async function startTls(plain: RawClient, options: ConnectionOptions = {}): Promise<RawClient> {
    await plain.take(18);
    plain.write(g.u32(3));
    expect((await plain.option(OPT.STARTTLS)).type).toBe(g.ACK);
    plain.stream.removeAllListeners('data');
    const socket = tlsConnect({ socket: plain.stream, ca: pki.ca, servername: 'localhost', ...options });
    await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    return new RawClient(socket);
  }

  /** GO and a read. */
  async function use(client: RawClient): Promise<void> {
    expect((await client.option(OPT.GO, g.cat(g.u32(0), g.u16(0)))).type).toBe(g.ACK);
    expect((await client.read(5, 300_000)).equals(g.content(5, 300_000))).toBe(true);
    expect(await client.ask(CMD.WRITE, { offset: 5, payload: g.content(5, 300_000) })).toBe(0);
    client.send(CMD.DISC);
    await client.ended;
  }

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('serves over %s, on TCP and in memory', async (version) => {
    const server = secure();
    await server.listenTcp();
    for (const plain of [RawClient.dial(server), RawClient.of(server)]) {
      const client = await startTls(plain, { minVersion: version, maxVersion: version });
      await use(client);
    }
    expect(server.statistics).toMatchObject({ sessions: 2, requests: { pread: 2, pwrite: 2, disconnect: 2 } });
  });

  it('accepts plaintext clients when TLS is offered, and refuses them when it is required', async () => {
    expect((await (await RawClient.of(secure()).handshake()).read(0, 4)).equals(g.content(0, 4))).toBe(true);
    await expect(RawClient.of(secure({ tls: 'require' })).handshake()).rejects.toThrow('0x80000005');
  });

  it('keeps an export for TLS to itself until then', async () => {
    const backend = MemoryBackend.from(g.content(0, SIZE));
    const server = secure({ exports: { '': { backend, requireTls: true } } });
    await expect(RawClient.of(server).handshake()).rejects.toThrow('0x80000005');
    await use(await startTls(RawClient.of(server)));
  });

  it('authenticates clients by their certificates when requested', async () => {
    const errors: Error[] = [];
    const { cert, key } = pki.server;
    const server = secure({
      tls: 'require',
      tlsOptions: { cert, key, ca: pki.ca, verifyPeer: true },
      onConnectionError: (error) => errors.push(error),
    });
    await use(await startTls(RawClient.of(server), pki.client));
    // TLS 1.3 lets the client believe that it is in before the server has looked at its certificate.
    const stranger = await startTls(RawClient.of(server)).catch(() => null);
    stranger?.write(GO);
    expect((await stranger?.rest().catch(() => Buffer.alloc(0)))?.length ?? 0).toBe(0);
    expect(errors.map(({ message }) => message)).toEqual(['the TLS handshake failed']);
    expect(server.statistics.sessions).toBe(1);
  });

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('takes pre-shared keys over %s', async (version) => {
    const psk = Buffer.from(pki.pskKey, 'hex');
    const server = secure({ tls: 'require', tlsOptions: { psk: { [pki.pskUser]: psk } } });
    const options = (identity: string, key: Buffer): ConnectionOptions => ({
      pskCallback: () => ({ identity, psk: key }),
      checkServerIdentity: () => undefined,
      ciphers: 'TLS_AES_128_GCM_SHA256:PSK-AES128-GCM-SHA256:DHE-PSK-AES128-GCM-SHA256',
      minVersion: version,
      maxVersion: version,
    });
    await use(await startTls(RawClient.of(server), options(pki.pskUser, psk)));
    await expect(startTls(RawClient.of(server), options(pki.pskUser, Buffer.alloc(32)))).rejects.toThrow(
      /alert (bad record mac|illegal parameter|decrypt error)/,
    );
    await expect(startTls(RawClient.of(server), options('constructor', psk))).rejects.toThrow(
      /alert (unknown psk identity|handshake failure)/,
    );
  });

  it('V10 closes on plaintext behind STARTTLS, glued or late', async () => {
    const errors: string[] = [];
    const server = secure({ onConnectionError: ({ message }) => errors.push(message) });
    const glued = RawClient.of(server);
    glued.write(g.u32(3), g.option(OPT.STARTTLS), GO);
    expect((await glued.rest()).length).toBeLessThanOrEqual(18 + 20);
    const late = RawClient.of(server);
    await late.take(18);
    late.write(g.u32(3));
    await late.option(OPT.STARTTLS);
    late.write(GO);
    const said = await late.rest();
    // At most an alert, and nothing of the protocol.
    expect(said.includes(g.cat(g.u32(0x3e889), g.u32(0x045565a9)))).toBe(false);
    expect(errors.length).toBe(2);
    expect(server.statistics.sessions).toBe(0);
  });

  it('does not wait for ever for a client that starts TLS and sends nothing', async () => {
    await atAnyPace(async (pace) => {
      const codes: unknown[] = [];
      const server = secure({
        handshakeTimeout: 500 * pace,
        onConnectionError: (error) => codes.push((error as NodeJS.ErrnoException).code),
      });
      await server.listenTcp();
      const client = RawClient.dial(server);
      await client.take(18);
      client.write(g.u32(3));
      await client.option(OPT.STARTTLS);
      await client.ended;
      await until(() => server.statistics.openConnections === 0, 'the server has released the connection');
      expect(codes).toEqual(['ETIMEDOUT']);
    });
  });

  it('survives clients that leave in the middle of it, and closes with one there', async () => {
    const server = secure();
    await server.listenTcp();
    for (const leave of [true, false]) {
      const client = RawClient.dial(server);
      await client.take(18);
      client.write(g.u32(3));
      await client.option(OPT.STARTTLS);
      client.write(Buffer.from('160301020001', 'hex'));
      if (leave) client.stream.destroy();
    }
    await use(await startTls(RawClient.dial(server)));
    await server.close();
    expect(server.statistics.openConnections).toBe(0);
  });

  it('answers a client that half-closes under TLS', async () => {
    const client = await startTls(RawClient.of(secure()), { minVersion: 'TLSv1.2' });
    await client.option(OPT.GO, g.cat(g.u32(0), g.u16(0)));
    client.send(CMD.READ, { count: SIZE });
    client.stream.end();
    expect((await client.take(16 + SIZE)).length).toBe(16 + SIZE);
    await client.ended;
  });
});
