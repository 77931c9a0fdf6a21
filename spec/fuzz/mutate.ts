// Good bytes to bad ones. Some changes know nothing of the protocol; some know where a header's fields lie, because
// a flipped bit in 4 KiB of payload teaches nothing.

import { type Random } from './random.js';

/** A field of a header: where it is and how many bytes it has. */
export interface Field {
  readonly at: number;
  readonly width: 2 | 4 | 8;
}

/** Where a message begins, by its magic, and the fields that follow it. */
export interface MessageShape {
  readonly magic: Buffer;
  readonly fields: readonly Field[];
}

/** The fields of every message in the bytes; also of what only looks like one. */
export function findFields(bytes: Buffer, shapes: readonly MessageShape[]): Field[] {
  const found: Field[] = [];
  for (const { magic, fields } of shapes) {
    for (let at = bytes.indexOf(magic); at >= 0; at = bytes.indexOf(magic, at + 1)) {
      for (const field of fields) {
        if (at + field.at + field.width <= bytes.length) found.push({ at: at + field.at, width: field.width });
      }
    }
  }
  return found;
}

/** Numbers at which length checks break. */
const EDGES: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n, 12n, 14n, 16n, 20n, 24n, 28n, 32n, 255n, 256n, 4096n, 4097n],
  ...[0x7fffn, 0x8000n, 0x8001n, 0x8002n, 0xffffn, 0x1_0000n, 1n << 25n, (1n << 25n) + 1n, 1n << 26n, (1n << 26n) + 8n],
  ...[0x7fff_ffffn, 0x8000_0000n, 0x8000_0001n, 0xffff_ffffn, 0x1_0000_0000n, 0x1_0000_0208n],
  ...[0x001f_ffff_ffff_ffffn, 0x0020_0000_0000_0000n, 0x7fff_ffff_ffff_ffffn, 1n << 63n, 0xffff_ffff_ffff_ffffn],
];

function put(bytes: Buffer, { at, width }: Field, value: bigint): void {
  if (width === 2) bytes.writeUInt16BE(Number(BigInt.asUintN(16, value)), at);
  else if (width === 4) bytes.writeUInt32BE(Number(BigInt.asUintN(32, value)), at);
  else bytes.writeBigUInt64BE(BigInt.asUintN(64, value), at);
}

function get(bytes: Buffer, { at, width }: Field): bigint {
  return width === 8 ? bytes.readBigUInt64BE(at) : BigInt(bytes.readUIntBE(at, width));
}

type Mutation = (bytes: Buffer, random: Random, other: Buffer, shapes: readonly MessageShape[]) => Buffer;

/** Changes that leave the length alone work on a copy. */
const inPlace =
  (change: (bytes: Buffer, random: Random) => void): Mutation =>
  (bytes, random) => {
    const out = Buffer.from(bytes);
    if (out.length > 0) change(out, random);
    return out;
  };

const range = (bytes: Buffer, random: Random, most: number): Buffer => {
  const from = random.below(bytes.length + 1);
  return bytes.subarray(from, Math.min(bytes.length, from + 1 + random.below(most)));
};

const flipBits = inPlace((bytes, random) => {
  for (let left = 1 + random.below(4); left > 0; left--) {
    const at = random.below(bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
  }
});

const setByte = inPlace((bytes, random) => {
  bytes[random.below(bytes.length)] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
});

/** Anything anywhere becomes a number at an edge. */
const setNumber = inPlace((bytes, random) => {
  const width = random.pick([2, 4, 8] as const);
  if (bytes.length >= width) put(bytes, { at: random.below(bytes.length - width + 1), width }, random.pick(EDGES));
});

/** A field becomes a number at an edge, a bit more or less than it was, another field's value, or twice as large. */
const setField: Mutation = (bytes, random, _other, shapes) => {
  const fields = findFields(bytes, shapes);
  if (fields.length === 0) return flipBits(bytes, random, bytes, shapes);
  const out = Buffer.from(bytes);
  const field = random.pick(fields);
  const before = get(out, field);
  const value = random.pick([
    random.pick(EDGES),
    before + BigInt(random.between(-9, 9)),
    before * 2n,
    before ^ (1n << BigInt(random.below(field.width * 8))),
    get(out, random.pick(fields)),
  ]);
  put(out, field, value);
  return out;
};

const truncate: Mutation = (bytes, random) => bytes.subarray(0, random.below(bytes.length + 1));

const remove: Mutation = (bytes, random) => {
  const gone = range(bytes, random, 64);
  const from = gone.byteOffset - bytes.byteOffset;
  return Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + gone.length)]);
};

/** Bytes of the same stream, or of another one, or random ones, come in somewhere. */
const insert: Mutation = (bytes, random, other) => {
  const at = random.below(bytes.length + 1);
  const more = random.pick([() => range(bytes, random, 256), () => range(other, random, 256), () => random.bytes(4)])();
  return Buffer.concat([bytes.subarray(0, at), more, bytes.subarray(at)]);
};

/** The beginning of one stream and the end of another. */
const splice: Mutation = (bytes, random, other) =>
  Buffer.concat([bytes.subarray(0, random.below(bytes.length + 1)), other.subarray(random.below(other.length + 1))]);

/** Message borders: where a stream can be taken apart and put together again in another order. */
function messages(bytes: Buffer, shapes: readonly MessageShape[]): Buffer[] {
  const starts = new Set([0, bytes.length]);
  for (const { magic } of shapes) {
    for (let at = bytes.indexOf(magic); at >= 0; at = bytes.indexOf(magic, at + 1)) starts.add(at);
  }
  const sorted = [...starts].sort((a, b) => a - b);
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end));
}

/** Whole messages change places, come twice, or do not come. */
const rearrange: Mutation = (bytes, random, other, shapes) => {
  const parts = messages(bytes, shapes);
  const what = random.below(4);
  if (what === 0) return Buffer.concat(random.shuffle(parts));
  if (what === 1) parts.splice(random.below(parts.length), 1);
  else if (what === 2) parts.splice(random.below(parts.length + 1), 0, random.pick(parts));
  else parts.splice(random.below(parts.length + 1), 0, random.pick(messages(other, shapes)));
  return Buffer.concat(parts);
};

const MUTATIONS: readonly Mutation[] = [
  flipBits,
  setByte,
  setNumber,
  ...[setField, setField, setField, setField],
  truncate,
  remove,
  insert,
  splice,
  ...[rearrange, rearrange],
];

/** One to four changes. One input in sixteen stays as it is, so that the way of success is fuzzed as well. */
export function mutate(bytes: Buffer, other: Buffer, shapes: readonly MessageShape[], random: Random): Buffer {
  if (random.oneIn(16)) return bytes;
  let out = bytes;
  for (let left = 1 + (random.oneIn(2) ? 0 : random.below(4)); left > 0; left--) {
    out = random.pick(MUTATIONS)(out, random, other, shapes);
    // A stream that is empty, or that many insertions have made long, teaches nothing more.
    if (out.length === 0 || out.length > 65536) break;
  }
  return out;
}
