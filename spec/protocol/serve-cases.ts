// What a client sends after the greeting, good or hostile, and what the server answers: the rows of serve.spec.ts.

import * as g from '../support/golden.js';
import {
  ack,
  type Case,
  EXTENDED,
  exportOffer,
  go,
  infoRequest,
  known,
  metaRequest,
  refused,
  SIZE,
  STRUCTURED,
} from './serving.js';

const { OPT, cat, option, reply, u16, u32 } = g;
const NOT_SERVED = (name: string): string => `NBD_OPT_${name} is not served here`;

export const CASES: readonly Case[] = [
  {
    name: 'EXPORT_NAME without zeroes',
    input: option(OPT.EXPORT_NAME, 'a'),
    output: cat(g.u64(SIZE), u16(1)),
    state: 'session',
  },
  { name: 'GO to the default export', input: go(''), output: known(OPT.GO), state: 'session' },
  {
    name: 'INFO with everything, then GO',
    input: cat(option(OPT.INFO, infoRequest('a', [1, 2, 3, 3, 77])), go('a')),
    output: cat(
      reply(OPT.INFO, g.INFO, g.infoExport(SIZE, 1)),
      reply(OPT.INFO, g.INFO, g.infoName('a')),
      reply(OPT.INFO, g.INFO, g.infoDescription('the first')),
      reply(OPT.INFO, g.INFO, g.infoBlockSize(1, 4096, 1 << 25)),
      ack(OPT.INFO),
      known(OPT.GO),
    ),
    state: 'session',
  },
  {
    name: 'INFO that requests the description of an export without one',
    input: option(OPT.INFO, infoRequest('', [2])),
    output: known(OPT.INFO),
    state: 'open',
  },
  {
    name: 'GO without block sizes to an export that insists on them: they come before the error',
    offer: { exports: [exportOffer('', { requireBlockSize: true })] },
    input: cat(go(''), go('', 3)),
    output: cat(
      reply(OPT.GO, g.INFO, g.infoBlockSize(1, 4096, 1 << 25)),
      refused(OPT.GO, g.ERR_BLOCK_SIZE_REQD, 'ask for NBD_INFO_BLOCK_SIZE first'),
      reply(OPT.GO, g.INFO, g.infoExport(SIZE, 1)),
      reply(OPT.GO, g.INFO, g.infoBlockSize(1, 4096, 1 << 25)),
      ack(OPT.GO),
    ),
    state: 'session',
  },
  {
    name: 'an unknown export: the handshake goes on',
    input: cat(go('nowhere'), go('')),
    output: cat(refused(OPT.GO, g.ERR_UNKNOWN, "no export is named 'nowhere'"), known(OPT.GO)),
    state: 'session',
  },
  {
    name: 'LIST',
    input: option(OPT.LIST),
    output: cat(
      reply(OPT.LIST, g.SERVER, cat(u32(0))),
      reply(OPT.LIST, g.SERVER, cat(u32(1), 'a', 'the first')),
      ack(OPT.LIST),
    ),
    state: 'open',
  },
  {
    name: 'ABORT, with data that is to be ignored',
    input: option(OPT.ABORT, 'bye'),
    output: ack(OPT.ABORT),
    state: 'left',
  },
  {
    name: 'structured replies, then GO: DF is advertised',
    input: cat(STRUCTURED, go('')),
    output: cat(ack(OPT.STRUCTURED_REPLY), known(OPT.GO, g.HAS_FLAGS | g.SEND_DF)),
    state: 'session',
  },
  {
    name: 'extended headers win over structured replies',
    input: cat(EXTENDED, STRUCTURED, go('')),
    output: cat(
      ack(OPT.EXTENDED),
      refused(OPT.STRUCTURED_REPLY, g.ERR_EXT_HEADER_REQD, 'extended headers are on already'),
      known(OPT.GO, g.HAS_FLAGS | g.SEND_DF),
    ),
    state: 'session',
  },
  {
    name: 'extended headers, then EXPORT_NAME, which is forbidden',
    input: cat(EXTENDED, option(OPT.EXPORT_NAME, 'a')),
    output: ack(OPT.EXTENDED),
    state: 'broken',
    error: /EXPORT_NAME after/,
  },
  {
    name: 'an unknown option: its data is skipped',
    input: cat(option(99, 'whatever'), option(4), go('')),
    output: cat(
      refused(99, g.ERR_UNSUP, 'option 99 is not served here'),
      refused(4, g.ERR_UNSUP, 'option 4 is not served here'),
      known(OPT.GO),
    ),
    state: 'session',
  },
  {
    name: 'switched-off options',
    offer: {
      features: { list: 'POLICY', info: false, structuredReply: false, extendedHeaders: 'PLATFORM', go: 'SHUTDOWN' },
    },
    input: cat(option(OPT.LIST), option(OPT.INFO, infoRequest('', [])), STRUCTURED, EXTENDED, go('')),
    output: cat(
      refused(OPT.LIST, g.ERR_POLICY, NOT_SERVED('LIST')),
      refused(OPT.INFO, g.ERR_UNSUP, NOT_SERVED('INFO')),
      refused(OPT.STRUCTURED_REPLY, g.ERR_UNSUP, NOT_SERVED('STRUCTURED_REPLY')),
      refused(OPT.EXTENDED, g.ERR_PLATFORM, NOT_SERVED('EXTENDED_HEADERS')),
      refused(OPT.GO, g.ERR_SHUTDOWN, NOT_SERVED('GO')),
    ),
    state: 'open',
  },
  {
    name: 'switched-off information',
    offer: { features: { blockSizeInfo: false, nameInfo: false } },
    input: go('a', 1, 2, 3),
    output: known(OPT.GO),
    state: 'session',
  },
  {
    name: 'ABORT that is not acknowledged',
    offer: { features: { abort: false } },
    input: option(OPT.ABORT),
    output: Buffer.alloc(0),
    state: 'left',
  },
  {
    name: 'EXPORT_NAME that is not served',
    offer: { features: { exportName: false } },
    input: option(OPT.EXPORT_NAME),
    state: 'broken',
    error: /turned away/,
  },
  { name: 'EXPORT_NAME of nothing', input: option(OPT.EXPORT_NAME, 'nowhere'), state: 'broken', error: /not known/ },

  // Metadata contexts.
  {
    name: 'metadata contexts before structured replies',
    input: cat(option(OPT.LIST_META, metaRequest('')), option(OPT.SET_META, metaRequest(''))),
    output: cat(
      refused(OPT.LIST_META, g.ERR_INVALID, 'negotiate structured replies first'),
      refused(OPT.SET_META, g.ERR_INVALID, 'negotiate structured replies first'),
    ),
    state: 'open',
  },
  {
    name: 'LIST_META_CONTEXT: all, by namespace, exactly, and nothing',
    input: cat(
      STRUCTURED,
      option(OPT.LIST_META, metaRequest('a')),
      option(OPT.LIST_META, metaRequest('a', 'x-a:')),
      option(OPT.LIST_META, metaRequest('a', 'base:', 'x-a:two', 'x-a:two')),
      option(OPT.LIST_META, metaRequest('a', 'base:nonsense', 'x-c:', 'x-a')),
    ),
    output: cat(
      ack(OPT.STRUCTURED_REPLY),
      ...['base:allocation', 'x-a:one', 'x-a:two'].map((name) => reply(OPT.LIST_META, g.META, g.metaContext(0, name))),
      ack(OPT.LIST_META),
      ...['x-a:one', 'x-a:two'].map((name) => reply(OPT.LIST_META, g.META, g.metaContext(0, name))),
      ack(OPT.LIST_META),
      ...['base:allocation', 'x-a:two'].map((name) => reply(OPT.LIST_META, g.META, g.metaContext(0, name))),
      ack(OPT.LIST_META),
      ack(OPT.LIST_META),
    ),
    state: 'open',
  },
  {
    name: 'SET_META_CONTEXT: each exact name once, wildcards ignored, IDs from 1',
    input: cat(
      STRUCTURED,
      option(OPT.SET_META, metaRequest('a', 'x-a:two', 'base:', 'x-b:wide', 'base:allocation', 'x-a:two')),
      go('a'),
    ),
    output: cat(
      ack(OPT.STRUCTURED_REPLY),
      reply(OPT.SET_META, g.META, g.metaContext(1, 'x-a:two')),
      reply(OPT.SET_META, g.META, g.metaContext(2, 'base:allocation')),
      ack(OPT.SET_META),
      known(OPT.GO, g.HAS_FLAGS | g.SEND_DF | g.STATUS_PAYLOAD),
    ),
    state: 'session',
  },
  {
    name: 'SET_META_CONTEXT with extended headers: contexts with wide flags too',
    input: cat(EXTENDED, option(OPT.SET_META, metaRequest('', 'x-b:wide'))),
    output: cat(ack(OPT.EXTENDED), reply(OPT.SET_META, g.META, g.metaContext(1, 'x-b:wide')), ack(OPT.SET_META)),
    state: 'open',
  },
  {
    name: 'a SET_META_CONTEXT that fails forgets what the one before selected',
    input: cat(
      STRUCTURED,
      option(OPT.SET_META, metaRequest('a', 'base:allocation')),
      option(OPT.SET_META, metaRequest('nowhere', 'base:allocation')),
      go('a'),
    ),
    output: cat(
      ack(OPT.STRUCTURED_REPLY),
      reply(OPT.SET_META, g.META, g.metaContext(1, 'base:allocation')),
      ack(OPT.SET_META),
      refused(OPT.SET_META, g.ERR_UNKNOWN, "no export is named 'nowhere'"),
      known(OPT.GO, g.HAS_FLAGS | g.SEND_DF),
    ),
    state: 'session',
  },

  // Hostile clients: V01 to V08 of spec/README.md.
  { name: 'V02 a wrong option magic', input: Buffer.from('IHAVEOPX00000000'), state: 'broken', error: /option magic/ },
  {
    name: 'V03 an option of 0xffffffff bytes',
    input: cat('IHAVEOPT', u32(OPT.GO), u32(0xffffffff)),
    state: 'broken',
    error: /NBD_OPT_GO of 4294967295 bytes/,
  },
  {
    name: 'V03 an option of 64 MiB and a byte',
    input: cat('IHAVEOPT', u32(OPT.LIST), u32((1 << 26) + 1)),
    state: 'broken',
    error: /of 67108865 bytes/,
  },
  {
    name: 'V03 an export name of 4097 bytes for EXPORT_NAME',
    input: option(OPT.EXPORT_NAME, 'x'.repeat(4097)),
    state: 'broken',
    error: /name of 4097 bytes/,
  },
  {
    name: 'V04 name lengths beyond the option',
    input: cat(
      STRUCTURED,
      option(OPT.INFO, cat(u32(1), u16(0))),
      option(OPT.GO, cat(u32(0xffffffff), u16(0))),
      option(OPT.SET_META, cat(u32(0xffffffff), u32(0))),
      option(OPT.LIST_META, cat(u32(0xfffffff8), 'abcd', u32(0))),
      option(OPT.GO, cat(u32(0))),
    ),
    output: cat(
      ack(OPT.STRUCTURED_REPLY),
      refused(OPT.INFO, g.ERR_INVALID, 'the name is longer than the option'),
      refused(OPT.GO, g.ERR_INVALID, 'the name is longer than the option'),
      refused(OPT.SET_META, g.ERR_INVALID, 'the name is longer than the option'),
      refused(OPT.LIST_META, g.ERR_INVALID, 'the name is longer than the option'),
      refused(OPT.GO, g.ERR_INVALID, 'the option is too short'),
    ),
    state: 'open',
  },
  {
    name: 'V04 a number of information requests that does not fit',
    input: cat(option(OPT.GO, cat(u32(0), u16(2), u16(3))), option(OPT.GO, cat(u32(0), u16(0), u16(3)))),
    output: cat(
      refused(OPT.GO, g.ERR_INVALID, 'the number of information requests is wrong'),
      refused(OPT.GO, g.ERR_INVALID, 'the number of information requests is wrong'),
    ),
    state: 'open',
  },
  {
    name: 'V05 a name of 4097 bytes',
    input: cat(go('n'.repeat(4097)), STRUCTURED, option(OPT.SET_META, metaRequest('n'.repeat(4097)))),
    output: cat(
      refused(OPT.GO, g.ERR_TOO_BIG, 'the export name is longer than 4096 bytes'),
      ack(OPT.STRUCTURED_REPLY),
      refused(OPT.SET_META, g.ERR_TOO_BIG, 'the export name is longer than 4096 bytes'),
    ),
    state: 'open',
  },
  {
    name: 'V05 an unknown name of 4096 bytes, which the error quotes in part',
    input: go('n'.repeat(4096)),
    output: refused(OPT.GO, g.ERR_UNKNOWN, `no export is named '${'n'.repeat(256)}…'`),
    state: 'open',
  },
  {
    name: 'V06 data with an option that has no data',
    input: cat(option(OPT.LIST, 'x'), option(OPT.STRUCTURED_REPLY, 'yy'), option(OPT.EXTENDED, 'zzz'), go('')),
    output: cat(
      refused(OPT.LIST, g.ERR_INVALID, 'NBD_OPT_LIST takes no data'),
      refused(OPT.STRUCTURED_REPLY, g.ERR_INVALID, 'NBD_OPT_STRUCTURED_REPLY takes no data'),
      refused(OPT.EXTENDED, g.ERR_INVALID, 'NBD_OPT_EXTENDED_HEADERS takes no data'),
      known(OPT.GO),
    ),
    state: 'session',
  },
  {
    name: 'V06 STARTTLS with data',
    offer: { tls: 'on' },
    input: option(OPT.STARTTLS, 'x'),
    output: refused(OPT.STARTTLS, g.ERR_INVALID, 'NBD_OPT_STARTTLS takes no data'),
    state: 'open',
  },
  {
    name: 'V07 queries that end early, are too long, or too few for what came',
    input: cat(
      STRUCTURED,
      option(OPT.SET_META, cat(u32(0), u32(1_000_000))),
      option(OPT.SET_META, cat(u32(0), u32(1), u32(16), 'base:allocation')),
      option(OPT.SET_META, cat(u32(0), u32(1), u32(4097), 'x'.repeat(4097))),
      option(OPT.SET_META, cat(u32(0), u32(0), 'more')),
    ),
    output: cat(
      ack(OPT.STRUCTURED_REPLY),
      refused(OPT.SET_META, g.ERR_INVALID, 'the queries are cut short'),
      refused(OPT.SET_META, g.ERR_INVALID, 'a query is longer than the option'),
      refused(OPT.SET_META, g.ERR_INVALID, 'a query is longer than 4096 bytes'),
      refused(OPT.SET_META, g.ERR_INVALID, 'there is more data than the queries'),
    ),
    state: 'open',
  },
  {
    name: 'V08 as many options as may be',
    input: cat(...Array.from({ length: 20 }, () => STRUCTURED)),
    output: cat(...Array.from({ length: 20 }, () => ack(OPT.STRUCTURED_REPLY))),
    state: 'open',
  },
  {
    name: 'V08 options without end',
    input: cat(...Array.from({ length: 21 }, () => STRUCTURED)),
    output: cat(...Array.from({ length: 20 }, () => ack(OPT.STRUCTURED_REPLY))),
    state: 'broken',
    error: /more than 20 options/,
  },

  // Without TLS.
  {
    name: 'STARTTLS to a server without TLS',
    input: option(OPT.STARTTLS),
    output: refused(OPT.STARTTLS, g.ERR_POLICY, 'this server has no TLS'),
    state: 'open',
  },
  {
    name: 'a server that insists on TLS',
    offer: { tls: 'require' },
    input: cat(option(OPT.LIST), go(''), option(99), option(OPT.ABORT)),
    output: cat(
      refused(OPT.LIST, g.ERR_TLS_REQD, 'this server needs TLS'),
      refused(OPT.GO, g.ERR_TLS_REQD, 'this server needs TLS'),
      refused(99, g.ERR_TLS_REQD, 'this server needs TLS'),
      ack(OPT.ABORT),
    ),
    state: 'left',
  },
  {
    name: 'EXPORT_NAME to a server that insists on TLS',
    offer: { tls: 'require' },
    input: option(OPT.EXPORT_NAME),
    state: 'broken',
    error: /needs TLS/,
  },
  {
    name: 'an export that is for TLS only',
    offer: { tls: 'on', exports: [exportOffer(''), exportOffer('s', { requireTls: true })] },
    input: cat(option(OPT.LIST), go('s'), STRUCTURED, option(OPT.SET_META, metaRequest('s', 'base:allocation'))),
    output: cat(
      reply(OPT.LIST, g.SERVER, u32(0)),
      ack(OPT.LIST),
      refused(OPT.GO, g.ERR_TLS_REQD, 'this export needs TLS'),
      ack(OPT.STRUCTURED_REPLY),
      refused(OPT.SET_META, g.ERR_UNKNOWN, "no export is named 's'"),
    ),
    state: 'open',
  },

  // Servers of old.
  {
    name: 'plain newstyle: EXPORT_NAME',
    offer: { fixedNewstyle: false },
    input: option(OPT.EXPORT_NAME, 'a'),
    output: cat(g.u64(SIZE), u16(1)),
    state: 'session',
  },
  {
    name: 'plain newstyle: anything else closes',
    offer: { fixedNewstyle: false },
    input: option(OPT.LIST),
    state: 'broken',
    error: /without the fixed newstyle handshake/,
  },
];
