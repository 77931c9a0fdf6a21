// An export whose bytes follow from their offsets, so that every read can be verified at any size.

import { Buffer } from '../../util/buffer.js';
import { aBoolean, checkOptions, type OptionTable } from '../../util/option-checks.js';
import { highHalf, lowHalf, TWO_32, type U64 } from '../../util/u64.js';
import type { BlockSize, NbdBackend } from './backend.js';
import { aBlockSize, checkSize } from '../block-size.js';

/** Options of a {@link PatternBackend}. */
export interface PatternBackendOptions {
  /**
   * Accepts writes of the pattern itself and fails all others with `EIO`, to verify copying programs. Default false.
   */
  readonly writable?: boolean | undefined;
  /** Block sizes to advertise. Default 1, 4096 and the server's `maxPayload`. */
  readonly blockSize?: BlockSize | undefined;
}

const OPTIONS: OptionTable<PatternBackendOptions> = { writable: aBoolean, blockSize: aBlockSize };

/**
 * nbdkit's pattern: every aligned 8 bytes contain their own offset, big-endian. Read-only unless `writable`; even then
 * nothing is stored, and written data must equal the pattern.
 */
export class PatternBackend implements NbdBackend {
  /** Size in bytes. */
  readonly size: number | bigint;
  /** Whether writes are refused: true unless `writable`. */
  readonly readOnly: boolean;
  /** Block sizes to advertise; undefined for the server's defaults. */
  readonly blockSize?: BlockSize;
  /** FUA is supported: nothing is stored. */
  readonly fua = true;
  /** No reference to written data is kept. */
  readonly copiesData = true;

  /**
   * Creates an export with the pattern.
   *
   * @throws NbdStrictError `EINVAL` for a size that is not an integer from 0 to 2^64 - 1, or for a bad option.
   */
  constructor(size: number | bigint, options: PatternBackendOptions = {}) {
    const { writable, blockSize } = checkOptions('PatternBackend', options, OPTIONS);
    checkSize('PatternBackend: size', size);
    this.size = size;
    this.readOnly = writable !== true;
    if (blockSize !== undefined) this.blockSize = blockSize;
  }

  /** Fills the buffer with the pattern. */
  read(buffer: Buffer, offset: U64): void {
    fillPattern(buffer, offset);
  }

  /** Fails with `EIO` unless the data equals the pattern. */
  write(data: Buffer, offset: U64): void {
    const expected = Buffer.allocUnsafe(data.length);
    fillPattern(expected, offset);
    if (!expected.equals(data)) {
      throw Object.assign(new Error('the written data differs from the pattern'), { code: 'EIO' });
    }
  }

  /** Does nothing: nothing is stored. */
  flush(): void {
    // No write is deferred.
  }

  /** Does nothing: every byte is computed. */
  cache(): void {
    // Nothing to prefetch.
  }
}

/** Fills `buffer` with the pattern of a {@link PatternBackend} from `offset` on. */
export function fillPattern(buffer: Uint8Array, offset: number | bigint): void {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  let high = highHalf(offset);
  let low = lowHalf(offset);
  let at = 0;
  // First the bytes up to a word boundary, then whole words, then the rest.
  while (at < buffer.length && (low & 7) !== 0) {
    buffer[at++] = patternByte(high, low);
    low += 1;
    if (low === TWO_32) [high, low] = [high + 1, 0];
  }
  for (; at + 8 <= buffer.length; at += 8) {
    view.setUint32(at, high);
    view.setUint32(at + 4, low);
    low += 8;
    if (low === TWO_32) [high, low] = [high + 1, 0];
  }
  for (; at < buffer.length; at += 1, low += 1) buffer[at] = patternByte(high, low);
}

/** The byte at an offset, which is given as two 32-bit halves. */
function patternByte(high: number, low: number): number {
  const shift = 56 - (low & 7) * 8;
  const word = low - (low & 7);
  return (shift >= 32 ? high >>> (shift - 32) : word >>> shift) & 0xff;
}
