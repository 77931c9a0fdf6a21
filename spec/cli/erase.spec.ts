// `nbd zero` and `nbd discard`: what they ask, what they check, and what they must not begin.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeWith, runTool, startNbdkit, type ToolResult } from '../support/real-servers.js';
import { cliPath, nbd, out } from './support.js';

const DATA = { plugin: 'data', args: ['data=@32768 "hello" @0x100000 (0x55*70000)', 'size=4M'] };
const BLOCKS = ['64M', 'blocksize-minimum=4096', 'blocksize-preferred=64K', 'blocksize-maximum=1M'];
const EMPTY = '         0     4194304    3  hole,zero\n';

describeWith(['nbdkit', 'nbdinfo'], 'nbd zero and nbd discard', () => {
  it.each(['zero', 'discard'])('%s requires --yes if standard input is not a terminal', async (command) => {
    await using server = await startNbdkit(DATA);
    const before = await out(['hash', server.uri()]);
    for (const input of ['', 'y\n']) {
      const { code, stdout, stderr } = await nbd([command, server.uri()], { input });
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(/standard input is not a terminal: --yes is required/);
    }
    // Whether there is a server makes no difference.
    expect((await nbd([command, 'nbd://127.0.0.1:1'])).stderr).toMatch(/--yes is required/);
    expect(await out(['hash', server.uri()])).toBe(before);
    await out([command, '--yes', server.uri()]);
    expect((await runTool('nbdinfo', ['--map', server.uri()])).stdout).toBe(EMPTY);
  });

  it('ask on a terminal, and take only y for a yes', async () => {
    await using server = await startNbdkit(DATA);
    const before = await out(['hash', server.uri()]);
    const main = await cliPath();
    const onTty = async (answer: string, ...words: string[]): Promise<ToolResult> =>
      runTool(
        'script',
        ['-qec', [process.execPath, main, ...words].map((word) => `'${word}'`).join(' '), '/dev/null'],
        {
          input: answer,
        },
      );
    for (const answer of ['n\n', '\n', 'yup\n', '\u0004']) {
      const { code, stdout } = await onTty(answer, 'zero', server.uri());
      expect({ answer, code }).toEqual({ answer, code: 1 });
      expect(stdout).toContain(`PERMANENTLY ERASE everything on ${server.uri()} bytes 0 - 4194303 (y/N)? `);
      expect(stdout).toMatch(/not confirmed: nothing was changed/);
    }
    expect(await out(['hash', server.uri()])).toBe(before);
    const part = await onTty('y\n', 'zero', '-o', '32k', '-l', '1k', server.uri());
    expect(part.stdout).toContain(`PERMANENTLY ERASE ${server.uri()} bytes 32768 - 33791 (y/N)? `);
    expect(part.code).toBe(0);
    expect(await out(['zero', '--check', '--limit', '1M', server.uri()])).toBe('reads as zero\n');
  });

  it('answer --check by the exit code and change nothing', async () => {
    // Zeroes that are allocated at 0, a hole behind them.
    await using server = await startNbdkit({ plugin: 'data', args: ['data=@0x8000 1 0', 'size=1M'], options: ['-r'] });
    const before = await out(['hash', server.uri()]);
    const cases: [words: string[], code: number, stdout: string][] = [
      [['zero', '-c'], 2, 'not zero: byte 32768\n'],
      [['zero', '-c', '-o', '32769'], 0, 'reads as zero\n'],
      [['zero', '-c', '-n', '32768'], 0, 'reads as zero\n'],
      [['discard', '-c'], 2, 'not sparse: byte 32768\n'],
      [['discard', '-c', '-o', '32769'], 2, 'not sparse: byte 32769\n'],
      [['discard', '-c', '-z', '-o', '32769'], 0, 'reads as zero\n'],
      [['discard', '-c', '-o', '512k'], 0, 'sparse\n'],
      [['discard', '-cq'], 2, ''],
      [['zero', '-cq', '-o', '512k', '-l', '512k'], 0, ''],
    ];
    const results = await Promise.all(cases.map(async ([words]) => nbd([...words, server.uri()])));
    results.forEach(({ code, stdout, stderr }, index) => {
      const [words, wantedCode, wanted] = cases[index] ?? [];
      expect({ words, code, stdout, stderr }).toEqual({ words, code: wantedCode, stdout: wanted, stderr: '' });
    });
    expect(await out(['hash', server.uri()])).toBe(before);
  });

  it('cannot check what is sparse where the server has no extents', async () => {
    await using server = await startNbdkit({ ...DATA, options: ['--no-sr'] });
    expect(await nbd(['discard', '-c', server.uri()])).toMatchObject({ code: 1, stdout: '' });
    expect(await out(['zero', '-c', '-o', '2M', server.uri()])).toBe('reads as zero\n');
  });

  it('zero with discard --zero and --fast-zero', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-erase-spec-'));
    const log = join(folder, 'log');
    await using server = await startNbdkit({ filters: ['log'], ...DATA, args: [...DATA.args, `logfile=${log}`] });
    await out(['discard', '-yz', '-n', '64k', server.uri()]);
    await out(['discard', '-y', '--fast-zero', '-o', '64k', '-n', '64k', server.uri()]);
    await out(['discard', '-y', '-o', '128k', server.uri()]);
    const text = await readFile(log, 'utf8');
    await rm(folder, { recursive: true });
    expect(text).toMatch(/ Zero .*offset=0x0 count=0x10000 trim=1 fua=0 fast=0/);
    expect(text).toMatch(/ Zero .*offset=0x10000 count=0x10000 trim=1 fua=0 fast=1/);
    expect(text).toMatch(/ Trim .*offset=0x20000/);
  });

  it.each([
    ['a read-only export', { options: ['-r'] }, ['-y'], /read-only/],
    [
      'a range that leaves the export',
      {},
      ['-y', '-o', '1M', '-n', '64M'],
      /--length: 67108864 bytes at offset 1048576/,
    ],
    ['a server without FUA', { filters: ['fua'], args: ['64M'] }, ['-y', '--fua'], /--fua: .*not support/],
    ['a part of a block', { filters: ['blocksize-policy'], args: BLOCKS }, ['-y', '-n', '32771'], /block size is 4096/],
    [
      'a part of a block at its start',
      { filters: ['blocksize-policy'], args: BLOCKS },
      ['-y', '-o', '1'],
      /block size is 4096/,
    ],
  ])('refuse %s before anything is changed', async (_title, options, words, message) => {
    await using server = await startNbdkit({ args: ['64M'], ...options });
    for (const command of ['zero', 'discard']) {
      const { code, stderr } = await nbd([command, ...words, '--request-size=4k', server.uri()]);
      expect(code).toBe(1);
      expect(stderr).toMatch(message);
      expect(stderr).not.toMatch(/incomplete/);
    }
  });
});
