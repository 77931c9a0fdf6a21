// The export that every server of the ladder serves: what is in it and which part a rung may change.

import { open } from 'node:fs/promises';

const MiB = 1 << 20;

/** The name of the export on every server. */
export const EXPORT = 'ladder';
export const DESCRIPTION = 'an export to climb';

/** The first MiB holds {@link pattern}; nothing changes it. */
export const DATA = MiB;
/** From here on 1 MiB was never written, and never is. */
export const HOLE = MiB;
/** From here on every rung has a block of its own to write into, {@link SCRATCH} bytes long. */
export const SCRATCHES = 2 * MiB;
export const SCRATCH = 64 * 1024;
/** From here to the end nothing is written: ranges that need more than 32 bits. */
export const FAR = 8 * 1024 * MiB;
/** More than 32 bits can hold, so that one command over all of {@link FAR} needs extended headers. */
export const SIZE = 13 * 1024 * MiB;

const CONTENTS = Buffer.from(Uint8Array.from({ length: DATA }, (_, i) => (7 * i + (i >> 8)) & 255));

/** What the first MiB, and the hole behind it, hold in a range. */
export function pattern(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  CONTENTS.copy(bytes, 0, offset, offset + length);
  return bytes;
}

/** Makes a file of it, with the holes that the file system allows. */
export async function makeImage(path: string): Promise<void> {
  await using file = await open(path, 'w');
  await file.write(pattern(0, DATA), 0, DATA, 0);
  await file.truncate(SIZE);
}
