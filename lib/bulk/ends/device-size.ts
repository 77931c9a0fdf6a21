// Determines the size of a block device: stat reports 0 for it, and Node has no ioctl.

import type { Stats } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';

/** The unit of /sys/dev/block/*\/size, whatever the sector size of the device. */
const SECTOR = 512;

/** The size in bytes. Rejects with the error of open() or read() if it cannot be determined. */
export async function deviceSize(path: string, stats: Stats): Promise<number> {
  if (process.platform === 'linux') {
    try {
      return Number(await readFile(`/sys/dev/block/${numbersOf(stats.rdev)}/size`, 'ascii')) * SECTOR;
    } catch {
      // There is no /sys in some containers.
    }
  }
  // Opened again because a destination is open for writing only.
  const file = await open(path, 'r');
  try {
    return await sizeByReading(file);
  } finally {
    await file.close();
  }
}

/** `MAJOR:MINOR`, decoded as glibc encodes them. */
export function numbersOf(device: number): string {
  const bits = BigInt(device);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** Finds the number of bytes that can be read, by bisection. */
export async function sizeByReading(file: FileHandle): Promise<number> {
  const probe = Buffer.alloc(1);
  // The position must be a number: a bigint would be treated like null.
  const isReadable = async (at: number): Promise<boolean> => (await file.read(probe, 0, 1, at)).bytesRead > 0;
  if (!(await isReadable(0))) return 0;
  let known = 0;
  let beyond = 1;
  while (await isReadable(beyond)) {
    known = beyond;
    beyond *= 2;
  }
  while (beyond - known > 1) {
    const middle = known + Math.floor((beyond - known) / 2);
    if (await isReadable(middle)) known = middle;
    else beyond = middle;
  }
  return beyond;
}
