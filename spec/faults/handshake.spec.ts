// Faults while a connection is made: at the greeting, among the options, in the TLS handshake. FAULT_TABLE=1 prints
// every row.

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, TLS_REQUIRE } from '../../lib/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { type Fault, FaultProxy, type Side } from '../support/fault-proxy.js';
import { leftovers, resources } from '../support/leftovers.js';
import { atAnyPace } from '../support/pace.js';
import { type RealServer, startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { judge, outcome, printRows, type Row } from './invariants.js';

afterAll(printRows);

/** Long enough not to count where the handshake ends. */
const PATIENT = 20_000;
const IMPATIENT = 300;

const SURVIVES = 'connect ok; pread ok; ready';
const lost = (code: string): string =>
  `connect ${code} (NbdConnectionError); pread EINVAL (NbdStateError); dead, close once with ${code}`;

interface HandshakeFault {
  readonly title: string;
  readonly fault: Omit<Fault, 'of' | 'at'>;
  readonly expected: string;
  readonly connectTimeout: number;
}

const FAULTS: readonly HandshakeFault[] = [
  {
    ...{ title: 'a delay', fault: { kind: 'delay', milliseconds: 20 } },
    ...{ expected: SURVIVES, connectTimeout: PATIENT },
  },
  {
    ...{ title: 'a trickle', fault: { kind: 'trickle', milliseconds: 0, bytes: 100 } },
    ...{ expected: SURVIVES, connectTimeout: PATIENT },
  },
  {
    // F07: the deadline is the whole handshake's, not each byte's.
    ...{ title: 'F07: a trickle without end', fault: { kind: 'trickle', milliseconds: 50 } },
    ...{ expected: lost('ETIMEDOUT'), connectTimeout: IMPATIENT },
  },
  { title: 'a reset', fault: { kind: 'reset' }, expected: lost('ENOTCONN'), connectTimeout: PATIENT },
  { title: 'a half-close', fault: { kind: 'half-close' }, expected: lost('ENOTCONN'), connectTimeout: PATIENT },
  { title: 'a close', fault: { kind: 'close' }, expected: lost('ENOTCONN'), connectTimeout: PATIENT },
  { title: 'a black hole', fault: { kind: 'black-hole' }, expected: lost('ETIMEDOUT'), connectTimeout: IMPATIENT },
];

/** `at` below 0 counts from the end of the handshake. */
type Place = readonly [title: string, of: Side, at: number];

async function attempt(
  server: RealServer,
  options: NbdConnectionOptions,
  { title, fault, expected, connectTimeout }: HandshakeFault,
  [where, of, at]: Place,
  pace: number,
): Promise<Row> {
  const milliseconds = (fault.milliseconds ?? 0) * pace;
  await using proxy = await FaultProxy.start(server.address, { ...fault, milliseconds, of, at });
  const connection = new NbdConnection({ ...options, connectTimeout: connectTimeout * pace });
  const closes: (string | undefined)[] = [];
  connection.on('close', (error) => closes.push(error?.code));
  const { target } = proxy;
  const connected = await outcome(
    'path' in target ? connection.connectUnix(target.path) : connection.connectTcp(target.host, target.port),
  );
  const read = await outcome(connection.pread(512, 0));
  const kindOf = (error: unknown): string => (error instanceof Error ? ` (${error.name})` : '');
  const seen = [
    `connect ${connected.word}${kindOf(connected.error)}`,
    `pread ${read.word}${kindOf(read.error)}`,
    connection.connectionState() +
      (closes.length === 0 ? '' : `, close ${closes.length === 1 ? 'once' : closes.length} with ${closes.join()}`),
  ].join('; ');
  const hasStruck = proxy.link.hasStruck;
  const problems = hasStruck ? [] : ['the fault has not struck'];
  connection.close();
  connection.close();
  await proxy.link.gone;
  // On a busy machine a short connectTimeout may pass before the handshake has come to the place of the fault.
  if (!hasStruck && connectTimeout === IMPATIENT) throw new TooEarly(`${title} ${where}: the fault has not struck`);
  if (closes.length !== 1) problems.push(`${closes.length} close events`);
  return { title: `${title} ${where}`, expected, seen, problems };
}

/** The attempt ended before the fault; at a slower pace it does not. */
class TooEarly extends Error {}

/** How long an undisturbed handshake is. */
async function measure(server: RealServer, options: NbdConnectionOptions): Promise<Record<Side, number>> {
  await using proxy = await FaultProxy.start(server.address);
  await using connection = await NbdConnection.connect(proxy.target, options);
  expect(connection.aioIsReady()).toBe(true);
  return { client: proxy.link.passed('client'), server: proxy.link.passed('server') };
}

function tryAll(
  over: string,
  faults: readonly HandshakeFault[],
  server: () => RealServer,
  options: () => NbdConnectionOptions,
  places: readonly Place[],
): void {
  it.each(faults.map((fault) => [fault.title, fault] as const))('%s', async (_title, fault) => {
    const before = resources();
    const length = await measure(server(), options());
    const all = places.map(([title, of, at]): Place => [`${title}, ${over}`, of, at < 0 ? length[of] + at : at]);
    // Where a trickle without end begins near the end of the handshake, the deadline does not come.
    const isEndless = fault.fault.kind === 'trickle' && fault.fault.bytes === undefined;
    const tried = all.filter(([, of, at]) => !isEndless || at < length[of] - 20);
    judge(
      await Promise.all(tried.map((place) => atAnyPace((pace) => attempt(server(), options(), fault, place, pace)))),
    );
    expect(await leftovers(before)).toEqual([]);
  });
}

const PLACES: Place[] = [
  ['before the greeting', 'server', 0],
  ['inside the first magic', 'server', 5],
  ['before the last byte of the greeting', 'server', 17],
  ['before the client flags', 'client', 0],
  ['inside the client flags', 'client', 2],
  ['inside the header of an option', 'client', 10],
  ['before the reply to an option', 'server', 18],
  ['inside the header of a reply to an option', 'server', 28],
  ['before the last byte that the client sends', 'client', -1],
  ['before the last byte that the server sends', 'server', -1],
];

/** A Unix socket has no reset. */
const WITHOUT_RESET = FAULTS.filter(({ fault }) => fault.kind !== 'reset');

interface HandshakeKind {
  readonly needs: readonly string[];
  readonly faults: readonly HandshakeFault[];
  readonly exportName: string;
  readonly start: () => Promise<RealServer>;
}

const KINDS: Readonly<Record<string, HandshakeKind>> = {
  'nbdkit over TCP': {
    ...{ needs: ['nbdkit'], faults: FAULTS, exportName: '' },
    start: () => startNbdkit({ transport: 'tcp', args: ['1M'] }),
  },
  'qemu-nbd over a Unix socket': {
    ...{ needs: ['qemu-nbd', 'qemu-img'], faults: WITHOUT_RESET, exportName: '' },
    start: () => startQemuNbd({ transport: 'unix', size: 1 << 20 }),
  },
  'nbd-server over TCP': {
    ...{ needs: ['nbd-server'], faults: FAULTS, exportName: 'export' },
    start: () => startNbdServer({ transport: 'tcp', size: 1 << 20 }),
  },
};

for (const [name, { needs, faults, exportName, start }] of Object.entries(KINDS)) {
  describeWith(needs, `a handshake with faults, ${name}`, () => {
    let server: RealServer;
    beforeAll(async () => {
      server = await start();
    });
    tryAll(
      name,
      faults,
      () => server,
      () => ({ exportName }),
      PLACES,
    );
  });
}

// The greeting has 18 bytes and the answer to STARTTLS 20; the client's flags 4 and STARTTLS 16.
const TLS_PLACES: Place[] = [
  ['inside the answer to STARTTLS', 'server', 30],
  ['before the ClientHello', 'client', 20],
  ['inside the ClientHello', 'client', 120],
  ['before the ServerHello', 'server', 38],
  ['inside the header of its record', 'server', 41],
  ['inside the ServerHello', 'server', 100],
  ["inside the server's certificate", 'server', 600],
  ['inside the last record of the handshake', 'server', -10],
];

describeWith(['nbdkit', 'openssl'], 'a TLS handshake with faults', () => {
  let server: RealServer;
  let certificates: Certificates;
  beforeAll(async () => {
    certificates = await makeCertificates();
    server = await startNbdkit({ transport: 'tcp', args: ['1M'], tls: { folder: certificates.folder } });
  });
  afterAll(() => certificates.remove());
  tryAll(
    'TLS',
    FAULTS,
    () => server,
    () => ({ tls: TLS_REQUIRE, ca: certificates.ca, tlsHostname: 'localhost' }),
    TLS_PLACES,
  );
});
