import { describe, expect, it } from '@jest/globals';
import { serve } from '../../lib/protocol/handshake/serve.js';
import {
  type ExportOffer,
  type HandshakeFeatures,
  type ServedSession,
  type ServerOffer,
} from '../../lib/protocol/handshake/serve-offer.js';
import { DEFAULT_FEATURES } from '../../lib/server/options.js';
import { HandshakeRunner } from '../../lib/server/handshake-runner.js';
import { deliver } from '../support/deliver.js';
import * as g from '../support/golden.js';

const { OPT, cat, option, reply, u16, u32 } = g;
const SIZE = 1 << 20;

function exportOffer(name: string, more: Partial<ExportOffer> = {}): ExportOffer {
  return {
    name,
    description: '',
    size: SIZE,
    blockSize: { minimum: 1, preferred: 4096, maximum: 1 << 25 },
    requireBlockSize: false,
    requireTls: false,
    contextNames: (extended) => ['base:allocation', 'x-a:one', 'x-a:two', ...(extended ? ['x-b:wide'] : [])],
    transmissionFlags: (style, hasContexts) =>
      g.HAS_FLAGS | (style === 'simple' ? 0 : g.SEND_DF) | (hasContexts ? g.STATUS_PAYLOAD : 0),
    ...more,
  };
}

interface OfferOptions extends Partial<Omit<ServerOffer<ExportOffer>, 'features' | 'exports'>> {
  features?: Partial<HandshakeFeatures>;
  exports?: readonly ExportOffer[];
}

function offerOf(options: OfferOptions): ServerOffer<ExportOffer> {
  const exports = options.exports ?? [exportOffer(''), exportOffer('a', { description: 'the first' })];
  return {
    style: 'newstyle',
    fixedNewstyle: true,
    noZeroes: true,
    tls: 'off',
    maxOptions: 20,
    find: (name) => exports.find((entry) => entry.name === name),
    ...options,
    exports: () => exports,
    features: { ...DEFAULT_FEATURES, ...options.features },
  };
}

/** One handshake: what has been said, and how it stands. */
class Conversation {
  said = Buffer.alloc(0);
  state: 'open' | 'tls' | 'left' | 'session' | 'broken' = 'open';
  session: ServedSession<ExportOffer> | null = null;
  rest = '';
  error = '';
  readonly #runner: HandshakeRunner<ServedSession<ExportOffer> | null>;

  constructor(options: OfferOptions = {}) {
    this.#runner = new HandshakeRunner(serve(offerOf(options)), {
      write: (bytes) => (this.said = Buffer.concat([this.said, bytes])),
      isBlocked: () => false,
      startTls: () => (this.state = 'tls'),
      done: (session, rest) => {
        this.state = session === null ? 'left' : 'session';
        this.session = session;
        this.rest = rest.toString();
      },
      failed: (error) => {
        this.state = 'broken';
        this.error = error.message;
      },
    });
    this.#runner.start();
  }

  push(segment: Uint8Array): void {
    // After the handshake the bytes are the next phase's.
    if (this.state === 'open') this.#runner.push(Buffer.from(segment));
    else if (this.state === 'session') this.rest += Buffer.from(segment).toString();
  }

  tlsStands(): void {
    this.state = 'open';
    this.#runner.resume();
  }

  /** What was said since the last call, in hexadecimal. */
  take(): string {
    const said = this.said.toString('hex');
    this.said = Buffer.alloc(0);
    return said;
  }
}

const hello = (flags = 3): Buffer => u32(flags);
const go = (name: string, ...infos: number[]): Buffer => option(OPT.GO, infoRequest(name, infos));
const infoRequest = (name: string, infos: number[]): Buffer =>
  cat(u32(Buffer.byteLength(name)), name, u16(infos.length), ...infos.map(u16));
const metaRequest = (name: string, ...queries: string[]): Buffer =>
  cat(u32(name.length), name, u32(queries.length), ...queries.map((query) => cat(u32(query.length), query)));
const ack = (number: number): Buffer => reply(number, g.ACK);
const refused = (number: number, type: number, text: string): Buffer => reply(number, type, text);
const known = (number: number, flags = g.HAS_FLAGS): Buffer =>
  cat(reply(number, g.INFO, g.infoExport(SIZE, flags)), ack(number));
const STRUCTURED = option(OPT.STRUCTURED_REPLY);
const EXTENDED = option(OPT.EXTENDED);

interface Case {
  readonly name: string;
  readonly offer?: OfferOptions;
  /** After the client flags. */
  readonly input: Buffer;
  /** After the greeting. */
  readonly output?: Buffer;
  readonly state: Conversation['state'];
  readonly error?: RegExp;
}

const NOT_SERVED = (name: string): string => `NBD_OPT_${name} is not served here`;

const CASES: readonly Case[] = [
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
    name: 'INFO of an export without a description, asked for one',
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

  // Evil clients. V01 to V08 of the list of what a hostile client does.
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
    name: 'V06 data where none belongs',
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

describe('serve', () => {
  it.each(CASES)('$name', ({ offer, input, output, state, error }) => {
    const flags = offer?.fixedNewstyle === false ? 2 : 3;
    deliver(
      cat(hello(flags), input),
      () => {
        const talk = new Conversation(offer);
        expect(talk.take()).toBe(g.greeting(flags).toString('hex'));
        return {
          push: (segment) => talk.push(segment),
          finish: () => {
            expect(talk.error).toMatch(error ?? /^$/);
            expect(talk.state).toBe(state);
            expect(talk.take()).toBe((output ?? Buffer.alloc(0)).toString('hex'));
          },
        };
      },
      { maxSplits: 300, random: 5 },
    );
  });

  it('V01 closes on client flags that it did not offer', () => {
    const state = (flags: number, offer: OfferOptions = {}): string => {
      const talk = new Conversation(offer);
      talk.push(hello(flags));
      return talk.state;
    };
    expect(state(0)).toBe('open');
    expect(state(1)).toBe('open');
    expect(state(0x80)).toBe('broken');
    expect(state(0x8000_0001)).toBe('broken');
    expect(state(2, { noZeroes: false })).toBe('broken');
    expect(state(1, { fixedNewstyle: false })).toBe('broken');
  });

  it('sends the 124 zeroes after EXPORT_NAME unless they were declined, and never after GO', () => {
    const length = (flags: number, input: Buffer): number => {
      const talk = new Conversation();
      talk.take();
      talk.push(cat(hello(flags), input));
      return talk.take().length / 2;
    };
    expect(length(1, option(OPT.EXPORT_NAME))).toBe(134);
    expect(length(3, option(OPT.EXPORT_NAME))).toBe(10);
    expect(length(1, go(''))).toBe(known(OPT.GO).length);
  });

  it('shows the default export at once in the oldstyle', () => {
    const talk = new Conversation({ style: 'oldstyle' });
    expect(talk.take()).toBe(g.oldstyle(SIZE, g.HAS_FLAGS).toString('hex'));
    expect(talk.state).toBe('session');
    expect(new Conversation({ style: 'oldstyle', exports: [] }).error).toMatch(/without a default export/);
  });

  it('hands on what comes right behind the last option', () => {
    const talk = new Conversation();
    talk.push(cat(hello(), go(''), 'a request'));
    expect(talk.rest).toBe('a request');
  });

  it('ties contexts to the name that they were selected for', () => {
    const contexts = (selectedFor: string, opened: string): unknown => {
      const talk = new Conversation();
      talk.push(
        cat(hello(), STRUCTURED, option(OPT.SET_META, metaRequest(selectedFor, 'base:allocation')), go(opened)),
      );
      return [...(talk.session?.contexts ?? [])];
    };
    expect(contexts('a', 'a')).toEqual([[1, 'base:allocation']]);
    expect(contexts('a', '')).toEqual([]);
  });

  it('settles on one style of replies', () => {
    const style = (...options: Buffer[]): string | undefined => {
      const talk = new Conversation();
      talk.push(cat(hello(), ...options, go('')));
      return talk.session?.style;
    };
    expect(style()).toBe('simple');
    expect(style(STRUCTURED)).toBe('structured');
    expect(style(STRUCTURED, EXTENDED)).toBe('extended');
  });

  it('V07 skips a million queries without holding them, and refuses', () => {
    const talk = new Conversation();
    talk.push(cat(hello(), STRUCTURED));
    talk.take();
    const queries = cat(u32(0), u32(1_000_000), Buffer.alloc(4_000_000));
    const sent = option(OPT.SET_META, queries);
    for (let at = 0; at < sent.length; at += 65536) talk.push(sent.subarray(at, at + 65536));
    expect(talk.take()).toBe(
      refused(OPT.SET_META, g.ERR_TOO_BIG, 'NBD_OPT_SET_META_CONTEXT of 4000008 bytes').toString('hex'),
    );
    expect(talk.state).toBe('open');
  });

  it('takes an option of 60 kB, piece by piece', () => {
    const talk = new Conversation();
    talk.push(cat(hello(), STRUCTURED));
    talk.take();
    const queries = [...Array.from({ length: 15 }, (_, i) => `x-${i}:${'q'.repeat(4000)}`), 'x-a:two'];
    talk.push(option(OPT.SET_META, metaRequest('', ...queries)));
    expect(talk.take()).toBe(
      cat(reply(OPT.SET_META, g.META, g.metaContext(1, 'x-a:two')), ack(OPT.SET_META)).toString('hex'),
    );
  });

  it('V09 forgets under TLS what was agreed on before', () => {
    const talk = new Conversation({ tls: 'on' });
    talk.push(cat(hello(), STRUCTURED, EXTENDED, option(OPT.SET_META, metaRequest('a', 'base:allocation'))));
    talk.push(option(OPT.STARTTLS));
    expect(talk.state).toBe('tls');
    talk.tlsStands();
    talk.take();
    talk.push(option(OPT.STARTTLS));
    expect(talk.take()).toBe(refused(OPT.STARTTLS, g.ERR_INVALID, 'TLS is on already').toString('hex'));
    talk.push(go('a'));
    expect(talk.session?.style).toBe('simple');
    expect(talk.session?.contexts.size).toBe(0);
  });

  it('V10 breaks off when anything follows STARTTLS in clear', () => {
    const talk = new Conversation({ tls: 'require' });
    talk.push(cat(hello(), option(OPT.STARTTLS), go('')));
    expect(talk.state).toBe('broken');
    expect(talk.error).toMatch(/plaintext after NBD_OPT_STARTTLS/);
  });

  it('serves everything under TLS to a client of a server that insists on it', () => {
    const talk = new Conversation({ tls: 'require', exports: [exportOffer('', { requireTls: true })] });
    talk.push(cat(hello(), option(OPT.STARTTLS)));
    talk.tlsStands();
    talk.take();
    talk.push(cat(option(OPT.LIST), go('')));
    expect(talk.take()).toBe(cat(reply(OPT.LIST, g.SERVER, u32(0)), ack(OPT.LIST), known(OPT.GO)).toString('hex'));
  });
});
