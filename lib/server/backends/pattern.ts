// An export whose every byte is known from its offset, so that any read can be checked at any size.

import { aBoolean, checkOptions, type OptionTable } from '../../util/option-checks.js';
import { highHalf, lowHalf, TWO_32, type U64 } from '../../util/u64.js';
import type { BlockSize, NbdBackend } from './backend.js';
import { aBlockSize, checkSize } from '../block-size.js';

/** What a PatternBackend may be made with. */
export interface PatternBackendOptions {
  /** Accepts writes of the pattern itself, and fails all others with `EIO`: a check for copying programs. */
  readonly writable?: boolean;
  readonly blockSize?: BlockSize;
}

const OPTIONS: OptionTable<PatternBackendOptions> = { writable: aBoolean, blockSize: aBlockSize };

/**
 * nbdkit's pattern: each aligned 8 bytes hold their own offset, big-endian. Read-only unless `writable`, and then
 * nothing is stored: a write must be what a read would give.
 */
export class PatternBackend implements NbdBackend {
  readonly size: number | bigint;
  readonly readOnly: boolean;
  readonly blockSize?: BlockSize;
  readonly fua = true;
  readonly copiesData = true;

  /** Throws an NbdStrictError (`EINVAL`) for a size that is not a 64-bit number of bytes and for a bad option. */
  constructor(size: number | bigint, options: PatternBackendOptions = {}) {
    const { writable, blockSize } = checkOptions('PatternBackend', options, OPTIONS);
    checkSize('PatternBackend: size', size);
    this.size = size;
    this.readOnly = writable !== true;
    if (blockSize !== undefined) this.blockSize = blockSize;
  }

  read(buffer: Buffer, offset: U64): void {
    fillPattern(buffer, offset);
  }

  write(data: Buffer, offset: U64): void {
    const expected = Buffer.allocUnsafe(data.length);
    fillPattern(expected, offset);
    if (!expected.equals(data)) {
      throw Object.assign(new Error('the data written is not the pattern'), { code: 'EIO' });
    }
  }

  /** Nothing is stored, so there is nothing to flush. */
  flush(): void {
    // Nothing is deferred.
  }

  /** Every byte is computed; the command succeeds. */
  cache(): void {
    // Everything is as near as it gets.
  }
}

/** Fills `buffer` with the pattern of a {@link PatternBackend} from `offset` on. */
export function fillPattern(buffer: Uint8Array, offset: number | bigint): void {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  let high = highHalf(offset);
  let low = lowHalf(offset);
  let at = 0;
  // Up to the first word boundary, the words, and the rest.
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

/** The byte at an offset given in halves. */
function patternByte(high: number, low: number): number {
  const shift = 56 - (low & 7) * 8;
  const word = low - (low & 7);
  return (shift >= 32 ? high >>> (shift - 32) : word >>> shift) & 0xff;
}
