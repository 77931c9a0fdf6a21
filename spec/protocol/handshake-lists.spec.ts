import { describe, expect, it } from '@jest/globals';

import { list } from '../../lib/protocol/handshake/opt-list.js';
import { listMetaContext, setMetaContext } from '../../lib/protocol/handshake/opt-meta-context.js';
import * as g from '../support/golden.js';
import { type HandshakeCase, negotiateEveryWay, sessionOf } from './handshaking.js';

const { cat, OPT, option, reply, u32 } = g;

const run = (title: string, each: HandshakeCase): void => {
  it(title, () => {
    negotiateEveryWay(each);
  });
};

describe('LIST', () => {
  const one = (name: string, description = ''): Buffer =>
    reply(OPT.LIST, g.SERVER, cat(u32(Buffer.byteLength(name)), name, description));
  const ACK = reply(OPT.LIST, g.ACK);
  const listing = (title: string, turn: Buffer, over: Partial<HandshakeCase>): void => {
    run(title, { run: list, turns: [turn], sends: option(OPT.LIST), ...over });
  };

  listing('of nothing', ACK, { returns: [] });
  listing('of names and descriptions', cat(one(''), one('a', 'the first'), one('dïsk')), {
    turns: [cat(one(''), one('a', 'the first'), one('dïsk'), ACK)],
    returns: [
      { name: '', description: '' },
      { name: 'a', description: 'the first' },
      { name: 'dïsk', description: '' },
    ],
  });
  listing('of the longest name', cat(one('n'.repeat(4096)), ACK), {
    returns: [{ name: 'n'.repeat(4096), description: '' }],
  });
  listing('refused', reply(OPT.LIST, g.ERR_POLICY, 'not for you'), {
    returns: expect.objectContaining({ name: 'NbdOptionError', code: 'EACCES', serverMessage: 'not for you' }),
  });
  listing('refused half-way', cat(one('a'), reply(OPT.LIST, g.ERR_SHUTDOWN)), {
    returns: expect.objectContaining({ code: 'ESHUTDOWN' }),
  });

  it.each<[string, Buffer, RegExp]>([
    ['a reply of 3 bytes', reply(OPT.LIST, g.SERVER, 'abc'), /an export of 3 bytes/],
    [
      'a name that runs past the reply',
      reply(OPT.LIST, g.SERVER, cat(u32(100), 'abc')),
      /name of 100 bytes in a reply of 7/,
    ],
    [
      'a name of 4 GiB',
      reply(OPT.LIST, g.SERVER, cat(u32(0xffffffff), 'abc')),
      /name of 4294967295 bytes in a reply of 7/,
    ],
    ['a name of 4097 bytes', one('n'.repeat(4097)), /export name of 4097 bytes/],
    ['a description of 4097 bytes', one('n', 'd'.repeat(4097)), /export description of 4097 bytes/],
    ['information', reply(OPT.LIST, g.INFO, g.infoExport(0, 1)), /NBD_REP_INFO/],
  ])('%s: the connection ends', (_title, turn, says) => {
    negotiateEveryWay({ run: list, turns: [turn], fails: { name: 'NbdProtocolError', code: 'EPROTO', says } });
  });

  /** Answers the generator for ever with the same reply; returns how it ended and after how many replies. */
  function endless(each: Buffer, replies: number): { end: unknown; asked: number } {
    const handshake = list(sessionOf());
    let step = handshake.next(Buffer.alloc(0));
    let asked = 0;
    let at = 0;
    let bytes = each;
    try {
      while (step.done !== true) {
        const wanted = step.value;
        if (typeof wanted !== 'number') {
          step = handshake.next(Buffer.alloc(0));
          continue;
        }
        if (at === bytes.length) {
          at = 0;
          if (++asked === replies) bytes = ACK;
        }
        const take = bytes.subarray(at, at + wanted) as Buffer<ArrayBuffer>;
        at += take.length;
        step = handshake.next(take);
      }
      return { end: step.value, asked };
    } catch (error) {
      return { end: error, asked };
    }
  }

  it('of 10,000 exports is taken, of one more is refused when it ends', () => {
    expect(endless(one('evil', 'x'), 10_000).end).toHaveLength(10_000);
    expect(endless(one('evil', 'x'), 10_001).end).toMatchObject({
      code: 'EOVERFLOW',
      message: expect.stringMatching(/10001 exports, more than the 10000/),
    });
  });

  it('without end ends the connection', () => {
    const { end, asked } = endless(one('evil'), Infinity);
    expect(end).toMatchObject({ name: 'NbdProtocolError', code: 'EPROTO' });
    expect(asked).toBeLessThanOrEqual(1_000_001);
  });
});

describe('SET_META_CONTEXT', () => {
  const one = (id: number, name: string): Buffer => reply(OPT.SET_META, g.META, g.metaContext(id, name));
  const ACK = reply(OPT.SET_META, g.ACK);
  const setting = (title: string, turn: Buffer, over: Partial<HandshakeCase>): void => {
    run(title, {
      ...{ request: { exportName: 'x' }, run: (session) => setMetaContext(session, ['base:allocation', 'a:b']) },
      ...{ turns: [turn], ...over },
    });
  };

  setting('requests each', cat(one(7, 'base:allocation'), one(0xffffffff, 'a:b'), ACK), {
    sends: option(OPT.SET_META, cat(u32(1), 'x', u32(2), u32(15), 'base:allocation', u32(3), 'a:b')),
    returns: ['base:allocation', 'a:b'],
    session: {
      negotiated: {
        contexts: new Map([
          [7, 'base:allocation'],
          [0xffffffff, 'a:b'],
        ]),
      },
    },
  });
  setting('of which the server has none', ACK, { returns: [], session: { negotiated: { contexts: new Map() } } });
  setting('refused', reply(OPT.SET_META, g.ERR_UNSUP), {
    before: (session) => (session.negotiated.contexts = new Map([[1, 'old:one']])),
    returns: expect.objectContaining({ code: 'ENOTSUP' }),
    session: { negotiated: { contexts: new Map() } },
  });
  setting('refused half-way: none is selected', cat(one(1, 'a:b'), reply(OPT.SET_META, g.ERR_INVALID)), {
    returns: expect.objectContaining({ code: 'EINVAL' }),
    session: { negotiated: { contexts: new Map() } },
  });
  setting('with a name of 4096 bytes', cat(one(1, `a:${'b'.repeat(4094)}`), ACK), {
    returns: [`a:${'b'.repeat(4094)}`],
  });

  it.each<[string, Buffer, RegExp]>([
    ['one ID twice', cat(one(1, 'base:allocation'), one(1, 'x-a:b')), /context ID 1 for base:allocation and x-a:b/],
    ['a reply of 2 bytes', reply(OPT.SET_META, g.META, 'ab'), /a context of 2 bytes/],
    ['an ID without a name', reply(OPT.SET_META, g.META, u32(1)), /a context of 4 bytes/],
    ['a name of 4097 bytes', one(1, `base:${'x'.repeat(4092)}`), /context name of 4097 bytes/],
    ['1001 contexts', cat(...Array.from({ length: 1001 }, (_, i) => one(i, 'a:b'))), /more than 1000 contexts/],
  ])('%s: the connection ends', (_title, turn, says) => {
    negotiateEveryWay({
      ...{ run: (session) => setMetaContext(session, []), turns: [turn] },
      ...{
        fails: { name: 'NbdProtocolError', code: 'EPROTO', says },
        session: { negotiated: { contexts: new Map() } },
      },
    });
  });
});

describe('LIST_META_CONTEXT', () => {
  const one = (id: number, name: string): Buffer => reply(OPT.LIST_META, g.META, g.metaContext(id, name));
  run('disregards IDs', {
    request: { exportName: 'x' },
    run: (session) => listMetaContext(session, []),
    turns: [cat(one(77, 'base:'), one(77, 'qemu:'), reply(OPT.LIST_META, g.ACK))],
    sends: option(OPT.LIST_META, cat(u32(1), 'x', u32(0))),
    returns: ['base:', 'qemu:'],
    session: { negotiated: { contexts: null } },
  });
  run('disregards what came before an error', {
    run: (session) => listMetaContext(session, ['base:']),
    turns: [cat(one(0, 'base:allocation'), reply(OPT.LIST_META, g.ERR_POLICY))],
    sends: option(OPT.LIST_META, cat(u32(0), u32(1), u32(5), 'base:')),
    returns: expect.objectContaining({ code: 'EACCES' }),
  });
});
