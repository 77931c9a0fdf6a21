import { describe, expect, it } from '@jest/globals';

import { NbdOptionError } from '../../lib/errors.js';
import { type HandshakeEffect, START_TLS } from '../../lib/protocol/handshake/effects.js';
import { negotiate } from '../../lib/protocol/handshake/negotiate.js';
import { encodeAbort, startTls } from '../../lib/protocol/handshake/opt-simple.js';
import { caught } from '../support/caught.js';
import * as g from '../support/golden.js';
import { type HandshakeCase, negotiateEveryWay, sessionOf } from './handshaking.js';

const { cat, greeting, option, OPT, reply, u16, u32 } = g;

const run = (title: string, each: HandshakeCase): void => {
  it(title, () => {
    negotiateEveryWay(each);
  });
};
const FLAGS = u32(3);
const ASK_SR = option(OPT.STRUCTURED_REPLY);
const ASK_EXT = option(OPT.EXTENDED);
const ASK_GO = option(OPT.GO, cat(u32(0), u16(1), u16(3)));
const SR = reply(OPT.STRUCTURED_REPLY, g.ACK);
const EXT = reply(OPT.EXTENDED, g.ACK);
const WENT = cat(reply(OPT.GO, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)), reply(OPT.GO, g.ACK));
const HELLO = greeting(3);

describe('the order of options', () => {
  run('structured replies, GO', { turns: [HELLO, SR, WENT], sends: cat(FLAGS, ASK_SR, ASK_GO) });
  run('extended headers bring structured replies with them', {
    request: { extendedHeaders: true },
    turns: [HELLO, EXT, WENT],
    sends: cat(FLAGS, ASK_EXT, ASK_GO),
    session: { negotiated: { extendedHeaders: true, structuredReplies: true }, optionsSent: 2 },
  });
  run('where they are refused, structured replies are asked for', {
    request: { extendedHeaders: true },
    turns: [HELLO, reply(OPT.EXTENDED, g.ERR_UNSUP), SR, WENT],
    sends: cat(FLAGS, ASK_EXT, ASK_SR, ASK_GO),
    session: { negotiated: { extendedHeaders: false, structuredReplies: true }, optionsSent: 3 },
  });
  run('extended headers are not asked for without structured replies', {
    request: { extendedHeaders: true, structuredReplies: false },
    turns: [HELLO, WENT],
    sends: cat(FLAGS, ASK_GO),
    session: { negotiated: { extendedHeaders: false, structuredReplies: false } },
  });
  run('contexts come after structured replies and before GO', {
    request: { metaContexts: ['base:allocation'], exportName: 'x' },
    turns: [
      ...[HELLO, SR],
      cat(reply(OPT.SET_META, g.META, g.metaContext(5, 'base:allocation')), reply(OPT.SET_META, g.ACK)),
      WENT,
    ],
    sends: cat(
      ...[FLAGS, ASK_SR],
      option(OPT.SET_META, cat(u32(1), 'x', u32(1), u32(15), 'base:allocation')),
      option(OPT.GO, cat(u32(1), 'x', u16(1), u16(3))),
    ),
    session: { negotiated: { contexts: new Map([[5, 'base:allocation']]) } },
  });
  run('no contexts are asked for without structured replies', {
    request: { metaContexts: ['base:allocation'] },
    turns: [HELLO, reply(OPT.STRUCTURED_REPLY, g.ERR_UNSUP), WENT],
    sends: cat(FLAGS, ASK_SR, ASK_GO),
    session: { negotiated: { contexts: new Map() } },
  });
  run('nor where the user does not want them', {
    request: { metaContexts: ['base:allocation'], metaContext: false },
    turns: [HELLO, SR, WENT],
    sends: cat(FLAGS, ASK_SR, ASK_GO),
  });
  run('option mode stops before contexts', {
    request: { metaContexts: ['base:allocation'], optMode: true },
    turns: [HELLO, SR],
    sends: cat(FLAGS, ASK_SR),
    returns: 'negotiating',
    session: { info: null, negotiated: { structuredReplies: true, contexts: null } },
  });
});

describe('replies to options', () => {
  run('an unknown error: no structured replies, then', {
    turns: [HELLO, reply(OPT.STRUCTURED_REPLY, 0x800000ff), WENT],
    session: { negotiated: { structuredReplies: false } },
  });

  it.each<[string, Buffer, RegExp]>([
    [
      'not the reply magic',
      Buffer.alloc(8),
      /NBD_OPT_GO: the server sent 0x0000000000000000 in place of the reply magic/,
    ],
    ['for another option', reply(OPT.LIST, g.ACK), /NBD_OPT_GO: the server sent a reply to NBD_OPT_LIST/],
    ['of another kind', reply(OPT.GO, g.SERVER, cat(u32(1), 'a')), /NBD_REP_SERVER/],
    ['of an unknown type', reply(OPT.GO, 77), /0x4d/],
    ['an ACK with data', reply(OPT.GO, g.ACK, 'abcd'), /an ACK with 4 bytes/],
    // By their headers alone: nothing of such a length may be waited for.
    ['an error text of 4 GiB', head(OPT.GO, g.ERR_POLICY, 0xffffffff), /an error text of 4294967295 bytes/],
    ['an error text of 4097 bytes', head(OPT.GO, g.ERR_POLICY, 4097), /an error text of 4097 bytes/],
    ['information of more than 64 MiB', head(OPT.GO, g.INFO, (64 << 20) + 1), /NBD_REP_INFO of 67108865 bytes/],
  ])('%s: the connection ends', (_title, bytes, says) => {
    negotiateEveryWay({ turns: [HELLO, SR, bytes], fails: { name: 'NbdProtocolError', code: 'EPROTO', says } });
  });

  run('two ACKs to one option', {
    turns: [HELLO, cat(SR, SR), SR],
    fails: { name: 'NbdProtocolError', code: 'EPROTO' },
  });

  function head(number: number, type: number, length: number): Buffer {
    return cat(reply(number, type).subarray(0, 16), u32(length));
  }
});

describe('a refused GO', () => {
  it.each<[string, number, string, RegExp]>([
    ['POLICY', g.ERR_POLICY, 'EACCES', /does not permit/],
    ['INVALID', g.ERR_INVALID, 'EINVAL', /invalid/],
    ['PLATFORM', g.ERR_PLATFORM, 'ENOTSUP', /platform/],
    ['TLS_REQD', g.ERR_TLS_REQD, 'ENOTSUP', /requires TLS first.*nbds:\/\//],
    ['UNKNOWN', g.ERR_UNKNOWN, 'ENOENT', /has no such export/],
    ['SHUTDOWN', g.ERR_SHUTDOWN, 'ESHUTDOWN', /shutting down/],
    ['BLOCK_SIZE_REQD', g.ERR_BLOCK_SIZE_REQD, 'EINVAL', /block sizes/],
    ['TOO_BIG', g.ERR_TOO_BIG, 'EINVAL', /too big/],
    ['EXT_HEADER_REQD', g.ERR_EXT_HEADER_REQD, 'ENOTSUP', /extended headers/],
    ['an unknown error', 0x800000ff, 'EINVAL', /refused it \(reply type 0x800000ff\)/],
  ])('%s', (_name, type, code, says) => {
    const about = /^NBD_OPT_GO for export "disk": /;
    const request = { exportName: 'disk' };
    negotiateEveryWay({
      request,
      turns: [HELLO, SR, reply(OPT.GO, type)],
      fails: { name: 'NbdOptionError', code, says },
    });
    negotiateEveryWay({
      ...{ request, turns: [HELLO, SR, reply(OPT.GO, type, 'because')], session: { info: null } },
      fails: {
        name: 'NbdOptionError',
        code,
        says: new RegExp(`${about.source}.*: "because"`),
        serverMessage: 'because',
      },
    });
  });

  run('with a text that is none', {
    turns: [HELLO, SR, reply(OPT.GO, g.ERR_POLICY, Buffer.from('\x1b[2J\x07\0\xff\xfe ok', 'latin1'))],
    fails: { code: 'EACCES', serverMessage: '\\x1b[2J\\x07\\x00\\xff\\xfe ok' },
  });
  run('with a text of 4096 bytes', {
    turns: [HELLO, SR, reply(OPT.GO, g.ERR_POLICY, 'x'.repeat(4096))],
    fails: { code: 'EACCES', serverMessage: 'x'.repeat(4096) },
  });
  run('does not name the export for other options, and no way out where TLS was tried', {
    request: { optMode: true },
    run: function* (session) {
      const refusal = yield* startTls(session);
      throw refusal ?? new Error('not refused');
    },
    turns: [reply(OPT.STARTTLS, g.ERR_TLS_REQD)],
    fails: { code: 'ENOTSUP', says: /^NBD_OPT_STARTTLS: the server requires TLS first/ },
  });
  run('SHUTDOWN to the contexts ends the handshake as well', {
    request: { metaContexts: ['base:allocation'] },
    turns: [HELLO, SR, reply(OPT.SET_META, g.ERR_SHUTDOWN)],
    fails: { name: 'NbdOptionError', code: 'ESHUTDOWN' },
  });
});

describe('STARTTLS', () => {
  /** Runs a handshake on the given bytes and returns its effects: bytes sent in hexadecimal, and START_TLS. */
  function drive(
    tls: number,
    bytes: Buffer,
  ): { effects: string[]; session: ReturnType<typeof sessionOf>; end: unknown } {
    const session = sessionOf({ tls });
    const handshake = negotiate(session);
    const effects: string[] = [];
    let at = 0;
    let end: unknown;
    try {
      let step = handshake.next(Buffer.alloc(0));
      while (step.done !== true) {
        const effect: HandshakeEffect = step.value;
        let input = Buffer.alloc(0);
        if (effect === START_TLS) effects.push('TLS');
        else if (typeof effect === 'number') input = bytes.subarray(at, (at += effect)) as typeof input;
        else if (typeof effect === 'function') effects.push('wait');
        else effects.push(Buffer.from(effect).toString('hex'));
        step = handshake.next(input);
      }
      end = step.value;
    } catch (error) {
      end = error;
    }
    return { effects, session, end };
  }
  const ASK_TLS = option(OPT.STARTTLS).toString('hex');
  const ACKED = reply(OPT.STARTTLS, g.ACK);

  it.each([1, 2])('comes first (TLS %d), and everything else inside', (tls) => {
    const { effects, session, end } = drive(tls, cat(HELLO, ACKED, SR, WENT));
    expect(end).toBe('transmission');
    expect(effects).toEqual(['00000003', ASK_TLS, 'TLS', ASK_SR.toString('hex'), ASK_GO.toString('hex')]);
    expect(session.negotiated).toMatchObject({ tls: true, structuredReplies: true });
  });

  it('refused: where it is allowed the handshake goes on in plaintext', () => {
    const { effects, session, end } = drive(1, cat(HELLO, reply(OPT.STARTTLS, g.ERR_UNSUP), SR, WENT));
    expect(end).toBe('transmission');
    expect(effects).toEqual(['00000003', ASK_TLS, ASK_SR.toString('hex'), ASK_GO.toString('hex')]);
    expect(session.negotiated.tls).toBe(false);
  });

  it('refused: where it is required nothing more is sent', () => {
    const { effects, end } = drive(2, cat(HELLO, reply(OPT.STARTTLS, g.ERR_POLICY)));
    expect(end).toBeInstanceOf(NbdOptionError);
    expect(effects).toEqual(['00000003', ASK_TLS]);
  });

  it('an ACK with data is refused', () => {
    const { effects, end } = drive(1, cat(HELLO, reply(OPT.STARTTLS, g.ACK, 'abcd')));
    expect(end).toMatchObject({ code: 'EPROTO' });
    expect(effects).not.toContain('TLS');
  });

  it('forgets what was negotiated before it', () => {
    const session = sessionOf({ tls: 2 });
    session.negotiated.structuredReplies = true;
    session.negotiated.extendedHeaders = true;
    session.negotiated.contexts = new Map([[1, 'base:allocation']]);
    session.info = { size: 1, flags: 1, blockSizes: null, canonicalName: null, description: null };
    const handshake = startTls(session);
    handshake.next(Buffer.alloc(0));
    for (const part of [ACKED.subarray(0, 0), ACKED.subarray(0, 8), ACKED.subarray(8)]) handshake.next(part);
    expect(handshake.next(Buffer.alloc(0))).toEqual({ done: true, value: null });
    expect(session).toMatchObject({
      info: null,
      negotiated: { tls: true, structuredReplies: false, extendedHeaders: false, contexts: null },
    });
  });

  it('is not sent twice', () => {
    const session = sessionOf({ tls: 2 });
    session.negotiated.tls = true;
    expect(caught(() => startTls(session).next(Buffer.alloc(0)))).toMatchObject({ code: 'EINVAL' });
  });
});

describe('encodeAbort', () => {
  it('is an option without data', () => {
    expect(encodeAbort().toString('hex')).toBe('49484156454f50540000000200000000');
  });
});
