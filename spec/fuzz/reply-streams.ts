// Valid replies by the stream: commands of every kind, their replies in any pieces and any order, and what must become
// of each. Bytes are put together by hand (golden.ts), not by the package's encoder.

import fc from 'fast-check';

import * as g from '../support/golden.js';
import { type Asked, type ReplyContext, type ReplyMode } from './reply-reference.js';

/** What a command must come to. */
export interface Planned {
  /** 'ok', or the server's errno name. */
  readonly ending: string;
  /** A read's bytes. */
  readonly data?: Buffer;
  /** The extents of each context, flat. */
  readonly extents?: ReadonlyMap<string, readonly bigint[]>;
}

export interface ReplyStream extends ReplyContext {
  readonly asked: readonly Asked[];
  readonly planned: readonly Planned[];
  readonly bytes: Buffer;
}

/** One command, and the chunks that answer it. A simple reply is one chunk. */
interface Exchange {
  readonly asked: Asked;
  readonly planned: Planned;
  chunks(cookie: number): Buffer[];
}

const CONTEXTS = new Map([
  [1, 'base:allocation'],
  [7, 'x-context:depth'],
]);
const ERRNOS: Readonly<Record<string, number>> = {
  ...{ EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28, EOVERFLOW: 75, ENOTSUP: 95, ESHUTDOWN: 108 },
};
/** Where exports and ranges begin to be bigints, and where 64 bits end. */
const BASES = [0n, 4096n, 2n ** 32n - 512n, 2n ** 53n - 2000n, 2n ** 53n + 1n, 2n ** 63n] as const;
const EXPORT_SIZE = 2n ** 63n + 2n ** 40n;
const LONGEST = 3000;

const offset = fc
  .tuple(fc.constantFrom(...BASES), fc.integer({ min: 0, max: 100_000 }))
  .map(([base, more]) => base + BigInt(more));
const keys = fc.array(fc.nat({ max: 99 }), { minLength: 8, maxLength: 8 });
const message = fc.string({ unit: fc.constantFrom(...'server says no. €ä\u001b"'.split('')), maxLength: 30 });
const failure = fc.record({
  code: fc.constantFrom(...Object.keys(ERRNOS), 'unknown'),
  message,
  /** A chunk type of its own, which clients must take for an error too. */
  type: fc.constantFrom(g.ERROR, g.ERROR, 0x80ff),
});
type Failure = typeof failure extends fc.Arbitrary<infer T> ? T : never;

function framed(
  mode: ReplyMode,
  asked: Asked,
  done: boolean,
  type: number,
  payload: Uint8Array,
  cookie: number,
): Buffer {
  const flags = done ? g.DONE : 0;
  return mode === 'extended'
    ? g.extendedChunk(flags, type, cookie, asked.offset, payload)
    : g.chunk(flags, type, cookie, payload);
}

const wireOf = (code: string): number => ERRNOS[code] ?? 9999;
const endingOf = ({ code }: Failure): string => (code === 'unknown' ? 'EINVAL' : code);

function failed(mode: ReplyMode, asked: Asked, fault: Failure): Exchange {
  const text = Buffer.from(fault.message);
  const payload = g.cat(g.u32(wireOf(fault.code)), g.u16(text.length), text);
  return {
    asked,
    planned: { ending: endingOf(fault) },
    chunks: (cookie) => [
      mode === 'simple' ? g.simple(cookie, wireOf(fault.code)) : framed(mode, asked, true, fault.type, payload, cookie),
    ],
  };
}

/** Cuts a range at these numbers; pieces in the order of their keys. */
interface Pieces {
  readonly cuts: readonly number[];
  readonly isHole: readonly boolean[];
  readonly order: readonly number[];
}

const pieces = fc.record({
  cuts: fc.array(fc.nat({ max: LONGEST }), { maxLength: 6 }),
  isHole: fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
  order: keys,
});

function cut(count: number, { cuts, isHole, order }: Pieces): { start: number; length: number; isHole: boolean }[] {
  const borders = [...new Set([0, count, ...cuts.map((at) => at % count)])].sort((a, b) => a - b);
  return borders
    .slice(1)
    .map((end, index) => ({
      key: order[index] ?? 0,
      start: borders[index] ?? 0,
      length: end - (borders[index] ?? 0),
      isHole: isHole[index] === true,
    }))
    .sort((a, b) => a.key - b.key);
}

const reads = (mode: ReplyMode): fc.Arbitrary<Exchange> =>
  fc
    .record({
      method: fc.constantFrom('pread' as const, 'preadStructured' as const),
      count: fc.integer({ min: 1, max: LONGEST }),
      offset,
      onePiece: fc.boolean(),
      pieces,
      separateDone: fc.boolean(),
      fault: fc.option(failure, { freq: 5 }),
      /** An error may follow some of the data, and contain an offset. */
      late: fc.boolean(),
      salt: fc.nat({ max: 255 }),
    })
    .map(({ method, count, offset: at, onePiece, pieces: how, separateDone, fault, late, salt }) => {
      const flags = onePiece && method === 'preadStructured' && mode !== 'simple' ? 4 : 0;
      const asked: Asked = { method, count: BigInt(count), offset: at, flags };
      if (fault !== null && (mode === 'simple' || !late)) return failed(mode, asked, fault);
      const data = g.content(salt, count);
      if (mode === 'simple') {
        return { asked, planned: { ending: 'ok', data }, chunks: (cookie) => [g.simple(cookie, 0, data)] };
      }
      const parts = cut(count, flags === 4 ? { ...how, cuts: [] } : how);
      for (const part of parts) if (part.isHole) data.fill(0, part.start, part.start + part.length);
      const bodies = parts.map(({ start, length, isHole }): [number, Buffer] =>
        isHole
          ? [g.HOLE, g.cat(g.u64(at + BigInt(start)), g.u32(length))]
          : [g.DATA, g.cat(g.u64(at + BigInt(start)), data.subarray(start, start + length))],
      );
      if (fault !== null) {
        // In place of the first piece.
        const text = Buffer.from(fault.message);
        const where = g.u64(at + BigInt(parts[0]?.start ?? 0));
        bodies[0] = [g.ERROR_OFFSET, g.cat(g.u32(wireOf(fault.code)), g.u16(text.length), text, where)];
      }
      if (separateDone) bodies.push([g.NONE, Buffer.alloc(0)]);
      return {
        asked,
        planned: fault === null ? { ending: 'ok', data } : { ending: endingOf(fault) },
        chunks: (cookie) =>
          bodies.map(([type, body], index) => framed(mode, asked, index === bodies.length - 1, type, body, cookie)),
      };
    });

const plainCommands = (mode: ReplyMode): fc.Arbitrary<Exchange> =>
  fc
    .record({
      method: fc.constantFrom('pwrite', 'flush', 'trim', 'cache', 'zero'),
      count: fc.integer({ min: 1, max: 1 << 20 }),
      offset,
      fault: fc.option(failure, { freq: 4 }),
      simple: fc.boolean(),
    })
    .map(({ method, count, offset: at, fault, simple }) => {
      const hasRange = method !== 'flush';
      const asked: Asked = { method, count: hasRange ? BigInt(count) : 0n, offset: hasRange ? at : 0n, flags: 0 };
      // Where structured replies were negotiated, these may be answered either way.
      const isSimple = mode === 'simple' || (mode === 'structured' && simple);
      if (fault !== null) return failed(isSimple ? 'simple' : mode, asked, fault);
      return {
        asked,
        planned: { ending: 'ok' },
        chunks: (cookie) => [isSimple ? g.simple(cookie) : framed(mode, asked, true, g.NONE, Buffer.alloc(0), cookie)],
      };
    });

const statuses = (mode: ReplyMode): fc.Arbitrary<Exchange> => {
  const wide = mode === 'extended';
  const extent = fc.tuple(
    fc.integer({ min: 1, max: 1 << 22 }).map(BigInt),
    fc.oneof(fc.constantFrom(0n, 1n, 2n, 3n), fc.bigInt({ min: 0n, max: wide ? 2n ** 64n - 1n : 0xffff_ffffn })),
  );
  return fc
    .record({
      offset,
      isOne: fc.boolean(),
      perContext: fc.array(fc.array(extent, { minLength: 1, maxLength: 8 }), { minLength: 2, maxLength: 2 }),
      reverse: fc.boolean(),
      separateDone: fc.boolean(),
      fault: fc.option(failure, { freq: 6 }),
      beyond: fc.boolean(),
    })
    .map(({ offset: at, isOne, perContext, reverse, separateDone, fault, beyond }) => {
      const lists = perContext.map((list) => (isOne ? list.slice(0, 1) : list));
      const sums = lists.map((list) => list.reduce((sum, [length]) => sum + length, 0n));
      // Extents may end before the request does, or the last one behind it.
      const longest = sums.reduce((a, b) => (a > b ? a : b));
      const heads = lists.map((list, i) => (sums[i] ?? 0n) - (list.at(-1)?.[0] ?? 0n));
      const count = beyond ? heads.reduce((a, b) => (a > b ? a : b)) + 1n : longest + 1n;
      const narrow = lists.flat().every(([, bits]) => bits <= 0xffff_ffffn);
      const asked: Asked = {
        method: narrow && wide ? 'blockStatus' : 'blockStatus64',
        ...{ count, offset: at, flags: isOne ? 8 : 0 },
      };
      if (fault !== null) return failed(mode, asked, fault);
      const ids = [...CONTEXTS.keys()];
      const bodies = ids.map((id, index): [number, Buffer] => {
        const flat = (lists[index] ?? []).flat();
        return wide
          ? [g.STATUS_EXT, g.cat(g.u32(id), g.u32(flat.length / 2), ...flat.map((value) => g.u64(value)))]
          : [g.STATUS, g.cat(g.u32(id), ...flat.map((value) => g.u32(Number(value))))];
      });
      if (reverse) bodies.reverse();
      if (separateDone) bodies.push([g.NONE, Buffer.alloc(0)]);
      const extents = new Map(ids.map((id, index) => [CONTEXTS.get(id) ?? '', (lists[index] ?? []).flat()]));
      return {
        asked,
        planned: { ending: 'ok', extents },
        chunks: (cookie) =>
          bodies.map(([type, body], index) => framed(mode, asked, index === bodies.length - 1, type, body, cookie)),
      };
    });
};

/** Deals the chunks of all replies out: in order within each reply, in any order among them. */
function merge(replies: readonly Buffer[][], picks: readonly number[]): Buffer {
  const left = replies.map((chunks) => [...chunks]);
  const out: Buffer[] = [];
  for (let turn = 0; left.some((chunks) => chunks.length > 0); turn++) {
    const waiting = left.filter((chunks) => chunks.length > 0);
    const chunk = waiting[(picks[turn % picks.length] ?? 0) % waiting.length]?.shift();
    if (chunk !== undefined) out.push(chunk);
  }
  return Buffer.concat(out);
}

/** Streams of one to six replies in this style. */
export function replyStreams(mode: ReplyMode): fc.Arbitrary<ReplyStream> {
  const kinds = [reads(mode), reads(mode), plainCommands(mode), ...(mode === 'simple' ? [] : [statuses(mode)])];
  return fc
    .record({
      exchanges: fc.array(fc.oneof(...kinds), { minLength: 1, maxLength: 6 }),
      picks: fc.array(fc.nat({ max: 9 }), { minLength: 1, maxLength: 12 }),
    })
    .map(({ exchanges, picks }) => ({
      mode,
      exportSize: EXPORT_SIZE,
      contexts: mode === 'simple' ? new Map<number, string>() : CONTEXTS,
      asked: exchanges.map((each) => each.asked),
      planned: exchanges.map((each) => each.planned),
      bytes: merge(
        exchanges.map((each, index) => each.chunks(index + 1)),
        picks,
      ),
    }));
}
