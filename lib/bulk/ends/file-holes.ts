// Finds the holes of a local file. Node has no lseek(SEEK_HOLE), so for files that may be sparse, perl or python3 asks
// the kernel; most machines have one of them. Invariant: only what the kernel reports as a hole counts as a hole. In
// every other case (st_blocks alone, which many FUSE file systems leave 0, an error, an incomplete answer) all of the
// file is read.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Stats } from 'node:fs';
import type { Readable } from 'node:stream';
import type { ZeroRun } from './endpoint.js';

/** The last line of a helper's output. Without it something went wrong, and the output is ignored. */
const COMPLETE = 'complete';

/**
 * The file is standard input: its name may be another file's by now. Lines `START END` of the stretches that hold data,
 * then COMPLETE. There is no more data where ENXIO is the error (6); with any other one the file system cannot report
 * holes. On Linux SEEK_DATA is 3 and SEEK_HOLE 4; elsewhere they may be the other way round.
 */
const PERL = `my $at=0;
while ($at < $ARGV[0]) {
  my $data=sysseek(STDIN,$at,3); if (!defined $data) { exit 1 if $!+0 != 6; last; }
  my $hole=sysseek(STDIN,$data,4); exit 1 unless defined $hole;
  print int($data),' ',int($hole),"\\n"; $at=int($hole);
}
print "${COMPLETE}\\n";`;
const PYTHON = `import errno,os,sys
at=0
while at < int(sys.argv[1]):
  try: data=os.lseek(0,at,os.SEEK_DATA)
  except OSError as e:
    if e.errno != errno.ENXIO: raise
    break
  at=os.lseek(0,data,os.SEEK_HOLE); print(data,at)
print('${COMPLETE}')`;

const HELPERS = [
  ['perl', '-e', PERL],
  ['python3', '-c', PYTHON],
] as const;

/** The helpers are run only for files that occupy less than this share of their size. */
const SPARSE_SHARE = 0.95;
const STAT_BLOCK = 512;

/** The holes and data of the file, in order and without gaps. */
export async function* fileZeroRuns(fd: number, stats: Stats, size: number): AsyncGenerator<ZeroRun> {
  let at = 0;
  if (stats.blocks * STAT_BLOCK < size * SPARSE_SHARE && process.platform === 'linux') {
    const data = await dataOf(fd, size);
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

/** The ranges of data; null if no helper could report them. */
async function dataOf(fd: number, size: number): Promise<[start: number, end: number][] | null> {
  for (const [program, flag, script] of HELPERS) {
    const found = await ask(program, [flag, script, String(size)], fd, size);
    if (found !== null) return found;
  }
  return null;
}

async function ask(
  program: string,
  args: readonly string[],
  fd: number,
  size: number,
): Promise<[start: number, end: number][] | null> {
  const child = spawn(program, args, { stdio: [fd, 'pipe', 'ignore'], env: process.env });
  const ended = new Promise<boolean>((resolve) => {
    child.once('error', () => resolve(false));
    child.once('close', (code) => resolve(code === 0));
  });
  const found: [number, number][] = [];
  let at = 0;
  let isSane = true;
  let isComplete = false;
  for await (const line of createInterface({ input: child.stdout as Readable })) {
    if (isComplete) isSane = false;
    if (line === COMPLETE) {
      isComplete = true;
      continue;
    }
    const [start = NaN, end = NaN] = line.split(' ').map(Number);
    if (!(start >= at && end > start)) isSane = false;
    if (start < size) found.push([start, Math.min(end, size)]);
    at = end;
  }
  return (await ended) && isSane && isComplete ? found : null;
}
