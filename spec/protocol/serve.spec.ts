// The server's half of the handshake, fed by hand.

import { describe, expect, it } from '@jest/globals';
import { HandshakeDriver } from '../../lib/protocol/handshake/driver.js';
import { serve } from '../../lib/protocol/handshake/serve.js';
import { type ExportOffer, type ServedSession, type ServerOffer } from '../../lib/protocol/handshake/serve-offer.js';
import { DEFAULT_FEATURES } from '../../lib/server/options.js';
import { deliver } from '../support/deliver.js';
import * as g from '../support/golden.js';
import { CASES } from './serve-cases.js';
import {
  ack,
  EXTENDED,
  exportOffer,
  go,
  known,
  metaRequest,
  type OfferOptions,
  refused,
  SIZE,
  type State,
  STRUCTURED,
} from './serving.js';

const { OPT, cat, option, reply, u32 } = g;

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

/** One handshake: what has been sent, and its state. */
class Conversation {
  said = Buffer.alloc(0);
  state: State = 'open';
  session: ServedSession<ExportOffer> | null = null;
  rest = '';
  error = '';
  readonly #driver: HandshakeDriver;

  constructor(options: OfferOptions = {}) {
    this.#driver = new HandshakeDriver({
      write: (bytes) => (this.said = Buffer.concat([this.said, bytes])),
      isBlocked: () => false,
      startTls: () => (this.state = 'tls'),
      plaintextBeforeTls: () => new Error('plaintext after NBD_OPT_STARTTLS'),
    });
    this.#driver.run(
      serve(offerOf(options)),
      (session) => {
        this.state = session === null ? 'left' : 'session';
        this.session = session;
        this.rest = Buffer.concat(this.#driver.takeRest()).toString();
      },
      (error) => {
        this.state = 'broken';
        this.error = (error as Error).message;
      },
    );
  }

  push(segment: Uint8Array): void {
    // After the handshake the bytes are the next phase's.
    if (this.state === 'open') this.#driver.push(Buffer.from(segment));
    else if (this.state === 'session') this.rest += Buffer.from(segment).toString();
  }

  tlsStands(): void {
    this.state = 'open';
    this.#driver.secured();
  }

  /** What was sent since the last call, in hexadecimal. */
  take(): string {
    const said = this.said.toString('hex');
    this.said = Buffer.alloc(0);
    return said;
  }
}

const hello = (flags = 3): Buffer => u32(flags);

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
