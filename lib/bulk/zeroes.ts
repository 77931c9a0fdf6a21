// Finding zeroes in bytes that were read, so that they need not be written.

import { Buffer } from '../util/buffer.js';

/** Longest block that is looked at as one. */
const COMPARED = 65536;
const ZEROES = Buffer.alloc(COMPARED);

/** Whether all bytes from `start` to `end` are zero. */
export function isAllZero(buffer: Buffer, start: number, end: number): boolean {
  // Data shows itself in its first byte most of the time, and a call into C++ costs more than looking.
  if (start < end && (buffer[start] !== 0 || buffer[end - 1] !== 0)) return false;
  for (let at = start; at < end; at += COMPARED) {
    const stop = at + COMPARED < end ? at + COMPARED : end;
    if (buffer.compare(ZEROES, 0, stop - at, at, stop) !== 0) return false;
  }
  return true;
}

/**
 * Splits bytes that belong at `offset` into runs of zero and other blocks, and calls `found` for each with its place
 * in the buffer. Blocks are aligned in the export; what is left before the first and after the last counts as data.
 */
export function splitZeroes(
  buffer: Buffer,
  offset: number,
  blockSize: number,
  found: (start: number, end: number, isZero: boolean) => void,
): void {
  const length = buffer.length;
  let begun = 0;
  let isZero = false;
  let at = Math.min((blockSize - (offset % blockSize)) % blockSize, length);
  for (; at + blockSize <= length; at += blockSize) {
    const blockIsZero = isAllZero(buffer, at, at + blockSize);
    if (blockIsZero === isZero) continue;
    if (at > begun) found(begun, at, isZero);
    begun = at;
    isZero = blockIsZero;
  }
  if (isZero) {
    found(begun, at, true);
    begun = at;
  }
  if (length > begun) found(begun, length, false);
}
