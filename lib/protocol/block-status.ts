// The payload of block-status chunks: (length, flags) pairs, checked against the request and the export and returned as
// one typed array. A million extents take 10 ms as one array and 300 ms as a million objects; in memory that is new to
// the process up to 40 ms, which is why long chunks are decoded while they arrive.

import { Buffer } from '../util/buffer.js';
import { allocate } from '../util/memory.js';
import { add, highHalf, isWithin, lowHalf, MAX_U32, TWO_32, type U64 } from '../util/u64.js';

/** Flat (length, flags) pairs as in libnbd's extent callback: 32-bit, or 64-bit for the `64` and `Filter` calls. */
export type BlockStatusEntries = Uint32Array | BigUint64Array;

/** Maximum number of extents in one chunk, at most 16 MiB of payload: nbdkit sends up to 2^20, qemu-nbd 2^17. */
export const MAX_EXTENTS = 2 ** 20;

/** The part of a block-status request that its reply is checked against. */
export interface BlockStatusRequest {
  readonly count: U64;
  readonly offset: U64;
  readonly exportSize: U64;
  /** NBD_CMD_FLAG_REQ_ONE: only the first extent is used. */
  readonly onlyFirst: boolean;
  /** Whether to return 64-bit entries. */
  readonly wide: boolean;
}

export interface DecodedBlockStatus {
  readonly entries: BlockStatusEntries;
  /** Why the entries end early or cannot be used; null if they are valid. */
  readonly problem: { readonly code: 'EPROTO' | 'EOVERFLOW'; readonly reason: string } | null;
}

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
// Index of the high half of a 64-bit element in a Uint32Array over the same memory.
const HIGH = LITTLE_ENDIAN ? 1 : 0;
const LOW = 1 - HIGH;

/** Descriptors that sumOfBlock() checks together. */
const BLOCK = 8;

/** Length to which an extent that exceeds 32 bits is truncated: a multiple of every block size, as in libnbd. */
const MAX_NARROW_LENGTH = TWO_32 - 65536;

/**
 * Decodes the descriptors; `data` is what follows the context ID and count. Extents that start at or after the end of
 * the request are dropped, as is everything from a later extent of length 0. A first extent of length 0, and an extent
 * that reaches beyond the export, are errors of the server. With `mayKeep`, `data` may be byte-swapped in place and
 * returned as the entries.
 */
export function decodeBlockStatus(
  data: Buffer,
  extendedDescriptors: boolean,
  request: BlockStatusRequest,
  mayKeep = false,
): DecodedBlockStatus {
  const chunk = new ArrivingBlockStatus(mayKeep ? data : copyOf(data), extendedDescriptors, request);
  chunk.arrived(data.length);
  return chunk.decoded();
}

/** A chunk whose bytes arrive in parts, each of which is decoded at once. It owns the memory. */
export class ArrivingBlockStatus {
  readonly #bytes: Buffer;
  /** The same memory, as far as it has been decoded in this machine's byte order. */
  readonly #words: Uint32Array;
  /** The descriptors with 64 bits for each number, where they have 32 and 64 are wanted. */
  readonly #widened: Uint32Array | null;
  readonly #isExtended: boolean;
  readonly #request: BlockStatusRequest;
  /** Words decoded, extents found usable, and the bytes that these cover. */
  #have = 0;
  #used = 0;
  #covered: U64 = 0;
  #isPlain: boolean;

  constructor(data: Buffer, extendedDescriptors: boolean, request: BlockStatusRequest) {
    const bytes = data.byteOffset % (extendedDescriptors ? 8 : 4) === 0 ? data : copyOf(data);
    const { count, offset, exportSize, wide } = request;
    this.#bytes = bytes;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#widened = wide && !extendedDescriptors ? new Uint32Array(this.#words.length * 2) : null;
    this.#isExtended = extendedDescriptors;
    this.#request = request;
    this.#isPlain =
      (wide || !extendedDescriptors) &&
      typeof count === 'number' &&
      typeof offset === 'number' &&
      typeof exportSize === 'number';
  }

  /** The first `length` bytes are there. */
  arrived(length: number): void {
    const from = this.#have;
    const until = this.#isExtended ? (length >> 3) * 2 : length >> 2;
    if (until <= from) return;
    this.#have = until;
    if (LITTLE_ENDIAN) {
      const bytes = this.#bytes.subarray(from * 4, until * 4);
      if (this.#isExtended) bytes.swap64();
      else bytes.swap32();
    }
    const widened = this.#widened;
    if (widened !== null) {
      const words = this.#words;
      for (let at = from; at < until; at++) widened[at * 2 + LOW] = words[at] as number;
    }
    if (this.#isPlain) this.#findUsable();
  }

  /** All bytes are there. */
  decoded(): DecodedBlockStatus {
    const { onlyFirst, wide, count, offset, exportSize } = this.#request;
    const words = this.#words;
    const extendedDescriptors = this.#isExtended;
    const stride = extendedDescriptors ? 4 : 2;
    const wanted = onlyFirst ? 1 : words.length / stride;
    let used = Math.min(this.#used, wanted);
    let covered = used === this.#used ? this.#covered : count;
    let problem: DecodedBlockStatus['problem'] = null;
    let lastLength: U64 | null = null;
    while (used < wanted && covered < count) {
      const at = used * stride;
      const length = extendedDescriptors ? join(words[at + HIGH] ?? 0, words[at + LOW] ?? 0) : (words[at] ?? 0);
      if (length === 0) {
        if (used === 0) problem = { code: 'EPROTO', reason: 'the first extent has length 0' };
        break;
      }
      if (!isWithin(offset, add(covered, length), exportSize)) {
        problem = { code: 'EPROTO', reason: `extent ${used} extends beyond the export of ${exportSize} bytes` };
        break;
      }
      if (extendedDescriptors && !wide) {
        if ((words[at + 2 + HIGH] ?? 0) !== 0) {
          if (used === 0) problem = { code: 'EOVERFLOW', reason: 'its flags need 64 bits: use blockStatus64' };
          break;
        }
        if (length > MAX_U32) {
          lastLength = MAX_NARROW_LENGTH;
          used++;
          break;
        }
      }
      covered = add(covered, length);
      used++;
    }
    return { entries: this.#pack(used, lastLength), problem };
  }

  /**
   * The fast path: extents within the request, with plain numbers. The careful loop continues where this one stops, so
   * that a map of a million extents is checked in two milliseconds.
   */
  #findUsable(): void {
    const words = this.#words;
    const isExtended = this.#isExtended;
    const limit = Math.min(
      Number(this.#request.count),
      Number(this.#request.exportSize) - Number(this.#request.offset),
    );
    const stride = isExtended ? 4 : 2;
    const end = Math.floor(this.#have / stride);
    let used = this.#used;
    let covered = Number(this.#covered);
    const integers = isExtended || end - used < BLOCK ? null : new Int32Array(words.buffer, words.byteOffset);
    for (let single = 0; used < end; used++) {
      if (integers !== null && used >= single) {
        // Most extents are short: the sum of eight is checked in a third of the time of eight sums.
        for (; used + BLOCK <= end; used += BLOCK) {
          const sum = sumOfBlock(integers, used * 2);
          if (sum === 0 || covered + sum > limit) break;
          covered += sum;
        }
        if (used >= end) break;
        single = used + BLOCK;
      }
      const at = used * stride;
      // Sums of such lengths up to the limit are exact; what is above it is not taken.
      const length = isExtended
        ? (words[at + LOW] as number) + (words[at + HIGH] as number) * TWO_32
        : (words[at] as number);
      if (length === 0 || covered + length > limit) {
        this.#isPlain = false;
        break;
      }
      covered += length;
    }
    this.#used = used;
    this.#covered = covered;
  }

  #pack(used: number, lastLength: U64 | null): BlockStatusEntries {
    const words = this.#words;
    const widened = this.#widened;
    if (widened !== null) return new BigUint64Array(widened.buffer, 0, used * 2);
    if (!this.#isExtended) return words.subarray(0, used * 2);
    if (this.#request.wide) return new BigUint64Array(words.buffer, words.byteOffset, used * 2);
    const out = new Uint32Array(used * 2);
    for (let i = 0; i < used * 2; i++) out[i] = words[i * 2 + LOW] ?? 0;
    if (lastLength !== null) out[used * 2 - 2] = Number(lastLength);
    return out;
  }
}

/** The lengths of eight descriptors of 32 bits; 0 unless each is from 1 to 2^27, so that the sum is exact. */
function sumOfBlock(words: Int32Array, at: number): number {
  const a = words[at] as number;
  const b = words[at + 2] as number;
  const c = words[at + 4] as number;
  const d = words[at + 6] as number;
  const e = words[at + 8] as number;
  const f = words[at + 10] as number;
  const g = words[at + 12] as number;
  const h = words[at + 14] as number;
  const bits = (a - 1) | (b - 1) | (c - 1) | (d - 1) | (e - 1) | (f - 1) | (g - 1) | (h - 1);
  return bits >>> 27 === 0 ? (a + b + c + d + e + f + g + h) | 0 : 0;
}

function join(high: number, low: number): U64 {
  const value = high * TWO_32 + low;
  return value <= Number.MAX_SAFE_INTEGER ? value : (BigInt(high) << 32n) | BigInt(low);
}

function copyOf(data: Buffer): Buffer {
  const bytes = allocate(data.length);
  data.copy(bytes);
  return bytes;
}

/** The payload of a BLOCK_STATUS command with a filter: the effect length, followed by the context IDs. */
export function encodeBlockStatusFilter(count: U64, contextIds: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8 + 4 * contextIds.length);
  bytes.writeUInt32BE(highHalf(count), 0);
  bytes.writeUInt32BE(lowHalf(count), 4);
  contextIds.forEach((id, index) => bytes.writeUInt32BE(id, 8 + 4 * index));
  return bytes;
}
