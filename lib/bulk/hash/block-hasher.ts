// The hash of libblkhash and of `nbdcopy --blkhash`, made while bytes arrive in any order. Invariant: there is a digest
// only when every byte of the size was given exactly once.

import type { ByteCount } from '../../client/export.js';
import { Buffer } from '../../util/buffer.js';
import { nodeModule } from '../../util/platform.js';
import { inNextTurn } from '../../util/timers.js';
import { NbdStrictError } from '../../errors.js';
import { aString, byteCount, checkOptions, powerOfTwo, shown } from '../../util/option-checks.js';
import { isAllZero } from '../zeroes.js';

/** What {@link BlockHasher} takes. */
export interface BlockHasherOptions {
  /** A name that `crypto.createHash` knows. Default `sha256`. */
  algorithm?: string | undefined;
  /** Bytes of one block: a power of 2 up to 1 GiB. Default 64 KiB, which is nbdcopy's. */
  blockSize?: number | undefined;
}

const DEFAULT_BLOCK = 64 * 1024;
const MAX_BLOCK = 2 ** 30;
/** Digests of zero blocks that are hashed by one call into C++. */
const MANY = 1024;
/** Digests of zero blocks that one call of a method hashes, so that it does not hold the event loop: some 10 ms. */
export const ZERO_BLOCKS_A_TURN = 2 ** 18;

/** A shorter run of zero blocks is kept as its digests, so that a fine map does not make a long list of runs. */
const SHORT_RUN = 64;

const BLOCK_HASHER_OPTIONS = { algorithm: aString, blockSize: powerOfTwo(1, MAX_BLOCK) };

/** A block of which a part is known. */
interface Partial {
  readonly bytes: Buffer;
  /** The parts, in order, joined where they touch. */
  spans: (readonly [start: number, end: number])[];
}

/** Zero blocks of which the digest has not been hashed yet. */
interface Zeroes {
  readonly first: number;
  readonly end: number;
}

/**
 * Computes the block hash of an export or a file while it is read or copied: with H as the algorithm,
 * `H(H(block 0) ‖ H(block 1) ‖ … ‖ size as 64 bits, little-endian)`. The last block has its own length. Bytes come in
 * any order and in any pieces; blocks of zeroes cost next to nothing. What comes out of order is kept, a digest for
 * each block.
 *
 * @example
 * const hasher = new BlockHasher({ algorithm: 'sha256' });
 * await copy(from, to, { hash: hasher });
 * console.log(await hasher.digest());
 */
export class BlockHasher {
  /** The name of the algorithm. */
  readonly algorithm: string;
  /** Bytes of one block. */
  readonly blockSize: number;
  readonly #whole: Hash;
  readonly #zero: Buffer;
  readonly #manyZeroes: Buffer;
  /** The next block whose digest is hashed. */
  #next = 0;
  /** Digests of blocks above `next`. */
  readonly #ready = new Map<number, Buffer>();
  /** By their first block. */
  readonly #zeroes = new Map<number, Zeroes>();
  readonly #partial = new Map<number, Partial>();
  #end = 0n;
  #isDone = false;

  /** @throws NbdStrictError `EINVAL` for bad options, an unknown algorithm among them. */
  constructor(options: BlockHasherOptions = {}) {
    const checked = checkOptions<BlockHasherOptions>('BlockHasher', options, BLOCK_HASHER_OPTIONS);
    this.algorithm = checked.algorithm ?? 'sha256';
    this.blockSize = checked.blockSize ?? DEFAULT_BLOCK;
    this.#whole = newHash(this.algorithm, 'BlockHasher');
    const zero = newHash(this.algorithm, 'BlockHasher');
    const step = Buffer.alloc(Math.min(this.blockSize, DEFAULT_BLOCK));
    for (let done = 0; done < this.blockSize; done += step.length) zero.update(step);
    this.#zero = zero.digest();
    this.#manyZeroes = Buffer.concat(Array.from({ length: MANY }, () => this.#zero));
  }

  /** Bytes at `offset`. They may be changed afterwards. */
  update(offset: ByteCount, bytes: Uint8Array): void {
    if (!ArrayBuffer.isView(bytes)) throw refused('update', `bytes must be a Uint8Array, not ${shown(bytes)}`);
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const start = this.#begin('update', offset, BigInt(buffer.length));
    const { blockSize } = this;
    let index = Number(start / BigInt(blockSize));
    for (let at = 0, within = Number(start % BigInt(blockSize)); at < buffer.length; index++, within = 0) {
      const count = Math.min(blockSize - within, buffer.length - at);
      if (count === blockSize) this.#complete(index, buffer, at);
      else this.#add(index, within, count, buffer.subarray(at, at + count));
      at += count;
    }
    this.#feed();
  }

  /** Zeroes at `offset`. */
  zero(offset: ByteCount, length: ByteCount): void {
    const count = BigInt(byteCount()('BlockHasher.zero: length', length));
    const start = this.#begin('zero', offset, count);
    const blockSize = BigInt(this.blockSize);
    const end = start + count;
    let first = start / blockSize;
    const last = end / blockSize;
    if (first === last) {
      this.#add(Number(first), Number(start % blockSize), Number(count), null);
      return;
    }
    const head = Number(start % blockSize);
    if (head > 0) this.#add(Number(first++), head, this.blockSize - head, null);
    if (last > first) {
      this.#addZeroes(Number(first), Number(last));
    }
    const tail = Number(end % blockSize);
    if (tail > 0) this.#add(Number(last), 0, tail, null);
    this.#feed();
  }

  /**
   * The hash, in hexadecimal. Nothing can be added afterwards.
   *
   * @param size Bytes in all. Default: up to the end of the last piece.
   * @param signal Ends it with its reason: many zero blocks take a while, during which the event loop runs.
   * @throws NbdStrictError `EINVAL` when a byte of the size was not given, or one beyond it was.
   */
  async digest(size?: ByteCount, signal?: AbortSignal): Promise<string> {
    this.#checkOpen('digest');
    const total = size === undefined ? this.#end : BigInt(byteCount()('BlockHasher.digest: size', size));
    const blocks = Number(total / BigInt(this.blockSize));
    const rest = Number(total % BigInt(this.blockSize));
    if (total < this.#end) throw refused('digest', `bytes up to ${this.#end} were given, more than ${total}`);
    while (this.#feed()) {
      await new Promise<void>((resolve) => inNextTurn(resolve));
      signal?.throwIfAborted();
    }
    const tail = this.#partial.get(blocks);
    const [span] = tail?.spans ?? [];
    const isTailWhole = rest === 0 ? tail === undefined : span?.[0] === 0 && span[1] === rest;
    if (this.#next !== blocks || !isTailWhole) {
      throw refused('digest', `bytes are missing from ${BigInt(this.#next) * BigInt(this.blockSize)} on`);
    }
    if (tail !== undefined) this.#whole.update(this.#digestOf(tail.bytes.subarray(0, rest)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(total);
    this.#isDone = true;
    return this.#whole.update(length).digest('hex');
  }

  #begin(method: string, offset: ByteCount, length: bigint): bigint {
    this.#checkOpen(method);
    const start = BigInt(byteCount()(`BlockHasher.${method}: offset`, offset));
    if (length > 0n && start + length > this.#end) this.#end = start + length;
    return start;
  }

  #checkOpen(what: string): void {
    if (this.#isDone) throw refused(what, 'the digest was taken already');
  }

  #checkNew(first: number, end: number): void {
    let isKnown = first < this.#next;
    if (end - first === 1) isKnown ||= this.#ready.has(first) || this.#partial.has(first);
    else
      for (const index of [...this.#ready.keys(), ...this.#partial.keys()]) isKnown ||= index >= first && index < end;
    for (const zeroes of this.#zeroes.values()) isKnown ||= first < zeroes.end && zeroes.first < end;
    if (isKnown) throw refused('update', `bytes of block ${first} were given twice`);
  }

  #addZeroes(first: number, end: number): void {
    this.#checkNew(first, end);
    if (end - first > SHORT_RUN) this.#zeroes.set(first, { first, end });
    else for (let index = first; index < end; index++) this.#ready.set(index, this.#zero);
  }

  #complete(index: number, buffer: Buffer, at: number): void {
    this.#checkNew(index, index + 1);
    const end = at + this.blockSize;
    this.#ready.set(index, isAllZero(buffer, at, end) ? this.#zero : this.#digestOf(buffer.subarray(at, end)));
  }

  /** A part of a block; zeroes where `bytes` is null. */
  #add(index: number, start: number, length: number, bytes: Buffer | null): void {
    if (length === 0) return;
    let partial = this.#partial.get(index);
    if (partial === undefined) {
      this.#checkNew(index, index + 1);
      partial = { bytes: Buffer.alloc(this.blockSize), spans: [] };
      this.#partial.set(index, partial);
    }
    const end = start + length;
    const spans: (readonly [number, number])[] = [];
    let joined: readonly [number, number] = [start, end];
    for (const span of partial.spans) {
      if (span[0] < end && start < span[1]) throw refused('update', `bytes of block ${index} were given twice`);
      if (span[1] === joined[0]) joined = [span[0], joined[1]];
      else if (span[0] === joined[1]) joined = [joined[0], span[1]];
      else spans.push(span);
    }
    partial.spans = [...spans, joined].sort((a, b) => a[0] - b[0]);
    if (bytes !== null) bytes.copy(partial.bytes, start);
    if (joined[1] - joined[0] < this.blockSize) return;
    this.#partial.delete(index);
    this.#complete(index, partial.bytes, 0);
  }

  /** Hashes the digests that are next; true where there are more than one turn has time for. */
  #feed(): boolean {
    for (let budget = ZERO_BLOCKS_A_TURN; budget > 0;) {
      const digest = this.#ready.get(this.#next);
      if (digest !== undefined) {
        this.#whole.update(digest);
        this.#ready.delete(this.#next++);
        continue;
      }
      const zeroes = this.#zeroes.get(this.#next);
      if (zeroes === undefined) return false;
      this.#zeroes.delete(this.#next);
      const count = Math.min(zeroes.end - this.#next, budget);
      for (let rest = count; rest > 0; rest -= MANY) {
        this.#whole.update(rest >= MANY ? this.#manyZeroes : this.#manyZeroes.subarray(0, rest * this.#zero.length));
      }
      budget -= count;
      this.#next += count;
      if (this.#next < zeroes.end) this.#zeroes.set(this.#next, { first: this.#next, end: zeroes.end });
    }
    return true;
  }

  #digestOf(bytes: Buffer): Buffer {
    return newHash(this.algorithm, 'BlockHasher').update(bytes).digest();
  }
}

const refused = (method: string, why: string): NbdStrictError =>
  new NbdStrictError(`BlockHasher.${method}: ${why}`, { code: 'EINVAL', syscall: `BlockHasher.${method}` });

/** A hash of node:crypto, as far as it is used. */
interface Hash {
  update(bytes: Uint8Array): Hash;
  digest(): Buffer;
  digest(encoding: 'hex'): string;
}

/** Node's crypto takes a while to load, and most who import this package never hash. */
export function newHash(algorithm: string, syscall: string): Hash {
  const crypto = nodeModule('node:crypto');
  if (crypto === undefined) {
    const why = 'hashing is not supported here: it needs node:crypto';
    throw new NbdStrictError(`${syscall}: ${why}`, { code: 'ENOTSUP', syscall });
  }
  try {
    return crypto.createHash(algorithm);
  } catch (cause) {
    throw new NbdStrictError(
      `${syscall}: algorithm: node:crypto has no hash ${JSON.stringify(algorithm.slice(0, 40))}`,
      {
        code: 'EINVAL',
        syscall,
        cause,
      },
    );
  }
}
