// Reads and writes big-endian numbers on the hot path, without the argument checks of Buffer's methods. The caller
// guarantees that the bytes exist.

import { TWO_32, type U64 } from './u64.js';

export function get16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

export function get32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function put64(bytes: Uint8Array, at: number, value: U64): void {
  if (typeof value === 'number') {
    put32(bytes, at, Math.floor(value / TWO_32));
    put32(bytes, at + 4, value >>> 0);
  } else {
    put32(bytes, at, Number(value >> 32n));
    put32(bytes, at + 4, Number(value & 0xffff_ffffn));
  }
}

/** A copy of all the parts, in memory of its own. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
