// Runs of random data between holes. Both follow from the seed and the offset alone, so that nothing is stored and an
// export of any size can be verified.

import { Buffer } from '../../util/buffer.js';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../../protocol/constants.js';
import { aBoolean, checkOptions, type OptionTable, powerOfTwo, wholeNumber } from '../../util/option-checks.js';
import { add, highHalf, lowHalf, type U64 } from '../../util/u64.js';
import { aBlockSize, checkSize } from '../block-size.js';
import { fraction, hashOf, mix } from '../seeded.js';
import type { BackendExtent, BlockSize, NbdBackend } from './backend.js';
import { subtract } from './extent-map.js';

const HOLE = NBD_STATE_HOLE | NBD_STATE_ZERO;
/** Parts that one block status looks at; its reply then covers less than the range, and the client continues. */
const MAX_PARTS = 1 << 14;
const MAX_SEED = 2 ** 32 - 1;

/** Options of a {@link RandomBackend}. */
export interface RandomBackendOptions {
  /** What the contents follow from: a whole number below 2^32. Default 0. */
  readonly seed?: number | undefined;
  /** How much of the export is data, in percent; the rest is holes. Default 10. */
  readonly percent?: number | undefined;
  /** Length of a run of data or of a hole, as far as neighbours differ: a power of 2 from 512. Default 65536. */
  readonly runLength?: number | undefined;
  /**
   * Accepts writes of the same contents and fails all others with `EIO`, to verify copying programs. Default false.
   */
  readonly writable?: boolean | undefined;
  /** Block sizes to advertise. Default 1, 4096 and the server's `maxPayload`. */
  readonly blockSize?: BlockSize | undefined;
}

const OPTIONS: OptionTable<RandomBackendOptions> = {
  seed: wholeNumber(0, MAX_SEED),
  percent: wholeNumber(0, 100),
  runLength: powerOfTwo(512, 2 ** 30),
  writable: aBoolean,
  blockSize: aBlockSize,
};

/**
 * Random data between holes, like nbdkit's sparse-random: the same for the same size, seed and options. Read-only
 * unless `writable`; even then nothing is stored, and what is written must equal the contents.
 *
 * @example
 * const source = new RandomBackend(2 ** 40, { seed: 1 });
 * const destination = new RandomBackend(2 ** 40, { seed: 1, writable: true }); // fails a copy that is wrong
 */
export class RandomBackend implements NbdBackend {
  /** Size in bytes. */
  readonly size: number | bigint;
  /** Whether writes are refused: true unless `writable`. */
  readonly readOnly: boolean;
  /** Block sizes to advertise; undefined for the server's defaults. */
  readonly blockSize?: BlockSize;
  /** FUA is supported: nothing is stored. */
  readonly fua = true;
  /** The `fast` option of zero() is supported. */
  readonly fastZero = true;
  /** No reference to written data is kept. */
  readonly copiesData = true;
  readonly #data: number;
  readonly #runs: number;
  readonly #runLength: number;
  readonly #share: number;

  /**
   * Creates an export of random data.
   *
   * @throws NbdStrictError `EINVAL` for a size that is not an integer from 0 to 2^64 - 1, or for a bad option.
   */
  constructor(size: number | bigint, options: RandomBackendOptions = {}) {
    const checked = checkOptions('RandomBackend', options, OPTIONS);
    const { seed = 0, percent = 10, runLength = 65536, writable, blockSize } = checked;
    checkSize('RandomBackend: size', size);
    this.size = size;
    this.readOnly = writable !== true;
    if (blockSize !== undefined) this.blockSize = blockSize;
    this.#data = hashOf(seed, 1);
    this.#runs = hashOf(seed, 2);
    this.#runLength = runLength;
    this.#share = percent / 100;
  }

  /** Fills the buffer with the contents. */
  read(buffer: Buffer, offset: U64): void {
    for (let at = 0; at < buffer.length;) {
      const position = add(offset, at);
      const end = Math.min(at + this.#left(position), buffer.length);
      if (this.#isData(position)) this.#fill(buffer.subarray(at, end), position);
      else buffer.fill(0, at, end);
      at = end;
    }
  }

  /** Fails with `EIO` unless the data equals the contents. */
  write(data: Buffer, offset: U64): void {
    const expected = Buffer.allocUnsafe(data.length);
    this.read(expected, offset);
    if (!expected.equals(data)) throw differs('the written data differs from the contents');
  }

  /** Fails with `EIO` unless the range is a hole. */
  zero(offset: U64, count: U64): void {
    for (const { length, flags } of this.extents(offset, count)) {
      if (flags === 0) throw differs(`${length} of the zeroed bytes are data`);
    }
  }

  /** As zero(). */
  trim(offset: U64, count: U64): void {
    this.zero(offset, count);
  }

  /** Does nothing: nothing is stored. */
  flush(): void {
    // No write is deferred.
  }

  /** Does nothing: every byte is computed. */
  cache(): void {
    // Nothing to prefetch.
  }

  /** Yields data and holes. */
  *extents(offset: U64, count: U64): Generator<BackendExtent, void> {
    if (this.#share === 0 || this.#share === 1) {
      yield { length: count, flags: this.#share === 1 ? 0 : HOLE };
      return;
    }
    const end = add(offset, count);
    let at = offset;
    for (let parts = 0; at < end && parts < MAX_PARTS; parts += 1) {
      const flags = this.#isData(at) ? 0 : HOLE;
      const next = add(at, this.#left(at));
      yield { length: subtract(next < end ? next : end, at), flags };
      at = next;
    }
  }

  /** Bytes from here to where data and holes may change. */
  #left(offset: U64): number {
    return this.#runLength - (lowHalf(offset) % this.#runLength);
  }

  #isData(offset: U64): boolean {
    const low = lowHalf(offset);
    const hash = mix(mix(this.#runs, highHalf(offset)), low - (low % this.#runLength));
    return fraction(hash) < this.#share;
  }

  /** Within one run, whose offsets have the same upper half. Each four bytes are the hash of their offset. */
  #fill(bytes: Buffer, offset: U64): void {
    const base = mix(this.#data, highHalf(offset));
    const start = lowHalf(offset);
    const byte = (low: number): number => mix(base, low - (low & 3)) >>> ((low & 3) * 8);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    for (; at < bytes.length && ((start + at) & 3) !== 0; at += 1) bytes[at] = byte(start + at);
    for (; at + 4 <= bytes.length; at += 4) view.setUint32(at, mix(base, start + at), true);
    for (; at < bytes.length; at += 1) bytes[at] = byte(start + at);
  }
}

const differs = (message: string): Error => Object.assign(new Error(message), { code: 'EIO' });
