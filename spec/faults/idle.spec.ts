// Faults on a connection on which nothing is under way, and silence when it is to be ended.

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, type NbdError, TLS_REQUIRE } from '../../lib/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { leftovers, resources } from '../support/leftovers.js';
import { type RealServer, startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { outcome } from './invariants.js';

const IMPATIENT = 300;

interface Opened extends AsyncDisposable {
  readonly proxy: FaultProxy;
  readonly connection: NbdConnection;
  readonly closes: (NbdError | undefined)[];
  /** Resolves with the first 'close'. */
  readonly closed: Promise<unknown>;
}

async function open(server: RealServer, options: NbdConnectionOptions): Promise<Opened> {
  const before = resources();
  const proxy = await FaultProxy.start(server.address);
  const connection = await NbdConnection.connect(proxy.target, options);
  const closes: (NbdError | undefined)[] = [];
  connection.on('close', (error) => closes.push(error));
  const closed = new Promise((resolve) => connection.once('close', resolve));
  return {
    ...{ proxy, connection, closes, closed },
    [Symbol.asyncDispose]: async () => {
      connection.close();
      await connection.shutdown();
      await proxy[Symbol.asyncDispose]();
      expect(closes).toHaveLength(1);
      expect(await leftovers(before)).toEqual([]);
    },
  };
}

const TRANSPORTS = ['tcp', 'unix', 'tls'] as const;

describeWith(['nbdkit', 'openssl'], 'an idle connection to nbdkit', () => {
  let certificates: Certificates;
  const servers = new Map<string, RealServer>();
  beforeAll(async () => {
    certificates = await makeCertificates();
    const args = ['1M'];
    servers.set('unix', await startNbdkit({ transport: 'unix', args }));
    servers.set('tcp', await startNbdkit({ transport: 'tcp', args }));
    servers.set('tls', await startNbdkit({ transport: 'tcp', args, tls: { folder: certificates.folder } }));
  });
  afterAll(() => certificates.remove());

  const openOver = (over: (typeof TRANSPORTS)[number], options: NbdConnectionOptions = {}): Promise<Opened> => {
    const tls = { tls: TLS_REQUIRE, ca: certificates.ca, tlsHostname: 'localhost' };
    return open(servers.get(over) as RealServer, { ...(over === 'tls' ? tls : {}), ...options });
  };

  it.each(TRANSPORTS)('F10, F21: an end is an orderly end, and nothing is sent into it (%s)', async (over) => {
    await using opened = await openOver(over);
    const { connection, proxy, closes, closed } = opened;
    const sent = connection.statsBytesSent();
    // Under TLS it comes without a close_notify.
    await proxy.link.strikeNow('half-close');
    await closed;
    expect(closes).toEqual([undefined]);
    expect(connection.connectionState()).toBe('closed');
    expect((await outcome(connection.pread(512, 0))).word).toBe('EINVAL');
    await connection.shutdown();
    expect(connection.statsBytesSent()).toBe(sent);
  });

  it('F21: an end without close_notify inside a list is a death, never a shorter list', async () => {
    await using opened = await openOver('tls', { optMode: true });
    const { connection, proxy, closes } = opened;
    // Inside the TLS record of the reply: its header and a few bytes more.
    proxy.link.arm({ kind: 'half-close', of: 'server', at: 10 });
    const listed = await outcome(connection.optList());
    expect(listed.word).toBe('ENOTCONN');
    expect(listed.error).toMatchObject({ name: 'NbdConnectionError' });
    expect(connection.connectionState()).toBe('dead');
    expect(closes[0]).toBe(listed.error);
  });

  it.each(['tcp', 'tls'] as const)('F09: a reset is a death; the next call rejects at once (%s)', async (over) => {
    await using opened = await openOver(over);
    const { connection, proxy, closes, closed } = opened;
    await proxy.link.strikeNow('reset');
    await closed;
    expect(closes[0]).toMatchObject({ code: 'ENOTCONN', cause: { code: 'ECONNRESET' } });
    const next = await outcome(connection.pread(512, 0));
    expect(next).toMatchObject({ word: 'EINVAL', error: { cause: closes[0] } });
  });

  it.each(TRANSPORTS)('F11: the server does not answer any more: requestTimeout (%s)', async (over) => {
    await using opened = await openOver(over, { requestTimeout: IMPATIENT });
    const { connection, proxy, closes } = opened;
    await proxy.link.strikeNow('black-hole');
    const [first, second] = await Promise.all([
      outcome(connection.pread(512, 0)),
      outcome(connection.pwrite(Buffer.alloc(512), 0)),
    ]);
    expect(first.word).toBe('ETIMEDOUT');
    expect(second).toMatchObject({ word: 'ENOTCONN', error: { sent: true, cause: first.error } });
    expect(closes).toEqual([first.error]);
  });

  it.each(TRANSPORTS)('G21: shutdown() into a black hole ends within closeTimeout (%s)', async (over) => {
    await using opened = await openOver(over, { closeTimeout: 100 });
    const { connection, proxy, closes } = opened;
    await proxy.link.strikeNow('black-hole');
    const begun = performance.now();
    await connection.shutdown();
    expect(performance.now() - begun).toBeGreaterThan(80);
    expect(connection.connectionState()).toBe('closed');
    expect(closes).toEqual([undefined]);
  });

  it.each(TRANSPORTS)('G20: shutdown() of a connection that has died resolves (%s)', async (over) => {
    await using opened = await openOver(over);
    await opened.proxy.link.strikeNow('close');
    await opened.closed;
    await Promise.all([opened.connection.shutdown(), opened.connection.shutdown()]);
  });

  // Not over TLS, where nothing of a record can be seen before its last byte.
  it.each(['tcp', 'unix'] as const)(
    'F15: a payload that comes slowly is progress: no requestTimeout (%s)',
    async (over) => {
      await using opened = await openOver(over, { requestTimeout: IMPATIENT });
      const { connection, proxy } = opened;
      proxy.link.arm({ kind: 'trickle', of: 'server', at: 60, milliseconds: 20, bytes: 40 });
      expect((await connection.pread(4096, 0)).equals(Buffer.alloc(4096))).toBe(true);
      expect(connection.aioIsReady()).toBe(true);
    },
  );
});
