// Valid replies of any make come out as what went in, however the network cuts them; and what the package's own
// encoder writes, its decoder reads.

import { describe, it } from '@jest/globals';
import fc from 'fast-check';

import { ReplyEncoder, type ReplyStyle } from '../../lib/protocol/reply-encoder.js';
import { type U64 } from '../../lib/util/u64.js';
import { FILL, type Asked, type Expectation, expectReplies } from '../fuzz/reply-reference.js';
import { ReplyRun, type Way } from '../fuzz/reply-run.js';
import { type Planned, replyStreams } from '../fuzz/reply-streams.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import * as g from '../support/golden.js';
import { IS_LONG } from '../support/long.js';

const MODES = ['simple', 'structured', 'extended'] as const;
const ways = fc.constantFrom<Way>('push', 'targets', 'large targets');
const cuts = fc.array(fc.nat({ max: 20_000 }), { maxLength: 20 });

/** Cut at these places, modulo the length; no place at all means byte by byte. */
function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  if (places.length === 0) return Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
  const borders = [...new Set([0, bytes.length, ...places.map((place) => place % bytes.length)])].sort((a, b) => a - b);
  return borders.slice(1).map((end, index) => bytes.subarray(borders[index], end));
}

/** What the maker of a stream meant, as far as it is certain: the bytes of failed reads are not. */
function meant(expected: Expectation, planned: readonly Planned[]): void {
  planned.forEach(({ ending, data, extents }, index) => {
    const outcome = expected.outcomes[index];
    const seen = outcome?.ending.replace('NbdCommandError ', '');
    if (seen !== ending) throw new Error(`command ${index + 1} ends with ${seen} in place of ${ending}`);
    if (data !== undefined && !data.equals(outcome?.data ?? Buffer.alloc(0))) throw new Error('other data');
    for (const [context, entries] of extents ?? []) {
      const told = outcome?.extents.find(([name]) => name === context)?.slice(1);
      if (told?.join() !== entries.join()) throw new Error(`${context}: ${told?.join()} in place of ${entries.join()}`);
    }
  });
}

describe(withSeed('reply streams'), () => {
  it.each(MODES)('%s: each command gets what was meant for it, wherever the stream is cut', (mode) => {
    fc.assert(
      fc.property(replyStreams(mode), ways, cuts, fc.boolean(), (stream, way, places, allocating) => {
        const run = new ReplyRun(stream, stream.asked, way, allocating);
        for (const segment of cutAt(stream.bytes, places)) run.feed(segment, way);
        const expected = expectReplies(stream, stream.asked, stream.bytes);
        meant(expected, stream.planned);
        if (expected.violation || !expected.atBoundary) throw new Error('the reference does not understand it');
        run.check(expected);
      }),
      { seed: SEED, numRuns: IS_LONG ? 400 : 100 },
    );
  });

  it.each(MODES)('%s: of a stream that ends anywhere, just what has arrived counts', (mode) => {
    fc.assert(
      fc.property(replyStreams(mode), ways, cuts, fc.nat({ max: 20_000 }), (stream, way, places, end) => {
        const bytes = stream.bytes.subarray(0, 1 + (end % stream.bytes.length));
        const run = new ReplyRun(stream, stream.asked, way, false);
        for (const segment of cutAt(bytes, places)) run.feed(segment, way);
        run.check(expectReplies(stream, stream.asked, bytes));
      }),
      { seed: SEED, numRuns: IS_LONG ? 400 : 100 },
    );
  });
});

/** One reply as the embedded server composes it. */
interface Composed {
  readonly asked: Asked;
  readonly write: (encoder: ReplyEncoder, cookie: number) => Buffer[];
  readonly ending: string;
  readonly data: Buffer;
  readonly extents: readonly bigint[];
}

const answered = (asked: Asked, cookie: number): { cookieHigh: number; cookieLow: number; offset: U64 } => ({
  ...{ cookieHigh: 0, cookieLow: cookie },
  offset: asked.offset <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(asked.offset) : asked.offset,
});
const u64 = (value: bigint): U64 => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value);
const offsets = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 40n }),
  fc.bigInt({ min: 2n ** 53n - 5000n, max: 2n ** 53n + 5000n }),
  fc.bigInt({ min: 2n ** 63n, max: 2n ** 63n + 5000n }),
);

function composed(style: ReplyStyle): fc.Arbitrary<Composed> {
  const nothing = { data: Buffer.alloc(0), extents: [] };
  const done = fc.record({ offset: offsets, count: fc.bigInt({ min: 1n, max: 2n ** 32n - 1n }) }).map((range) => {
    const asked: Asked = { method: 'zero', flags: 0, ...range };
    return {
      asked,
      ending: 'ok',
      ...nothing,
      write: (e: ReplyEncoder, k: number) => [e.encodeDone(answered(asked, k))],
    };
  });
  const failed = fc
    .record({ offset: offsets, count: fc.bigInt({ min: 1n, max: 4000n }), message: fc.string({ unit: 'binary' }) })
    .map(({ message, ...range }) => {
      const asked: Asked = { method: 'pread', flags: 0, ...range };
      const write = (e: ReplyEncoder, k: number): Buffer[] => [e.encodeError(answered(asked, k), 28, message)];
      return {
        asked,
        ending: 'NbdCommandError ENOSPC',
        data: Buffer.alloc(Number(range.count), FILL),
        extents: [],
        write,
      };
    });
  const read = fc
    .record({
      offset: offsets,
      pieces: fc.array(fc.tuple(fc.integer({ min: 1, max: 500 }), fc.boolean()), { minLength: 1, maxLength: 5 }),
    })
    .map(({ offset, pieces }) => {
      const parts = style === 'simple' ? [[pieces[0]?.[0] ?? 1, false] as const] : pieces;
      const data = Buffer.concat(
        parts.map(([length, isHole]) => (isHole ? Buffer.alloc(length) : g.content(3, length))),
      );
      const asked: Asked = { method: 'pread', flags: 0, count: BigInt(data.length), offset };
      const write = (e: ReplyEncoder, k: number): Buffer[] => {
        let at = offset;
        return parts.map(([length, isHole], index) => {
          const isLast = index === parts.length - 1;
          const from = at;
          at += BigInt(length);
          if (isHole) return e.encodeHole(answered(asked, k), u64(from), length, isLast);
          const bytes = Buffer.alloc(e.dataPrefix + length);
          e.encodeData(bytes, answered(asked, k), u64(from), length, isLast);
          bytes.set(g.content(3, length), e.dataPrefix);
          return bytes;
        });
      };
      return { asked, ending: 'ok', data, extents: [], write };
    });
  const most = style === 'extended' ? 2n ** 64n - 1n : 2n ** 32n - 1n;
  const status = fc
    .record({
      offset: fc.bigInt({ min: 0n, max: 2n ** 40n }),
      pairs: fc.array(fc.tuple(fc.bigInt({ min: 1n, max: 2n ** 31n }), fc.bigInt({ min: 0n, max: most })), {
        ...{ minLength: 1, maxLength: 9 },
      }),
    })
    .map(({ offset, pairs }) => {
      const count = pairs.reduce((sum, [length]) => sum + length, 0n);
      const asked: Asked = { method: 'blockStatus64', flags: 0, count, offset };
      const flat = pairs.flat();
      const write = (e: ReplyEncoder, k: number): Buffer[] => [
        e.encodeBlockStatus(answered(asked, k), 1, flat.map(u64), true),
      ];
      return { asked, ending: 'ok', data: Buffer.alloc(0), extents: flat, write };
    });
  return fc.oneof(done, failed, read, ...(style === 'simple' ? [] : [status]));
}

describe(withSeed('the reply encoder and the reply decoder'), () => {
  it.each(MODES)('%s: agree on every reply, whole and cut', (mode) => {
    fc.assert(
      fc.property(fc.array(composed(mode), { minLength: 1, maxLength: 5 }), ways, cuts, (replies, way, places) => {
        const encoder = new ReplyEncoder(mode, (length) => Buffer.alloc(length));
        const bytes = Buffer.concat(replies.flatMap((reply, index) => reply.write(encoder, index + 1)));
        const contexts = new Map(mode === 'simple' ? [] : ([[1, 'base:allocation']] as const));
        const context = { mode, exportSize: 2n ** 64n, contexts };
        const run = new ReplyRun(
          context,
          replies.map(({ asked }) => asked),
          way,
          false,
        );
        for (const segment of cutAt(bytes, places)) run.feed(segment, way);
        run.check({
          outcomes: replies.map(({ ending, data, extents }) => ({
            ...{ ending, error: ending === 'ok' ? null : ending, data, told: [] },
            extents: extents.length === 0 ? [] : [['base:allocation', ...extents]],
          })),
          ...{ violation: false, atBoundary: true },
          messages: replies.reduce((sum, reply) => sum + reply.write(encoder, 1).length, 0),
        });
      }),
      { seed: SEED, numRuns: IS_LONG ? 400 : 100 },
    );
  });
});
