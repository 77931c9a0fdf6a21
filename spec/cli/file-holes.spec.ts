// What of a file is taken for a hole, and so never read: only what the kernel calls one.

import type { Stats } from 'node:fs';
import { chmod, type FileHandle, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';

import { fileZeroRuns } from '../../lib/bulk/ends/file-holes.js';

const MIB = 1 << 20;
const SIZE = 8 * MIB;

let folder: string;
let file: FileHandle;
const path = process.env['PATH'];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-holes-'));
  file = await open(join(folder, 'sparse'), 'w+');
  await file.truncate(SIZE);
  await file.write(Buffer.alloc(MIB, 1), 0, MIB, 0);
  await file.write(Buffer.alloc(MIB, 1), 0, MIB, 4 * MIB);
});
afterEach(() => {
  process.env['PATH'] = path;
});
afterAll(async () => {
  await file.close();
  await rm(folder, { recursive: true, force: true });
});

/** The stretches as `from-to` in MiB, holes in brackets. */
async function runs(stats: Pick<Stats, 'blocks'>): Promise<string> {
  const found: string[] = [];
  for await (const { offset, length, isZero } of fileZeroRuns(file.fd, stats as Stats, SIZE)) {
    const range = `${offset / MIB}-${(offset + length) / MIB}`;
    found.push(isZero ? `[${range}]` : range);
  }
  return found.join(' ');
}

/** Lets these programs alone be found. */
async function only(programs: Readonly<Record<string, string>>): Promise<void> {
  const bin = await mkdtemp(join(folder, 'bin-'));
  for (const [name, script] of Object.entries(programs)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(bin, name), 0o755);
  }
  process.env['PATH'] = [bin].join(delimiter);
}

const ALL = '0-8';
const REAL = '0-1 [1-4] 4-5 [5-8]';

const onLinux = process.platform === 'linux' ? describe : describe.skip;

onLinux('the holes of a file', () => {
  it('are those that the kernel reports, whichever helper asks it', async () => {
    const stats = await file.stat();
    expect(await runs(stats)).toBe(REAL);
    for (const [name, other] of [
      ['perl', 'python3'],
      ['python3', 'perl'],
    ] as const) {
      await only({ [other]: 'exit 1', [name]: `PATH='${path}' exec ${name} "$@"` });
      expect([name, await runs(stats)]).toEqual([name, REAL]);
    }
  });

  it('are not concluded from st_blocks, which is 0 on many FUSE file systems', async () => {
    expect(await runs({ blocks: 0 })).toBe(REAL);
    await only({});
    expect(await runs({ blocks: 0 })).toBe(ALL);
  });

  it('are not looked for in a file that is full', async () => {
    expect(await runs({ blocks: SIZE / 512 })).toBe(ALL);
  });

  it.each([
    ['there is no helper', {}],
    ['prints nothing and succeeds', { perl: 'exit 0' }],
    ['stops in the middle and ends well', { perl: 'echo 0 1048576' }],
    ['fails after it was complete', { perl: 'echo 0 1048576; echo complete; exit 3' }],
    ['goes on after it was complete', { perl: 'echo complete; echo 0 1048576' }],
    ['goes back', { perl: 'echo 4194304 5242880; echo 0 1048576; echo complete' }],
    ['prints what is not a number', { perl: 'echo zero one; echo complete' }],
    ['is killed', { perl: 'echo 0 1048576; echo complete; kill -9 $$' }],
    ['and every other helper fails', { perl: 'exit 1', python3: 'exit 1' }],
  ])('where a helper %s, everything is read', async (_, programs) => {
    await only(programs);
    expect(await runs({ blocks: 8 })).toBe(ALL);
  });

  it('a file that is only a hole is one hole; an empty file has no hole', async () => {
    const hole = await open(join(folder, 'hole'), 'w+');
    await hole.truncate(SIZE);
    const found: unknown[] = [];
    for await (const run of fileZeroRuns(hole.fd, await hole.stat(), SIZE)) found.push(run);
    expect(found).toEqual([{ offset: 0, length: SIZE, isZero: true }]);
    for await (const run of fileZeroRuns(hole.fd, await hole.stat(), 0)) throw new Error(JSON.stringify(run));
    await hole.close();
  });

  it("a file that cannot be asked is read: an lseek fails with another error than the one at a file's end", async () => {
    // Standard input is a pipe.
    await only({
      perl: `PATH='${path}'; cat /dev/null | perl "$@"`,
      python3: `PATH='${path}'; cat /dev/null | python3 "$@" 2>/dev/null`,
    });
    expect(await runs({ blocks: 8 })).toBe(ALL);
  });
});
