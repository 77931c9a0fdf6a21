// Whether two names are of one file.

import type { Stats } from 'node:fs';

/** Whether two stats are of one file, or of one block device, whatever its nodes are called. */
export function isSameFile(one: Stats, other: Stats): boolean {
  if (one.isBlockDevice() && other.isBlockDevice()) return one.rdev === other.rdev;
  return one.dev === other.dev && one.ino === other.ino && (one.isFile() || one.isBlockDevice());
}
