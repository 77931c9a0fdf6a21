// Where TLS is required there is no way round it: whatever a server sends in plaintext, the client sends nothing of
// NBD that is worth reading, and no server can make it go on. Each server is tried with a setting and with an nbds URI.

import { describe, expect, it } from '@jest/globals';

import { NbdConnection, NbdError, TLS_DISABLE, TLS_REQUIRE } from '../../lib/index.js';
import {
  greeting,
  join,
  oldstyle,
  on,
  optionReply,
  type PeerScript,
  ScriptedPeer,
  stall,
} from '../../lib/testing/index.js';
import { rejection } from '../support/caught.js';

const STARTTLS = 5;
const NAME = 'the-name-of-the-export';
const refusing = (type: number, text = ''): PeerScript => ({ on: [on(STARTTLS, optionReply(STARTTLS, type, text))] });

const option = (number: number): string => `49484156454f5054${number.toString(16).padStart(8, '0')}00000000`;
/** Client flags, STARTTLS and NBD_OPT_ABORT: all that may be on the wire. */
const STARTED = `00000003${option(5)}`;
const GOODBYE = `${STARTED}${option(2)}`;

const SERVERS: readonly (readonly [string, PeerScript, string])[] = [
  ['speaks the oldstyle handshake', { greet: [oldstyle(), stall()] }, ''],
  ['clears FIXED_NEWSTYLE', { handshakeFlags: 2 }, ''],
  ['clears all handshake flags', { handshakeFlags: 0 }, ''],
  ['does not know STARTTLS', refusing(0x8000_0001), GOODBYE],
  ['refuses STARTTLS by its policy', refusing(0x8000_0002, 'go on in clear'), GOODBYE],
  ['finds STARTTLS invalid', refusing(0x8000_0003), GOODBYE],
  ['has no TLS on its platform', refusing(0x8000_0004), GOODBYE],
  ['demands TLS and refuses it', refusing(0x8000_0005), GOODBYE],
  ['is shutting down', refusing(0x8000_0007), GOODBYE],
  ['refuses for an unknown reason', refusing(0xffff_ffff), GOODBYE],
  ['acknowledges something else', { on: [on(STARTTLS, [optionReply(8, 1), stall()])] }, STARTED],
  ['answers with an unknown type', { on: [on(STARTTLS, [optionReply(STARTTLS, 3), stall()])] }, STARTED],
  [
    'acknowledges and goes on in clear at once',
    { on: [on(STARTTLS, [join(optionReply(STARTTLS, 1), optionReply(8, 1), optionReply(7, 1)), stall()])] },
    STARTED,
  ],
  [
    'has its greeting followed by replies',
    { greet: [join(greeting(), optionReply(STARTTLS, 0x8000_0001)), stall()] },
    '',
  ],
];

const WAYS: readonly (readonly [string, (peer: ScriptedPeer) => Promise<NbdConnection>])[] = [
  [
    'tls: TLS_REQUIRE',
    (peer) =>
      NbdConnection.connect(
        { path: peer.socketPath as string },
        { tls: TLS_REQUIRE, exportName: NAME, connectTimeout: 60_000 },
      ),
  ],
  ['an nbds URI', (peer) => NbdConnection.connect(peer.uri(NAME).replace('nbd', 'nbds'), { connectTimeout: 60_000 })],
  [
    'an nbds URI, although the setting was TLS_DISABLE',
    (peer) =>
      NbdConnection.connect(peer.uri(NAME).replace('nbd', 'nbds'), { tls: TLS_DISABLE, connectTimeout: 60_000 }),
  ],
  [
    'a client that would not use the fixed newstyle',
    (peer) =>
      NbdConnection.connect(
        { path: peer.socketPath as string },
        { tls: TLS_REQUIRE, exportName: NAME, handshakeFlags: 0, connectTimeout: 60_000 },
      ),
  ],
];

it('an oldstyle server is left also where no export was named, so that it could serve the one it has', async () => {
  await using peer = await ScriptedPeer.listen({ greet: [oldstyle()] });
  const error = await rejection(NbdConnection.connect({ path: peer.socketPath as string }, { tls: TLS_REQUIRE }));
  expect(error).toMatchObject({ code: 'ENOTSUP', message: expect.stringMatching(/TLS is required/) });
  await peer.connection.done;
  expect(peer.connection.raw.length).toBe(0);
});

describe.each(WAYS)('with %s', (way, connect) => {
  it.each(SERVERS)('a server that %s is left, and hears nothing more', async (_, script, expected) => {
    await using peer = await ScriptedPeer.listen(script);
    const error = await rejection(connect(peer));
    await peer.connection.done;
    expect(error).toBeInstanceOf(NbdError);
    expect((error as NbdError).code).toMatch(/^(ENOTSUP|EPROTO)$/);
    const said = peer.connection.raw.toString('hex');
    // Without the fixed newstyle there is no STARTTLS, so that not even the flags may be sent.
    expect(said).toBe(way.startsWith('a client') ? '' : expected);
    expect(peer.connection.raw.includes(NAME)).toBe(false);
  });
});
