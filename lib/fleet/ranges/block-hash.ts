// The block hash of an export, of the digests of its ranges: that of blockHash() with `rangeSize` as the block size.

import { createHash } from 'node:crypto';
import { NbdError } from '../../errors.js';
import type { Plan } from './cells.js';

const ALGORITHM = 'sha256';
const STEP = Buffer.alloc(65_536);

/** By length: ranges without data are not read. */
const zeroDigests = new Map<number, Buffer>();

function digestOfZeroes(length: number): Buffer {
  let digest = zeroDigests.get(length);
  if (digest === undefined) {
    const hash = createHash(ALGORITHM);
    for (let left = length; left > 0; left -= STEP.length) hash.update(STEP.subarray(0, Math.min(left, STEP.length)));
    digest = hash.digest();
    zeroDigests.set(length, digest);
  }
  return digest;
}

/**
 * The hash, in hexadecimal.
 *
 * @throws NbdError `EIO` where the digest of a range is missing.
 */
export function combineDigests({ size, rangeSize, ranges }: Plan, digests: Readonly<Record<string, string>>): string {
  const hash = createHash(ALGORITHM);
  const cells = Number((size + BigInt(rangeSize) - 1n) / BigInt(rangeSize));
  let next = 0;
  for (let cell = 0; cell < cells; cell++) {
    if (ranges[next]?.first !== cell) {
      const rest = size - BigInt(cell) * BigInt(rangeSize);
      hash.update(digestOfZeroes(rest < BigInt(rangeSize) ? Number(rest) : rangeSize));
      continue;
    }
    const digest = digests[String(next)];
    if (digest === undefined) {
      throw new NbdError(`fleet: the digest of range ${next} is missing`, { code: 'EIO', syscall: 'fleet' });
    }
    hash.update(Buffer.from(digest, 'hex'));
    next++;
  }
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(size);
  return hash.update(length).digest('hex');
}
