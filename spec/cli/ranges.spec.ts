// -o and -n in every command that has a range: what they mean, what is refused, and servers with large blocks.

import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { nbd, out } from './support.js';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-ranges-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const BLOCKS = ['blocksize-minimum=4096', 'blocksize-preferred=64K', 'blocksize-maximum=1M'];
const COMMANDS = [['dump'], ['map'], ['map', '--totals'], ['cache'], ['zero', '-y'], ['discard', '-y']] as const;

describeWith(['nbdkit'], 'a range', () => {
  it('that leaves the export is refused by every command, with nothing on standard output', async () => {
    await using server = await startNbdkit({ args: ['1M'] });
    const cases: [words: string[], message: RegExp][] = COMMANDS.flatMap((command) => [
      [
        [...command, '-o', '1M', '-n', '1'],
        /--length: 1 bytes at offset 1048576 extend past the end of the export \(1048576 bytes\)/,
      ],
      [[...command, '--length=1025k'], /--length: 1049600 bytes at offset 0 /],
      [[...command, '--offset', '1048577'], /--offset: 1048577 is beyond the end of the export/],
    ]);
    const picture = at('none.svg');
    cases.push([['map', '--picture', picture, '-n', '2M'], /--length: 2097152 bytes/]);
    for (let next = cases.splice(0, 4); next.length > 0; next = cases.splice(0, 4)) {
      await Promise.all(
        next.map(async ([words, message]) => {
          const { code, stdout, stderr } = await nbd([...words, server.uri()]);
          expect({ words, code, stdout }).toEqual({ words, code: 1, stdout: '' });
          expect(stderr).toMatch(message);
        }),
      );
    }
    await expect(open(picture)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('may be short of the export with -o and -n, and empty at its end', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: ['data=@4096 "0123456789abcdef"', 'size=64K'] });
    const uri = server.uri();
    expect(await out(['dump', '-o', '4k', '-n', '16', uri])).toMatch(/^0000001000: 30 31 .*\n$/);
    expect(await out(['map', '-o', '4096', '-n', '10', uri])).toBe('      4096          10    0  data\n');
    expect(await out(['map', '--totals', '-o', '32k', '-l', '8k', uri])).toBe('      8192 100.0%   3 hole,zero\n');
    expect(JSON.parse(await out(['cache', '--read', '--all', '-o', '1k', '-n', '3k', '--json', uri]))).toMatchObject({
      cached: 3072,
    });
    for (const command of COMMANDS)
      expect([command, (await nbd([...command, '-o', '64k', uri])).code]).toEqual([command, 0]);
  });
});

describeWith(['nbdkit'], 'a server with blocks of 4096 bytes', () => {
  const bytes = Buffer.from(Array.from({ length: 64 * 1024 }, (_, index) => (index * 7 + (index >> 8)) & 255));

  it('shows and maps any range, whatever the server would refuse', async () => {
    await writeFile(at('bytes'), bytes);
    const args = [at('bytes'), ...BLOCKS, 'blocksize-error-policy=error'];
    await using server = await startNbdkit({ plugin: 'file', filters: ['blocksize-policy'], args });
    await using plain = await startNbdkit({ plugin: 'file', args: [at('bytes')] });
    for (const [offset, length] of [
      [0, 16],
      [100, 16],
      [4095, 2],
      [4096, 4096],
      [1, 65535],
      [65530, 6],
    ] as const) {
      const words = ['-o', String(offset), '-n', String(length)];
      const [ours, wanted] = await Promise.all([
        out(['dump', ...words, server.uri()]),
        out(['dump', ...words, plain.uri()]),
      ]);
      expect([words, ours]).toEqual([words, wanted]);
      expect(ours.slice(0, 12)).toBe(`${offset.toString(16).padStart(10, '0')}: `);
    }
    expect(await out(['map', '-o', '100', '-n', '5000', server.uri()])).toBe('       100        5000    0  data\n');
    expect((await nbd(['cache', '--read', '-o', '100', '-n', '16', server.uri()])).code).toBe(0);
  });

  it.each(['error', 'allow'])('maps a last block that is shorter (%s)', async (policy) => {
    const path = at(`short-${policy}`);
    await writeFile(path, '');
    await truncate(path, 1_048_676);
    const args = [path, ...BLOCKS, `blocksize-error-policy=${policy}`];
    await using server = await startNbdkit({ plugin: 'file', filters: ['blocksize-policy'], args });
    const map = JSON.parse(await out(['map', '--json', server.uri()])) as { offset: number; length: number }[];
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(1_048_676);
    const tail = (await out(['map', '-o', '1048600', server.uri()])).trimEnd();
    expect(tail).toMatch(/^ {3}1048600 {10}76 {4}\d {2}\S+$/);
    expect(await out(['map', '--totals', '-n', '1048576', server.uri()])).toMatch(
      /^ {3}1048576 100\.0% {3}3 hole,zero\n$/,
    );
  });
});

describeWith(['nbdkit', 'nbddump'], 'nbd dump', () => {
  it('reads over a map that fails, and --limit ends with the export as nbddump does', async () => {
    const args = ['data=@100 "hello"', 'size=5000', 'error-extents-rate=100%'];
    await using server = await startNbdkit({ plugin: 'data', filters: ['error'], args });
    await using plain = await startNbdkit({ plugin: 'data', args: args.slice(0, 2) });
    const { stdout } = await runTool('nbddump', ['--limit', '9999', plain.uri()]);
    expect(await out(['dump', '--limit', '9999', plain.uri()])).toBe(stdout);
    expect(await out(['dump', server.uri()])).toBe(stdout);
    // The map of a server without block status is an error, not a guess.
    expect(await nbd(['map', server.uri()])).toMatchObject({ code: 1, stdout: '' });
  });
});
