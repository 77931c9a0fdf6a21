// Standard input and output of every kind: all bytes arrive, or the exit code is not 0.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { describeWith, runTool, startNbdkit, type ToolResult } from '../support/real-servers.js';
import { cliPath } from './support.js';

const SIZE = 300_000;
const contents = randomBytes(SIZE);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-stdio-'));
  await writeFile(join(folder, 'source'), contents);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const at = (name: string): Promise<Buffer> => readFile(join(folder, name));

/** Runs a line of shell, in which $NBD is the command. */
async function shell(line: string, name = 'sh'): Promise<ToolResult> {
  const env = { NBD: `${process.execPath} ${await cliPath()}` };
  return runTool(name, ['-c', line], { cwd: folder, env });
}

describeWith(['nbdkit'], 'standard output that takes no more', () => {
  // What they print is more than one piece in the first, and fits into it in the others.
  const COMMANDS: readonly (readonly [words: string, count: number])[] = [
    ['copy source -', SIZE],
    ['copy [ nbdkit file source ] -', SIZE],
    ['dump [ nbdkit file source ]', 1_000_000],
    ['map --json [ nbdkit memory 1M ]', 100],
    ['info --size [ nbdkit memory 1M ]', 8],
    ['hash [ nbdkit memory 1M ]', 60],
    ['--help', 100],
    ["shell -n -c 'console.log(1)'", 2],
  ];

  it.each(COMMANDS)('fails: nbd %s', async (words) => {
    const { code, stderr } = await shell(`$NBD ${words} > /dev/full`);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/: standard output: No space left on device\n$/) as unknown as string,
    });
  });

  // The last write is a short one, which write() does not report as an error.
  it.each(COMMANDS.slice(0, 3))('fails in its last piece: nbd %s', async (words) => {
    const { code, stderr } = await shell(`ulimit -f 250; $NBD ${words} > short`);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/: standard output: File too large\n$/)]);
    expect((await stat(join(folder, 'short'))).size).toBe(250 * 512);
  });

  it('is a file that becomes full in its last piece, too', async () => {
    const { code, stderr } = await shell('ulimit -f 250; $NBD copy [ nbdkit file source ] full');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/File too large|EFBIG/)]);
  });

  it('is silent about a reader that has seen enough', async () => {
    const line = '{ $NBD dump [ nbdkit file source ]; echo $? > code; } | head -n 1';
    expect((await shell(line)).stderr).toBe('');
    expect((await at('code')).toString()).toBe('141\n');
  });
});

it('is closed in the end, and code that runs later still has the descriptors that it expects', async () => {
  await writeFile(join(folder, 'later.cjs'), "process.on('exit', () => process.memoryUsage());");
  const { code, stderr } = await shell('NODE_OPTIONS="--require ./later.cjs" $NBD copy source - > whole');
  expect([code, stderr, (await at('whole')).equals(contents)]).toEqual([0, '', true]);
});

describe('standard input', () => {
  it('that is a folder is refused', async () => {
    const { code, stderr } = await shell('$NBD copy - copied < .');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/nbd copy: standard input: .*directory\n$/)]);
    expect(existsSync(join(folder, 'copied'))).toBe(false);
  });

  it('is read from where it stands', async () => {
    expect(await shell('{ dd bs=1000 count=1 of=skipped 2>/dev/null; $NBD copy - rest; } < source')).toMatchObject({
      code: 0,
    });
    expect((await at('rest')).equals(contents.subarray(1000))).toBe(true);
  });

  it('may be a descriptor that does not wait', async () => {
    const feeder = `import os,sys,time
os.set_blocking(1, False)
for i in range(5): os.write(1, b'x' * 1000); time.sleep(0.05)`;
    expect((await shell(`python3 -c "${feeder}" | $NBD copy - slow`)).code).toBe(0);
    expect((await at('slow')).equals(Buffer.alloc(5000, 'x'))).toBe(true);
  });
});

describe('a file that reports a size of 0', () => {
  it.each(['/proc/cpuinfo', '/proc/self/limits'])('is read to its end: %s', async (path) => {
    expect((await shell(`$NBD copy ${path} made-up`)).code).toBe(0);
    expect((await at('made-up')).length).toBeGreaterThan(0);
    const [first] = (await at('made-up')).toString().split('\n');
    expect((await readFile(path, 'utf8')).split('\n')[0]).toBe(first);
  });

  it('is empty when there is nothing in it', async () => {
    await writeFile(join(folder, 'empty'), '');
    await writeFile(join(folder, 'emptied'), 'before');
    expect((await shell('$NBD copy empty emptied')).code).toBe(0);
    expect((await at('emptied')).length).toBe(0);
    expect((await shell('$NBD compare empty emptied')).code).toBe(0);
  });
});

describeWith(['nbdkit'], 'zeroes that flow', () => {
  const MIB = 1 << 20;
  const sparse = Buffer.concat([Buffer.alloc(8 * MIB), randomBytes(MIB), Buffer.alloc(7 * MIB)]);
  beforeAll(() => writeFile(join(folder, 'sparse'), sparse));

  const CASES = [
    { options: '', sent: MIB },
    { options: '-S 65536', sent: MIB },
    { options: '-S 4096 --destination-is-zero', sent: MIB },
    { options: '-S 0', sent: 16 * MIB },
    { options: '--allocated', sent: 16 * MIB },
  ];

  it.each(CASES)('are found, and not sent ($options)', async ({ options, sent }) => {
    const log = join(folder, 'log');
    const image = join(folder, 'image');
    await writeFile(log, '');
    await writeFile(image, options.includes('is-zero') ? '' : Buffer.alloc(16 * MIB, 7));
    await truncate(image, 16 * MIB);
    const server = await startNbdkit({ plugin: 'file', filters: ['log'], args: [image, `logfile=${log}`] });
    expect(await shell(`cat sparse | $NBD copy ${options} - '${server.uri()}'`)).toMatchObject({ code: 0, stderr: '' });
    await server[Symbol.asyncDispose]();
    const writes = (await readFile(log, 'utf8')).matchAll(/ Write id=\d+ offset=\S+ count=(0x[0-9a-f]+)/g);
    expect([...writes].reduce((sum, [, count]) => sum + Number(count), 0)).toBe(sent);
    expect((await readFile(image)).equals(sparse)).toBe(true);
  });

  it('are holes of a file', async () => {
    await writeFile(join(folder, 'dense'), Buffer.alloc(20 * MIB, 1));
    expect((await shell('cat sparse | $NBD copy - dense')).code).toBe(0);
    expect((await at('dense')).equals(sparse)).toBe(true);
    expect((await stat(join(folder, 'dense'))).blocks * 512).toBeLessThan(2 * MIB);
    // Pieces of a pipe begin and end anywhere.
    expect((await shell('dd if=sparse bs=5000 2>/dev/null | $NBD copy -S 65536 - dense')).code).toBe(0);
    expect((await at('dense')).equals(sparse)).toBe(true);
    expect((await stat(join(folder, 'dense'))).blocks * 512).toBeLessThan(2 * MIB);
    expect((await shell('cat sparse | $NBD copy --allocated - dense')).code).toBe(0);
    expect((await stat(join(folder, 'dense'))).blocks * 512).toBeGreaterThanOrEqual(16 * MIB);
  });
});
