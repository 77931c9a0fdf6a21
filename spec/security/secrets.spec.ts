// What must be in no message: keys, passphrases, passwords in URIs, and export names that are masked. Everything that
// a program may log is collected: errors with their causes, inspect of the connection, JSON, debug messages, events
// and what diagnostics_channel publishes.

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { inspect } from 'node:util';

import { NbdConnection, type NbdConnectionOptions, TLS_REQUIRE } from '../../lib/index.js';
import {
  chunk,
  close,
  greeting,
  join,
  oldstyle,
  on,
  optionReply,
  type OptionScript,
  type PeerScript,
  ScriptedPeer,
  simpleReply,
  stall,
  u16,
  u32,
} from '../../lib/testing/index.js';

const SECRET = 'c0ffee5ec2e7';
const HEX = Buffer.from(SECRET).toString('hex');
const CHANNELS = [
  'nbd:command:start',
  'nbd:command:end',
  'nbd:command:error',
  'nbd:connection:open',
  'nbd:connection:close',
];
const [ACK, UNKNOWN] = [1, 0x8000_0006];
const OPT = { EXPORT_NAME: 1, LIST: 3, STARTTLS: 5, INFO: 6, GO: 7, SETMETA: 10 } as const;

let log: string[] = [];
let published = 0;
const note = (value: unknown): void => {
  log.push(inspect(value, { depth: 6 }), String(value));
  if (value instanceof Error) log.push(value.stack ?? '', `${value.message} ${inspect(value.cause, { depth: 6 })}`);
  try {
    log.push(`json: ${JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? String(item) : item))}`);
  } catch {
    // What has a cycle cannot be logged so.
  }
};
const heard = (message: unknown): void => {
  published++;
  note(message);
};

beforeEach(() => {
  log = [];
  published = 0;
  for (const name of CHANNELS) subscribe(name, heard);
});
afterEach(() => {
  for (const name of CHANNELS) unsubscribe(name, heard);
});

/** A connection that logs everything, and runs every command until something fails. */
async function live(options: NbdConnectionOptions, dial: (connection: NbdConnection) => Promise<void>): Promise<void> {
  const connection = new NbdConnection({ debug: true, connectTimeout: 60_000, requestTimeout: 60_000, ...options });
  connection.setDebugCallback((context, message) => log.push(context, message));
  connection.on('close', note);
  connection.on('stateChange', (state, previous) => log.push(state, previous));
  note(connection);
  const steps: readonly (() => Promise<unknown>)[] = [
    () => dial(connection),
    () => connection.optInfo(),
    () => connection.optList(),
    () => connection.optSetMetaContext(),
    () => connection.optGo(),
    () => connection.pread(512, 0),
    () => connection.pwrite(Buffer.alloc(512), 2 ** 40),
    () => connection.blockStatus(512, 0),
  ];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      note(error);
    }
    note(connection);
  }
  connection.close();
  note(connection);
}

function expectNone(...secrets: string[]): void {
  expect(log.length).toBeGreaterThan(20);
  for (const secret of secrets) {
    const found = log.filter((text) => text.toLowerCase().includes(secret.toLowerCase()));
    expect({ secret, found }).toEqual({ secret, found: [] });
  }
}

const refusing = (text: string): OptionScript[] =>
  [OPT.GO, OPT.INFO, OPT.LIST, OPT.SETMETA].map((option) => on(option, optionReply(option, UNKNOWN, text)));
const IN_TURN = `no export '${SECRET}' here, nor "${SECRET}"`;

describe('a masked export name', () => {
  const servers: readonly [string, PeerScript, NbdConnectionOptions?][] = [
    ['when all goes well', {}],
    ['when a server repeats it in its refusals', { on: refusing(IN_TURN) }],
    ['when a server repeats it in option mode', { on: refusing(IN_TURN) }, { optMode: true }],
    ['when an oldstyle server cannot choose it', { structuredReplies: false, greet: oldstyle() }],
    ['when a plain newstyle server hangs up on it', { handshakeFlags: 0, on: [on(OPT.EXPORT_NAME, close())] }],
    ['when the server breaks the protocol', { on: [on(OPT.GO, [optionReply(3, ACK), stall()])] }],
    ['when the server hangs up', { on: [on(OPT.GO, close())] }],
    ['when TLS is refused', { on: [on(OPT.STARTTLS, optionReply(5, UNKNOWN, SECRET))] }, { tls: TLS_REQUIRE }],
    ['when a command fails', { structuredReplies: false, reply: ({ cookie }) => simpleReply(5, cookie) }],
    [
      'when the server repeats it in the error of a command',
      { reply: ({ cookie }) => chunk(1, 0x8001, cookie, join(u32(5), u16(SECRET.length), SECRET)) },
    ],
    ['when the server is not an NBD server', { greet: [greeting(3, 'NOTMAGIC'), stall()] }],
  ];
  it.each(servers.map(([when, script, options = {}]) => [when, script, options] as const))(
    'is not shown %s',
    async (_, script, options) => {
      await using peer = await ScriptedPeer.listen(script);
      await live({ exportName: SECRET, maskExportName: true, metaContexts: ['base:allocation'], ...options }, (c) =>
        c.connectUnix(peer.socketPath as string),
      );
      expectNone(SECRET);
      expect(log.some((text) => text.includes('***'))).toBe(true);
      // The server received the right one all the same, where the handshake got that far.
      const said = peer.connection.raw.toString();
      if (script.greet === undefined && options.tls === undefined) expect(said).toContain(SECRET);
    },
  );

  it('is not shown out of a URI, good or bad', async () => {
    await using peer = await ScriptedPeer.listen({ on: refusing(IN_TURN) });
    for (const uri of [
      peer.uri(SECRET),
      `nbd+unix:///${SECRET}?socket=/nonexistent/socket`,
      `nbd+unix:///${SECRET}`,
      `nbd://127.0.0.1:1/${SECRET}`,
      `nbd://127.0.0.1:99999/${SECRET}`,
      `nbd://127.0.0.1:1/${SECRET}%zz`,
      `nbd://127.0.0.1:1/${SECRET}%00`,
      `nbd://127.0.0.1:1/${SECRET.repeat(400)}`,
      `nbd://127.0.0.1:1/${SECRET}?tls-certificates=/etc`,
    ]) {
      await live({ maskExportName: true }, (connection) => connection.connectUri(uri));
    }
    expectNone(SECRET);
  });

  it('contains commands: the channels had subscribers', async () => {
    await using peer = await ScriptedPeer.listen();
    await live({ exportName: SECRET, maskExportName: true }, (c) => c.connectUnix(peer.socketPath as string));
    expect(published).toBeGreaterThanOrEqual(4);
  });
});

describe('key material', () => {
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'prime256v1',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: `not ${SECRET}` },
  });
  const body = privateKey.split('\n')[1] as string;

  it.each<[string, NbdConnectionOptions]>([
    ['a pre-shared key as bytes', { tlsPsk: { identity: 'alice', key: Buffer.from(SECRET) } }],
    ['a pre-shared key in hexadecimal', { tlsPsk: { identity: 'alice', key: HEX } }],
    ['a passphrase that is wrong', { key: privateKey, cert: privateKey, passphrase: SECRET }],
    ['a passphrase without a key', { passphrase: SECRET }],
    ['an invalid key', { key: `-----BEGIN PRIVATE KEY-----\n${SECRET}\n`, cert: SECRET }],
  ])('%s is not shown, whatever becomes of TLS', async (_, options) => {
    for (const steps of [
      [optionReply(OPT.STARTTLS, ACK), Buffer.alloc(100, 'x'), stall()],
      [optionReply(OPT.STARTTLS, ACK), close()],
      [optionReply(OPT.STARTTLS, UNKNOWN)],
    ]) {
      await using peer = await ScriptedPeer.listen({ on: [on(OPT.STARTTLS, steps)] });
      await live({ tls: TLS_REQUIRE, tlsHostname: 'localhost', ...options }, (c) =>
        c.connectUnix(peer.socketPath as string),
      );
    }
    const bytes = Buffer.from(SECRET);
    expectNone(SECRET, HEX, body, bytes.toString('base64'), [...bytes].join(', '), HEX.match(/../g)?.join(' ') ?? '');
  });
});

describe('a password in a URI', () => {
  it.each(['nbd', 'nbds', 'nbd+unix', 'nbd+ssh', 'nbd+vsock'])('is refused and not repeated (%s)', async (scheme) => {
    await live({}, (connection) => connection.connectUri(`${scheme}://alice:${SECRET}@h:1/x?socket=/s`));
    expectNone(SECRET);
  });
});
