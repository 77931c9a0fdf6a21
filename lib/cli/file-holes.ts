// The holes of a local file. Node has no lseek(SEEK_HOLE): a file without any block is one hole, and for others that
// are clearly sparse perl or python3, one of which most machines have, is asked. Without either all of it is read.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Stats } from 'node:fs';
import type { ZeroRun } from '../index.js';

/** Lines `START END` of the stretches that hold data. 3 and 4 are SEEK_DATA and SEEK_HOLE. */
const PERL = `open(F,'<',$ARGV[0]) or exit 1; my $at=0;
while (defined(my $data=sysseek(F,$at,3))) { my $hole=sysseek(F,$data,4); last unless defined $hole;
print int($data),' ',int($hole),"\\n"; $at=int($hole); last if $at >= $ARGV[1]; }`;
const PYTHON = `import os,sys
fd=os.open(sys.argv[1],os.O_RDONLY); at=0
try:
  while at < int(sys.argv[2]):
    data=os.lseek(fd,at,os.SEEK_DATA); at=os.lseek(fd,data,os.SEEK_HOLE); print(data,at)
except OSError: pass`;

const HELPERS = [
  ['perl', '-e', PERL],
  ['python3', '-c', PYTHON],
] as const;

/** A file that uses less than this share of its size is worth asking about. */
const SPARSE_SHARE = 0.95;
const STAT_BLOCK = 512;

/** What of the file is hole, in order and without gaps. */
export async function* fileZeroRuns(path: string, stats: Stats, size: number): AsyncGenerator<ZeroRun> {
  if (size === 0) return;
  if (stats.blocks === 0) {
    yield { offset: 0, length: size, isZero: true };
    return;
  }
  let at = 0;
  if (stats.blocks * STAT_BLOCK < size * SPARSE_SHARE && process.platform !== 'win32') {
    const data = await dataOf(path, size);
    for (const [start, end] of data ?? []) {
      if (start > at) yield { offset: at, length: start - at, isZero: true };
      yield { offset: start, length: end - start, isZero: false };
      at = end;
    }
    if (data !== null && at < size) {
      yield { offset: at, length: size - at, isZero: true };
      return;
    }
  }
  if (at < size) yield { offset: at, length: size - at, isZero: false };
}

/** The stretches that hold data; null when nobody could tell. */
async function dataOf(path: string, size: number): Promise<[start: number, end: number][] | null> {
  for (const [program, flag, script] of HELPERS) {
    const found = await ask(program, [flag, script, path, String(size)], size);
    if (found !== null) return found;
  }
  return null;
}

async function ask(
  program: string,
  args: readonly string[],
  size: number,
): Promise<[start: number, end: number][] | null> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = new Promise<boolean>((resolve) => {
    child.once('error', () => resolve(false));
    child.once('close', (code) => resolve(code === 0));
  });
  const found: [number, number][] = [];
  let at = 0;
  let isSane = true;
  for await (const line of createInterface({ input: child.stdout })) {
    const [start = NaN, end = NaN] = line.split(' ').map(Number);
    if (!(start >= at && end > start)) isSane = false;
    if (start < size) found.push([start, Math.min(end, size)]);
    at = end;
  }
  return (await ended) && isSane ? found : null;
}
