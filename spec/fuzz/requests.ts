// The family of requests: what clients send to the embedded server's decoder, against a second reading of proto.md.

import fc from 'fast-check';

import { NbdProtocolError } from '../../lib/errors.js';
import { type Request, RequestDecoder } from '../../lib/protocol/request-decoder.js';
import * as g from '../support/golden.js';
import { type Example, type Family } from './family.js';
import { takeCount } from './memory.js';
import { type MessageShape } from './mutate.js';
import { type Random, segments } from './random.js';
import { same } from './reply-run.js';
import { transcripts } from './transcripts.js';

interface RequestExample extends Example {
  readonly extended: boolean;
}

/** One request as it is compared: its numbers, and the payload or what became of it. */
type Seen = string;

/** A longer payload ends the connection; this one makes both sides reachable. */
const PAYLOAD_LIMIT = 2048;
const FIELDS = [
  { at: 4, width: 2 },
  { at: 6, width: 2 },
  { at: 8, width: 8 },
  { at: 16, width: 8 },
] as const;
const COMPACT: MessageShape = {
  magic: Buffer.from('25609513', 'hex'),
  fields: [...FIELDS, { at: 24, width: 4 }],
};
const EXTENDED: MessageShape = {
  magic: Buffer.from('21e41c71', 'hex'),
  fields: [...FIELDS, { at: 24, width: 8 }],
};

/** Good requests, put together by hand. */
export function requestStreams(extended: boolean): fc.Arbitrary<Buffer> {
  const request = fc
    .record({
      type: fc.nat({ max: 8 }),
      flags: fc.nat({ max: 0x1f }),
      cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      offset: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      count: fc.bigInt({ min: 0n, max: extended ? 2n ** 64n - 1n : 0xffff_ffffn }),
      payload: fc.uint8Array({ maxLength: 200 }),
      hasFlag: fc.boolean(),
    })
    .map(({ type, flags, cookie, offset, count, payload, hasFlag }) => {
      const carries = type === 1 || (extended && hasFlag);
      const length = carries ? BigInt(payload.length) : count;
      return g.cat(
        ...[g.u32(extended ? 0x21e41c71 : 0x25609513), g.u16(flags | (extended && hasFlag ? 0x20 : 0)), g.u16(type)],
        ...[g.u64(cookie), g.u64(offset), extended ? g.u64(length) : g.u32(Number(length)), carries ? payload : ''],
      );
    });
  return fc.array(request, { minLength: 1, maxLength: 8 }).map((list) => Buffer.concat(list));
}

const MADE = 200;

export const requestFamily: Family<RequestExample> = {
  name: 'requests',
  shapes: [COMPACT, EXTENDED],
  examples: (seed) => [
    ...transcripts().map((each) => ({
      origin: `the transcript ${each.name}`,
      extended: each.mode === 'extended',
      bytes: each.requests,
    })),
    ...[false, true].flatMap((extended) =>
      fc.sample(requestStreams(extended), { seed, numRuns: MADE }).map((bytes, index) => {
        return { origin: `stream ${index} of ${MADE}`, extended, bytes };
      }),
    ),
  ],
  check: ({ extended }, bytes, random) => {
    const expected = expectRequests(extended, bytes);
    takeCount();
    const seen = run(extended, bytes, random);
    const taken = takeCount();
    same('requests', seen.requests.join('\n'), expected.requests.join('\n'));
    same('the connection is lost', seen.violation, expected.violation);
    if (taken > 4096 + 2 * bytes.length) throw new Error(`buffers of ${taken} bytes for ${bytes.length}`);
    return expected.violation ? 'violation' : expected.isWhole ? 'all understood' : 'cut short';
  },
};

interface Requests {
  readonly requests: readonly Seen[];
  readonly violation: boolean;
  readonly isWhole: boolean;
}

/** NBD_CMD_WRITE has a payload of its length; with extended headers so has whatever carries PAYLOAD_LEN. */
export function expectRequests(extended: boolean, bytes: Buffer): Requests {
  const requests: Seen[] = [];
  const headerLength = extended ? 32 : 28;
  const magic = extended ? '21e41c71' : '25609513';
  let at = 0;
  for (; at < bytes.length;) {
    if (bytes.length - at >= 4 && bytes.toString('hex', at, at + 4) !== magic) {
      return { requests, violation: true, isWhole: false };
    }
    if (bytes.length - at < headerLength) return { requests, violation: false, isWhole: false };
    const flags = bytes.readUInt16BE(at + 4);
    const type = bytes.readUInt16BE(at + 6);
    const cookie = bytes.readBigUInt64BE(at + 8);
    const offset = bytes.readBigUInt64BE(at + 16);
    const count = extended ? bytes.readBigUInt64BE(at + 24) : BigInt(bytes.readUInt32BE(at + 24));
    at += headerLength;
    let payload = 'none';
    if (type === 1 || (extended && Math.floor(flags / 32) % 2 === 1)) {
      if (count > BigInt(PAYLOAD_LIMIT)) return { requests, violation: true, isWhole: false };
      const end = at + Number(count);
      if (end > bytes.length) return { requests, violation: false, isWhole: false };
      if (count > 0n) payload = isDropped(type) ? 'dropped' : bytes.toString('hex', at, end);
      at = end;
    }
    requests.push([type, flags, cookie, offset, count, payload].join());
  }
  return { requests, violation: false, isWhole: true };
}

/** A server takes the payload of what it knows only. */
const isDropped = (type: number): boolean => type > 1;

function run(extended: boolean, bytes: Buffer, random: Random): Omit<Requests, 'isWhole'> {
  const requests: Seen[] = [];
  const inPlace = random.oneIn(2);
  const decoder = new RequestDecoder(
    {
      payloadFor: (request, present) => {
        if (present !== null) same('the payload that is there', present.length, request.payloadLength);
        if (isDropped(request.type)) return null;
        return inPlace && present !== null ? present : Buffer.alloc(request.payloadLength);
      },
      request: (request) => requests.push(textOf(request)),
    },
    { extendedHeaders: extended, payloadLimit: PAYLOAD_LIMIT },
  );
  try {
    for (const segment of segments(bytes, random)) {
      const copy = Buffer.from(segment);
      decoder.push(copy);
      // Whatever was kept of the segment shows now, but what was given back in place.
      if (!inPlace) copy.fill(0xa5);
    }
  } catch (error) {
    if (!(error instanceof NbdProtocolError)) throw error;
    return { requests, violation: true };
  }
  return { requests, violation: false };
}

function textOf(request: Request): Seen {
  const { type, flags, cookieHigh, cookieLow, offset, count, payload, payloadLength } = request;
  const cookie = BigInt(cookieHigh) * 2n ** 32n + BigInt(cookieLow);
  const carried = payloadLength === 0 ? 'none' : payload === null ? 'dropped' : payload.toString('hex');
  return [type, flags, cookie, offset, count, carried].join();
}
