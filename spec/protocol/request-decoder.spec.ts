import { describe, expect, it } from '@jest/globals';
import { NbdProtocolError } from '../../lib/errors.js';
import { deliver } from '../support/deliver.js';
import { cat, u16, u32, u64 } from '../support/golden.js';
import { type Request, RequestDecoder, type RequestDecoderOptions } from '../../lib/protocol/request-decoder.js';

const compact = (flags: number, type: number, cookie: bigint, offset: bigint, count: number): Buffer =>
  cat(u32(0x25609513), u16(flags), u16(type), u64(cookie), u64(offset), u32(count));
const extended = (flags: number, type: number, cookie: bigint, offset: bigint, count: bigint): Buffer =>
  cat(u32(0x21e41c71), u16(flags), u16(type), u64(cookie), u64(offset), u64(count));

type Seen = [type: number, flags: number, cookie: string, offset: string, count: string, payload: string | null];

interface DecodeOptions extends Partial<RequestDecoderOptions> {
  /** False drops every payload. */
  accept?: boolean;
}

function open(options: DecodeOptions): { push(segment: Uint8Array): void; seen: Seen[] } {
  const seen: Seen[] = [];
  const decoder = new RequestDecoder(
    {
      payloadFor: (request) => (options.accept === false ? null : Buffer.alloc(request.payloadLength)),
      request: (r: Request) => {
        const cookie = ((BigInt(r.cookieHigh) << 32n) | BigInt(r.cookieLow)).toString(16);
        seen.push([r.type, r.flags, cookie, String(r.offset), String(r.count), r.payload?.toString() ?? null]);
      },
    },
    { extendedHeaders: options.extendedHeaders ?? false, payloadLimit: options.payloadLimit ?? 100 },
  );
  return { push: (segment) => decoder.push(Buffer.from(segment.buffer, segment.byteOffset, segment.length)), seen };
}

const CASES: readonly {
  name: string;
  bytes: Buffer;
  options?: DecodeOptions;
  seen: Seen[];
}[] = [
  {
    name: 'a read',
    bytes: compact(4, 0, 1n, 512n, 4096),
    seen: [[0, 4, '1', '512', '4096', null]],
  },
  {
    name: 'offset and cookie of 64 bits',
    bytes: compact(0, 5, 0xffffffff_fffffffen, 0xffffffff_ffffffffn, 0xffffffff),
    seen: [[5, 0, 'fffffffffffffffe', '18446744073709551615', '4294967295', null]],
  },
  {
    name: 'a write between two reads',
    bytes: cat(compact(0, 0, 1n, 0n, 1), compact(1, 1, 2n, 7n, 5), Buffer.from('hello'), compact(0, 3, 3n, 0n, 0)),
    seen: [
      [0, 0, '1', '0', '1', null],
      [1, 1, '2', '7', '5', 'hello'],
      [3, 0, '3', '0', '0', null],
    ],
  },
  {
    name: 'a write whose payload is not wanted: dropped, and the next request found behind it',
    bytes: cat(compact(0, 1, 1n, 0n, 6), Buffer.from('25609513ffff', 'hex'), compact(0, 0, 2n, 0n, 1)),
    options: { accept: false },
    seen: [
      [1, 0, '1', '0', '6', null],
      [0, 0, '2', '0', '1', null],
    ],
  },
  {
    name: 'a write of no bytes',
    bytes: cat(compact(0, 1, 1n, 0n, 0), compact(0, 0, 2n, 0n, 1)),
    seen: [
      [1, 0, '1', '0', '0', null],
      [0, 0, '2', '0', '1', null],
    ],
  },
  {
    name: 'extended headers: a length of 64 bits is an effect; a payload goes by its flag, or with a write',
    bytes: cat(
      extended(0, 6, 1n, 0n, 1n << 40n),
      extended(0x20, 1, 2n, 3n, 2n),
      Buffer.from('ab'),
      extended(0, 1, 3n, 0n, 1n),
      'c',
      extended(0x20, 7, 4n, 0n, 12n),
      Buffer.from('twelve bytes'),
    ),
    options: { extendedHeaders: true },
    seen: [
      [6, 0, '1', '0', '1099511627776', null],
      [1, 0x20, '2', '3', '2', 'ab'],
      [1, 0, '3', '0', '1', 'c'],
      [7, 0x20, '4', '0', '12', 'twelve bytes'],
    ],
  },
];

describe('RequestDecoder', () => {
  it.each(CASES)('decodes $name, however it is cut', ({ bytes, options, seen }) => {
    deliver(bytes, () => {
      const decoder = open(options ?? {});
      return {
        push: decoder.push,
        finish: () => {
          expect(decoder.seen).toEqual(seen);
        },
      };
    });
  });

  it('refuses a wrong magic at its fourth byte, before a header is complete', () => {
    const push = (bytes: Buffer) => (): void => {
      open({}).push(bytes);
    };
    expect(push(Buffer.of(0x25, 0x60, 0x95))).not.toThrow();
    expect(push(Buffer.from('GET '))).toThrow(NbdProtocolError);
    expect(push(extended(0, 0, 1n, 0n, 1n))).toThrow('request magic 0x21e41c71 instead of 0x25609513');
  });

  it('refuses a payload above the limit without asking for memory', () => {
    let asked = 0;
    const decoder = new RequestDecoder(
      {
        payloadFor: () => {
          asked += 1;
          return null;
        },
        request: () => undefined,
      },
      { extendedHeaders: true, payloadLimit: 100 },
    );
    expect(() => {
      decoder.push(extended(0x20, 0, 1n, 0n, (1n << 64n) - 1n));
    }).toThrow('18446744073709551615 bytes of payload, limit 100');
    expect(asked).toBe(0);
  });

  it('lets the sink keep a payload that lies whole in the chunk', () => {
    const chunk = cat(compact(0, 1, 1n, 0n, 5), Buffer.from('hello'), compact(0, 1, 2n, 0n, 5), Buffer.from('he'));
    const present: (Buffer | null)[] = [];
    const payloads: string[] = [];
    const decoder = new RequestDecoder(
      {
        payloadFor: (request, there) => {
          present.push(there);
          return there ?? Buffer.alloc(request.payloadLength);
        },
        request: ({ payload }) => payloads.push(String(payload)),
      },
      { extendedHeaders: false, payloadLimit: 100 },
    );
    decoder.push(chunk);
    decoder.push(Buffer.from('llo'));
    expect(present[0]?.buffer).toBe(chunk.buffer);
    expect(present[1]).toBeNull();
    expect(payloads).toEqual(['hello', 'hello']);
  });

  it('drops what follows stop(), also in the middle of a chunk', () => {
    const types: number[] = [];
    const decoder: RequestDecoder = new RequestDecoder(
      {
        payloadFor: () => null,
        request: ({ type }) => {
          types.push(type);
          if (type === 2) decoder.stop();
        },
      },
      { extendedHeaders: false, payloadLimit: 100 },
    );
    decoder.push(cat(compact(0, 2, 1n, 0n, 0), Buffer.from('anything at all, for as long as it likes')));
    decoder.push(compact(0, 0, 2n, 0n, 1));
    expect(types).toEqual([2]);
  });

  it('keeps a payload that has to wait, and all that follows, until there is memory for it', () => {
    const bytes = cat(
      compact(0, 1, 1n, 0n, 5),
      Buffer.from('first'),
      compact(0, 1, 2n, 0n, 6),
      Buffer.from('second'),
      compact(0, 3, 3n, 0n, 0),
    );
    for (let split = 0; split <= bytes.length; split += 1) {
      let isFull = true;
      const seen: string[] = [];
      const decoder = new RequestDecoder(
        {
          payloadFor: (request) => (isFull ? 'later' : Buffer.alloc(request.payloadLength)),
          request: ({ type, payload }) => seen.push(`${type} ${String(payload)}`),
        },
        { extendedHeaders: false, payloadLimit: 100 },
      );
      decoder.push(bytes.subarray(0, split));
      decoder.push(bytes.subarray(split));
      expect([seen, decoder.isWaiting]).toEqual([[], true]);
      decoder.resume();
      expect([seen, decoder.isWaiting]).toEqual([[], true]);
      isFull = false;
      decoder.resume();
      expect([seen, decoder.isWaiting]).toEqual([['1 first', '1 second', '3 null'], false]);
    }
  });
});
