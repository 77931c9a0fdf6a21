// What the client's request encoder writes, the server's request decoder reads; and what either writes or reads is
// what proto.md defines, by the reference in spec/fuzz.

import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { encodeBlockStatusFilter } from '../../lib/protocol/block-status.js';
import { Command } from '../../lib/client/transmission/command.js';
import { BLOCK_STATUS_FILTER, COMMANDS } from '../../lib/protocol/commands.js';
import { encodeRequest } from '../../lib/protocol/request-encoder.js';
import { type Request, RequestDecoder } from '../../lib/protocol/request-decoder.js';
import { decodeFilter, type Session } from '../../lib/server/transmission/request-validation.js';
import { MemoryBackend } from '../../lib/server/backends/memory.js';
import { ServedExport } from '../../lib/server/served-export.js';
import { fromBigInt } from '../../lib/util/u64.js';
import { expectRequests } from '../fuzz/requests.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';

const MAX_U64 = 2n ** 64n - 1n;
const numbers = fc.oneof(
  fc.bigInt({ min: 0n, max: MAX_U64 }),
  fc.constantFrom(0n, 1n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, MAX_U64),
);

interface Sent {
  readonly method: string;
  readonly flags: number;
  readonly cookie: number;
  readonly offset: bigint;
  readonly count: bigint;
  readonly payload: Uint8Array;
}

const sent = (extended: boolean): fc.Arbitrary<Sent> =>
  fc.record({
    method: fc.constantFrom(...COMMANDS.map(({ method }) => method)),
    flags: fc.nat({ max: 0x1f }),
    cookie: fc.oneof(fc.integer({ min: 1, max: 2 ** 32 }), fc.integer({ min: 2 ** 52, max: 2 ** 53 - 1 })),
    offset: numbers,
    count: extended ? numbers : fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }),
    payload: fc.uint8Array({ maxLength: 300 }),
  });

/** The command, and whether its payload follows on the wire. */
function commandOf({ method, flags, cookie, offset, count, payload }: Sent, extended: boolean): [Command, boolean] {
  const spec = COMMANDS.find((each) => each.method === method);
  if (spec === undefined) throw new Error('no such command');
  // A filter is sent with extended headers only; such payloads are announced by a flag.
  const carries = spec.payload === 'to-server' && (extended || spec.type === 1);
  const command = new Command(spec, fromBigInt(count), fromBigInt(offset), carries && extended ? flags | 0x20 : flags);
  command.cookie = cookie;
  if (carries) command.payload = payload;
  return [command, carries];
}

describe(withSeed('the request encoder and the request decoder'), () => {
  it.each([false, true])('agree on every request, cut anywhere; extended headers: %p', (extended) => {
    fc.assert(
      fc.property(
        fc.array(sent(extended), { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat({ max: 3000 }), { maxLength: 12 }),
        (list, places) => {
          const slab = Buffer.alloc(4096, 0xee);
          let at = 0;
          for (const each of list) {
            const [command, carries] = commandOf(each, extended);
            const end = encodeRequest(slab, at, command, extended);
            expect(end - at).toBe(extended ? 32 : 28);
            at = end;
            if (carries) {
              slab.set(each.payload, at);
              at += each.payload.length;
            }
          }
          // Nothing behind the last request is touched.
          expect(slab.subarray(at).every((byte) => byte === 0xee)).toBe(true);
          const bytes = slab.subarray(0, at);
          const seen = decode(bytes, places, extended);
          const expected = list.map((each) => {
            const [{ spec, flags }, carries] = commandOf(each, extended);
            const count = carries ? BigInt(each.payload.length) : each.count;
            const payload = carries ? Buffer.from(each.payload).toString('hex') : '';
            return { type: spec.type, flags, cookie: BigInt(each.cookie), offset: each.offset, count, payload };
          });
          expect(seen).toEqual(expected);
          // The independent reading finds as many, and nothing wrong.
          const { requests, violation, isWhole } = expectRequests(extended, Buffer.from(bytes));
          expect({ requests: requests.length, violation, isWhole }).toEqual({
            ...{ requests: list.length, violation: false, isWhole: true },
          });
        },
      ),
      { seed: SEED, numRuns: IS_LONG ? 1000 : 300 },
    );
  });

  it('agree on the filter of a block status', () => {
    const contexts = new Map([1, 2, 3, 0x7fff_ffff, 0xffff_ffff].map((id) => [id, `x:${id}`]));
    const size = 2n ** 63n;
    const session = {
      export: new ServedExport('', { backend: new MemoryBackend(size) }, 1 << 25),
      ...{ style: 'extended', flags: 0xffff, contexts },
    } satisfies Session;
    fc.assert(
      fc.property(
        fc.bigInt({ min: 1n, max: size }),
        fc.subarray([...contexts.keys()], { minLength: 1 }),
        (count, ids) => {
          const payload = encodeBlockStatusFilter(fromBigInt(count), ids);
          const command = new Command(BLOCK_STATUS_FILTER, fromBigInt(count), 0, 0x20);
          command.payload = payload;
          const header = Buffer.alloc(32);
          encodeRequest(header, 0, command, true);
          let request: Request | undefined;
          const decoder = new RequestDecoder(
            { payloadFor: (each) => Buffer.alloc(each.payloadLength), request: (each) => (request = each) },
            { extendedHeaders: true, payloadLimit: 4096 },
          );
          decoder.push(Buffer.concat([header, payload]));
          expect(decodeFilter(request as Request, session)).toEqual({ count: fromBigInt(count), ids });
        },
      ),
      { seed: SEED, numRuns: IS_LONG ? 300 : 100 },
    );
  });
});

function decode(bytes: Buffer, places: readonly number[], extended: boolean): unknown[] {
  const seen: unknown[] = [];
  const decoder = new RequestDecoder(
    {
      payloadFor: ({ payloadLength }) => Buffer.alloc(payloadLength),
      request: ({ type, flags, cookieHigh, cookieLow, offset, count, payload }) =>
        seen.push({
          ...{ type, flags, cookie: BigInt(cookieHigh) * 2n ** 32n + BigInt(cookieLow), offset: BigInt(offset) },
          ...{ count: BigInt(count), payload: payload?.toString('hex') ?? '' },
        }),
    },
    { extendedHeaders: extended, payloadLimit: 4096 },
  );
  const borders = [...new Set([0, bytes.length, ...places.map((place) => place % bytes.length)])].sort((a, b) => a - b);
  for (let index = 1; index < borders.length; index++) {
    const copy = Buffer.from(bytes.subarray(borders[index - 1], borders[index]));
    decoder.push(copy);
    copy.fill(0xa5);
  }
  return seen;
}
