import { describe, it } from '@jest/globals';

import * as g from '../support/golden.js';
import { type HandshakeCase, negotiateEveryWay } from './handshaking.js';

const { cat, greeting, oldstyle, option, OPT, reply, u16, u32, u64 } = g;
const MIB = 1 << 20;

const run = (title: string, each: HandshakeCase): void => {
  it(title, () => {
    negotiateEveryWay(each);
  });
};

/** The export by EXPORT_NAME, with or without the zeroes. */
const exported = (zeroes: boolean): Buffer => cat(u64(MIB), u16(g.ALL_FLAGS), Buffer.alloc(zeroes ? 124 : 0));
const GO = cat(u32(0), u16(1), u16(3));
const WENT = cat(reply(OPT.GO, g.INFO, g.infoExport(MIB, g.ALL_FLAGS)), reply(OPT.GO, g.ACK));
const GRANTED = reply(OPT.STRUCTURED_REPLY, g.ACK);

describe('fixed newstyle', () => {
  run('is answered with both flags, then structured replies and GO', {
    turns: [greeting(3), GRANTED, WENT],
    sends: cat(u32(3), option(OPT.STRUCTURED_REPLY), option(OPT.GO, GO)),
    session: { protocol: 'newstyle-fixed', noZeroes: true, optionsSent: 2 },
  });
  run('without NO_ZEROES is answered without it', {
    turns: [greeting(1), GRANTED, WENT],
    sends: cat(u32(1), option(OPT.STRUCTURED_REPLY), option(OPT.GO, GO)),
    session: { protocol: 'newstyle-fixed', noZeroes: false },
  });
  run('with flags that nobody knows is answered without them', {
    turns: [greeting(0xffff), GRANTED, WENT],
    sends: cat(u32(3), option(OPT.STRUCTURED_REPLY), option(OPT.GO, GO)),
  });
  run('is answered with the flags that the user permits', {
    request: { handshakeFlags: 1 },
    turns: [greeting(3), GRANTED, WENT],
    sends: cat(u32(1), option(OPT.STRUCTURED_REPLY), option(OPT.GO, GO)),
  });
  run('hands on what comes behind the last reply', {
    turns: [greeting(3), GRANTED, cat(WENT, 'gF')],
    rest: Buffer.from('gF'),
  });
});

describe('plain newstyle', () => {
  run('knows EXPORT_NAME only', {
    request: { exportName: 'disk' },
    turns: [greeting(0), exported(true)],
    sends: cat(u32(0), option(OPT.EXPORT_NAME, 'disk')),
    session: {
      ...{ protocol: 'newstyle', info: { size: MIB, flags: g.ALL_FLAGS & ~g.SEND_DF, blockSizes: null } },
      negotiated: { structuredReplies: false, contexts: new Map() },
    },
  });
  run('with NO_ZEROES', {
    turns: [greeting(2), exported(false)],
    sends: cat(u32(2), option(OPT.EXPORT_NAME)),
    rest: Buffer.alloc(0),
  });
  run('because the user permits no more', {
    request: { handshakeFlags: 2 },
    turns: [greeting(3), exported(false)],
    sends: cat(u32(2), option(OPT.EXPORT_NAME)),
    session: { protocol: 'newstyle' },
  });
  run('is refused where TLS is required, before a byte is sent', {
    request: { tls: 2 },
    turns: [greeting(0)],
    sends: Buffer.alloc(0),
    fails: { name: 'NbdConnectionError', code: 'ENOTSUP', says: /TLS is required.*fixed newstyle/ },
  });
});

describe('oldstyle', () => {
  run('opens its export at once', {
    turns: [oldstyle(MIB, g.HAS_FLAGS | g.SEND_FLUSH)],
    sends: Buffer.alloc(0),
    session: { protocol: 'oldstyle', info: { size: MIB, flags: 5, blockSizes: null }, optionsSent: 0 },
    rest: Buffer.alloc(0),
  });
  run('in option mode, too', { request: { optMode: true }, turns: [oldstyle(MIB, 1)] });
  run('of the largest size', { turns: [oldstyle(2n ** 64n - 1n, 1)], session: { info: { size: 2n ** 64n - 1n } } });
  run('cannot choose an export', {
    request: { exportName: 'disk' },
    turns: [oldstyle(MIB, 1)],
    fails: {
      name: 'NbdConnectionError',
      code: 'ENOTSUP',
      says: /oldstyle handshake, which cannot select an export by name \("disk"\)/,
    },
  });
  run('with global flags', {
    turns: [oldstyle(MIB, 1, 3)],
    fails: { name: 'NbdProtocolError', code: 'EPROTO', says: /global flags 0x3 in an oldstyle greeting/ },
  });
  run('without transmission flags', {
    turns: [oldstyle(MIB, 0)],
    fails: { name: 'NbdProtocolError', code: 'EPROTO', says: /no transmission flags/ },
  });
  run('is refused where TLS is required, by its magic alone', {
    request: { tls: 2 },
    turns: [oldstyle(MIB, 1).subarray(0, 16)],
    sends: Buffer.alloc(0),
    fails: { name: 'NbdConnectionError', code: 'ENOTSUP', says: /TLS is required.*oldstyle/ },
  });
});

describe('bytes that are not a greeting', () => {
  run('another protocol', {
    turns: [Buffer.from('SSH-2.0-')],
    sends: Buffer.alloc(0),
    fails: { name: 'NbdProtocolError', code: 'EPROTO', says: /not an NBD server: it greets with 0x5353482d322e302d/ },
  });
  run('another version', {
    turns: [cat('NBDMAGIC', 'IHAVEOPS')],
    sends: Buffer.alloc(0),
    fails: { name: 'NbdProtocolError', code: 'EPROTO', says: /unknown handshake version 0x494841564/ },
  });
  run('a greeting twice', {
    turns: [cat(greeting(3), greeting(3))],
    fails: { name: 'NbdProtocolError', code: 'EPROTO' },
  });
  run('a reply to an option that nobody has sent', {
    turns: [cat(greeting(3), GRANTED), GRANTED],
    fails: { name: 'NbdProtocolError', code: 'EPROTO' },
  });
  run('a reply that came before its option was sent, although it would fit', {
    isWhole: true,
    turns: [cat(greeting(3), GRANTED), WENT],
    sends: Buffer.alloc(0),
    fails: { name: 'NbdProtocolError', code: 'EPROTO', says: /sent 20 bytes before the next option was sent/ },
  });
  run('an export that is described before it was requested', {
    isWhole: true,
    turns: [greeting(3), cat(GRANTED, WENT)],
    sends: cat(u32(3), option(OPT.STRUCTURED_REPLY)),
    fails: { name: 'NbdProtocolError', code: 'EPROTO', says: /before the next option was sent/ },
  });
});
