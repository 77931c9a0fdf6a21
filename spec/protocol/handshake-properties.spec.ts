// The client's coroutine talks to the server's: whatever the one wants and the other has, both come to the same.

import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { NbdOptionError } from '../../lib/errors.js';
import * as c from '../../lib/protocol/constants.js';
import { type Handshake, START_TLS } from '../../lib/protocol/handshake/effects.js';
import { negotiate } from '../../lib/protocol/handshake/negotiate.js';
import { list } from '../../lib/protocol/handshake/opt-list.js';
import { listMetaContext } from '../../lib/protocol/handshake/opt-meta-context.js';
import { serve } from '../../lib/protocol/handshake/serve.js';
import { type ExportOffer, type ServedSession, type ServerOffer } from '../../lib/protocol/handshake/serve-offer.js';
import { type HandshakeRequest, HandshakeSession } from '../../lib/protocol/handshake/session.js';
import { DEFAULT_FEATURES } from '../../lib/server/options.js';
import { fromBigInt } from '../../lib/util/u64.js';
import { expectHandshake } from '../fuzz/handshake-reference.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';

const word = fc.string({ unit: 'grapheme', maxLength: 20 }).filter((text) => !text.includes('\0'));
/** Some of the protocol's longest. */
const name = fc.oneof(word, fc.constantFrom('', 'disk', 'x'.repeat(4096), 'é'.repeat(2048)));
const contextName = fc.constantFrom(
  'base:allocation',
  'qemu:dirty-bitmap:b0',
  'x:y',
  'x:',
  'z:ü',
  `q:${'n'.repeat(4094)}`,
);
const power = (low: number, high: number): fc.Arbitrary<number> =>
  fc.integer({ min: low, max: high }).map((n) => 2 ** n);
const blockSize = fc
  .tuple(power(0, 16), power(9, 20), power(20, 31))
  .filter(([minimum, preferred]) => minimum <= preferred)
  .map(([minimum, preferred, maximum]) => ({ minimum, preferred, maximum }));

const exportOffer = fc.record({
  name,
  description: fc.oneof(word, fc.constant('d'.repeat(4096))),
  size: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  blockSize,
  flags: fc.nat({ max: 0x1fff }).map((flags) => flags | c.NBD_FLAG_HAS_FLAGS),
  contexts: fc.uniqueArray(contextName, { maxLength: 4 }),
  requireBlockSize: fc.boolean(),
});

const offers = fc.record({
  exports: fc.uniqueArray(exportOffer, { minLength: 1, maxLength: 4, selector: (each) => each.name }),
  fixedNewstyle: fc.boolean(),
  noZeroes: fc.boolean(),
  structuredReply: fc.boolean(),
  extendedHeaders: fc.boolean(),
  setMetaContext: fc.boolean(),
  go: fc.boolean(),
});
type Offers = typeof offers extends fc.Arbitrary<infer T> ? T : never;

const requests = fc.record({
  handshakeFlags: fc.nat({ max: 3 }),
  structuredReplies: fc.boolean(),
  extendedHeaders: fc.boolean(),
  blockSize: fc.boolean(),
  metaContexts: fc.uniqueArray(contextName, { maxLength: 3 }),
  fullInfo: fc.boolean(),
});
type Requests = typeof requests extends fc.Arbitrary<infer T> ? T : never;

function offerOf({ exports, fixedNewstyle, noZeroes, ...features }: Offers): ServerOffer<ExportOffer> {
  const list = exports.map((each): ExportOffer => {
    return {
      ...{ name: each.name, description: each.description, size: fromBigInt(each.size), blockSize: each.blockSize },
      ...{ requireBlockSize: each.requireBlockSize, requireTls: false },
      contextNames: () => each.contexts,
      transmissionFlags: () => each.flags,
    };
  });
  return {
    ...{ style: 'newstyle', fixedNewstyle, noZeroes, tls: 'off', maxOptions: 64 },
    features: { ...DEFAULT_FEATURES, ...features },
    exports: () => list,
    find: (wanted) => list.find((each) => each.name === wanted),
  };
}

const sessionOf = (request: Requests, exportName: string): HandshakeSession =>
  new HandshakeSession({
    ...{ exportName, maskExportName: false, tls: 0, metaContext: true, optMode: false },
    ...request,
  } satisfies HandshakeRequest);

interface Talk<Result> {
  readonly client: { readonly value: Result } | { readonly error: unknown };
  readonly server: ServedSession<ExportOffer> | null | { readonly error: unknown };
  /** Everything that the server sent. */
  readonly said: Buffer;
}

interface Side {
  readonly handshake: Handshake<unknown>;
  inbox: Buffer;
  result: unknown;
  error: unknown;
  isOver: boolean;
}

/** Lets both run until neither can. */
function talk<Result>(client: Handshake<Result>, server: Handshake<unknown>): Talk<Result> {
  const sides = [client, server].map((handshake): Side => ({
    handshake,
    inbox: Buffer.alloc(0),
    result: null,
    error: null,
    isOver: false,
  })) as [Side, Side];
  const said: Buffer[] = [];
  const due = [0, 0];
  for (let isIdle = false; !isIdle;) {
    isIdle = true;
    for (const [index, side] of sides.entries()) {
      const other = sides[1 - index] as Side;
      while (!side.isOver && side.inbox.length >= (due[index] ?? 0)) {
        isIdle = false;
        const input = side.inbox.subarray(0, due[index]);
        side.inbox = side.inbox.subarray(due[index]);
        due[index] = 0;
        try {
          const { done, value } = side.handshake.next(Buffer.from(input));
          if (done === true) {
            side.isOver = true;
            side.result = value;
          } else if (typeof value === 'number') due[index] = value;
          else if (value !== START_TLS && typeof value === 'object') {
            other.inbox = Buffer.concat([other.inbox, value]);
            if (index === 1) said.push(Buffer.from(value));
          }
        } catch (error) {
          side.isOver = true;
          side.error = error;
        }
      }
    }
  }
  const [near, far] = sides;
  return {
    client: near.error === null ? { value: near.result as Result } : { error: near.error },
    server: far.error === null ? (far.result as ServedSession<ExportOffer> | null) : { error: far.error },
    said: Buffer.concat(said),
  };
}

describe(withSeed('the two halves of the handshake'), () => {
  it('come to one session', () => {
    let opened = 0;
    fc.assert(
      fc.property(offers, requests, fc.nat({ max: 4 }), (offer, request, which) => {
        // Now and then one that is not there.
        const exportName = offer.exports[which]?.name ?? 'nobody has this';
        const session = sessionOf(request, exportName);
        const { client, server, said } = talk(negotiate(session), serve(offerOf(offer)));
        const known = offer.exports.find((each) => each.name === exportName);
        if (!('value' in client)) {
          expect(client.error).toBeInstanceOf(NbdOptionError);
          // Without GO an export cannot be opened once extended headers are on.
          const isStuck = !offer.go && session.negotiated.extendedHeaders;
          expect(known === undefined || isStuck || (known.requireBlockSize && !request.blockSize)).toBe(true);
          return;
        }
        if (server === null || 'error' in server || session.info === null) {
          // EXPORT_NAME knows no refusal but the end of the connection, which the client has not seen yet.
          expect(session.info).toBeNull();
          return;
        }
        opened++;
        const { info, negotiated } = session;
        const isGo = offer.go && session.isFixedNewstyle;
        expect(server.export.name).toBe(exportName);
        expect(BigInt(info.size)).toBe(known?.size);
        expect(negotiated.extendedHeaders).toBe(server.style === 'extended');
        expect(negotiated.structuredReplies).toBe(server.style !== 'simple');
        expect(info.blockSizes).toEqual(isGo && request.blockSize ? known?.blockSize : null);
        expect(info.canonicalName).toBe(isGo && request.fullInfo ? exportName : null);
        const { description = '' } = known ?? {};
        expect(info.description).toBe(isGo && request.fullInfo && description !== '' ? description : null);
        // A client that had to fall back to EXPORT_NAME makes nothing of contexts.
        expect([...(negotiated.contexts ?? [])]).toEqual(isGo ? [...server.contexts] : []);
        // Flags are the server's, less what cannot be true.
        expect(info.flags & ~(known?.flags ?? 0)).toBe(0);
        // The reading in spec/fuzz makes the same of these bytes.
        if (request.handshakeFlags !== 3 || !request.blockSize) return;
        const expected = expectHandshake({ ...request, exportName, tls: false, first: 'go' }, said);
        expect(expected).toMatchObject({ ending: 'transmission', size: known?.size, flags: info.flags });
      }),
      { seed: SEED, numRuns: IS_LONG ? 1000 : 300 },
    );
    expect(opened).toBeGreaterThan(IS_LONG ? 200 : 30);
  });

  it('list the same exports and contexts', () => {
    fc.assert(
      fc.property(offers, requests, (offer, request) => {
        const asked = { ...request, structuredReplies: true, handshakeFlags: 3 };
        const session = sessionOf(asked, offer.exports[0]?.name ?? '');
        session.request.optMode = true;
        const served = offerOf({ ...offer, fixedNewstyle: true, structuredReply: true });
        function* lists(): Handshake<readonly [unknown, unknown]> {
          yield* negotiate(session);
          return [yield* list(session), yield* listMetaContext(session, [])] as const;
        }
        const { client } = talk(lists(), serve(served));
        if (!('value' in client)) throw client.error as Error;
        expect(client.value).toEqual([
          offer.exports.map(({ name: exportName, description }) => ({ name: exportName, description })),
          offer.exports[0]?.contexts,
        ]);
      }),
      { seed: SEED, numRuns: IS_LONG ? 500 : 150 },
    );
  });
});
