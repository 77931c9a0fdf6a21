import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, truncate, writeFile, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { cliPath, exitOf, HALF_WAY, nbd, out, printed, start } from './support.js';

const DATA = 'data=@32768 "hello" @0x100000 (0x55*70000) @0x2ffff0 "the end"';
const SIZE = 4 << 20;

let folder: string;
const at = (name: string): string => join(folder, name);
const sha = async (name: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(at(name)))
    .digest('hex');

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-copy-spec-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describeWith(['nbdkit', 'nbdcopy', 'nbdinfo'], 'nbd copy against nbdcopy', () => {
  it('makes the same file: holes, allocated, in order, without extents, and to standard output', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, `size=${String(SIZE)}`] });
    await runTool('nbdcopy', [server.uri(), at('theirs')]);
    const wanted = await sha('theirs');
    await out(['copy', server.uri(), at('ours')]);
    expect(await sha('ours')).toBe(wanted);
    expect((await stat(at('ours'))).blocks).toBe((await stat(at('theirs'))).blocks);

    await writeFile(at('old'), Buffer.alloc(SIZE + 1000, 'old'));
    await out(['copy', server.uri(), at('old'), '--no-extents', '-C1', '-R', '2', '--request-size=4096']);
    expect(await sha('old')).toBe(wanted);
    await out(['copy', '--allocated', '--flush', server.uri(), at('full')]);
    expect(await sha('full')).toBe(wanted);
    expect((await stat(at('full'))).blocks * 512).toBeGreaterThanOrEqual(SIZE);
    await out(['copy', '--synchronous', '-S', '0', server.uri(), at('slow')]);
    expect(await sha('slow')).toBe(wanted);
    const piped = await nbd(['copy', server.uri(), '-']);
    expect(createHash('sha256').update(piped.output).digest('hex')).toBe(wanted);
  });

  it('makes the same export: from NBD, from a file, from standard input', async () => {
    await using source = await startNbdkit({ plugin: 'data', args: [DATA, `size=${String(SIZE)}`] });
    await runTool('nbdcopy', [source.uri(), at('file')]);
    const wanted = await sha('file');
    const sources: [words: string[], input?: Buffer][] = [
      [[source.uri()]],
      [[at('file')]],
      [['--destination-is-zero', source.uri()]],
      [['--', '-'], await readFile(at('file'))],
    ];
    for (const [words, input] of sources) {
      await using target = await startNbdkit({ args: [String(SIZE + 512)] });
      await out(['copy', ...words, target.uri()], 0, input === undefined ? {} : { input });
      await out(['copy', target.uri(), at('back')]);
      await truncate(at('back'), SIZE);
      expect([words, await sha('back')]).toEqual([words, wanted]);
      if (input === undefined) {
        await using theirs = await startNbdkit({ args: [String(SIZE + 512)] });
        await runTool('nbdcopy', [...words, theirs.uri()]);
        const [a, b] = await Promise.all([out(['map', target.uri()]), out(['map', theirs.uri()])]);
        expect([words, a]).toEqual([words, b]);
      }
    }
  });

  it('starts servers for both ends', async () => {
    await writeFile(at('from'), Buffer.alloc(100_000, 'abc'));
    await writeFile(at('to'), Buffer.alloc(100_000));
    const server = (name: string): string[] => ['[', 'nbdkit', '-f', 'file', at(name), ']'];
    await out(['copy', '--flush', ...server('from'), ...server('to')]);
    expect(await sha('to')).toBe(await sha('from'));
  });

  it('finds the holes of a sparse file', async () => {
    const file = await open(at('sparse'), 'w');
    await file.truncate(3 * 2 ** 30);
    await file.write(Buffer.alloc(100_000, 7), 0, 100_000, 2 ** 30);
    await file.close();
    await using target = await startNbdkit({ args: ['3G'] });
    await out(['copy', at('sparse'), target.uri()]);
    expect((await nbd(['compare', at('sparse'), target.uri()])).code).toBe(0);
    const totals = JSON.parse(await out(['map', '--totals', '--json', target.uri()])) as { size: number }[];
    expect(totals[0]?.size).toBeLessThan(1 << 20);
  });

  it('reports its progress on a file descriptor from 0 to 100, for an empty export too', async () => {
    await using server = await startNbdkit({ args: ['8M'] });
    const lines = (await out(['copy', '--progress=1', '--no-extents', server.uri(), 'null:'])).trim().split('\n');
    expect(lines[0]).toBe('0/100');
    expect(lines.at(-1)).toBe('100/100');
    const numbers = lines.map((line) => Number(line.split('/')[0]));
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    await using empty = await startNbdkit({ args: ['0'] });
    expect(await out(['copy', '--progress=1', empty.uri(), 'null:'])).toBe('0/100\n100/100\n');
    expect(await out(['hash', '--progress=1', empty.uri()])).toMatch(/^0\/100\n100\/100\n/);
    expect((await nbd(['copy', '--progress', empty.uri(), 'null:'])).stderr).toMatch(/^0% .*100% /s);
  });

  it('prints with --verbose what nbdcopy prints', async () => {
    await using server = await startNbdkit({ args: ['1M'] });
    const words = ['--verbose', '-C', '1', server.uri(), 'null:'];
    const theirs = (await runTool('nbdcopy', words)).stderr.split('\n').filter((line) => line.startsWith('nbdcopy:'));
    const ours = (await nbd(['copy', ...words])).stderr.split('\n').filter((line) => line.startsWith('nbdcopy:'));
    expect(ours).toEqual(theirs);
  });

  it('refuses invalid arguments with exit code 1 and a line with the reason', async () => {
    await using server = await startNbdkit({ args: ['1M'] });
    await using small = await startNbdkit({ args: ['512K'] });
    await using fixed = await startNbdkit({ args: ['1M'], options: ['-r'] });
    await writeFile(at('file'), 'x');
    const cases: [words: string[], message: RegExp][] = [
      [[server.uri(), small.uri()], /destination size is smaller than source size/],
      [[server.uri(), fixed.uri()], /the destination is read-only, cannot write to it/],
      [[at('file'), at('file')], /the source and the destination are the same/],
      [[at('nothing'), server.uri()], /nothing: No such file or directory/],
      [[server.uri(), '/nonexistent/file'], /\/nonexistent\/file: No such file or directory/],
      [[server.uri(), folder], /[Dd]irectory/],
      [['null:', server.uri()], /null: can only be a destination/],
      [[server.uri()], /missing SOURCE or DESTINATION/],
      [['--request-size=5000', server.uri(), 'null:'], /must be a power of 2 within 4096-33554432/],
      [['-S', '100', server.uri(), 'null:'], /--sparse: must be a power of 2 and >= 512/],
      [['-C', '0', server.uri(), 'null:'], /--connections: could not parse: 0/],
      [['--queue-size', '1x', server.uri(), 'null:'], /--queue-size: could not parse: 1x/],
    ];
    const results = await Promise.all(cases.map(async ([words]) => nbd(['copy', ...words])));
    results.forEach(({ code, stderr }, index) => {
      const [words, message] = cases[index] ?? [];
      expect({ words, code }).toEqual({ words, code: 1 });
      expect(stderr).toMatch(message as RegExp);
    });
    expect(await readFile(at('file'), 'utf8')).toBe('x');
  });

  it('refuses a file as destination that is also its standard input, before it is cut', async () => {
    await writeFile(at('in'), 'x'.repeat(1000));
    await using input = await open(at('in'));
    const child = spawn(process.execPath, [await cliPath(), 'copy', '-', at('in')], {
      stdio: [input.fd, 'ignore', 'ignore'],
    });
    expect(await exitOf(child)).toBe(1);
    expect((await stat(at('in'))).size).toBe(1000);
  });

  it('refuses more standard input than the destination holds', async () => {
    await using target = await startNbdkit({ args: ['64K'] });
    const { code, stderr } = await nbd(['copy', '-', target.uri()], { input: Buffer.alloc(70_000, 1) });
    expect(code).toBe(1);
    expect(stderr).toMatch(/destination size is smaller than source size/);
  });

  it('reports where a failing source or a full destination ended it', async () => {
    await using broken = await startNbdkit({
      filters: ['error'],
      args: ['1M', 'error-pread=EIO', 'error-pread-rate=100%'],
    });
    const read = await nbd(['copy', '--no-extents', broken.uri(), 'null:']);
    expect(read.code).toBe(1);
    expect(read.stderr).toMatch(/the copy is incomplete: 0 B of 1\.00 MiB/);
    expect(read.stderr).toMatch(/read at offset \d+ failed: .*EIO|Input\/output/);
    await using full = await startNbdkit({
      filters: ['error'],
      args: ['1M', 'error-pwrite=ENOSPC', 'error-pwrite-rate=100%'],
    });
    await writeFile(at('data'), Buffer.alloc(300_000, 1));
    const write = await nbd(['copy', at('data'), full.uri()]);
    expect(write.code).toBe(1);
    expect(write.stderr).toMatch(/write at offset \d+ failed: .*(ENOSPC|No space)/i);
  });

  it('does not report success when the server dies half-way', async () => {
    await using server = await startNbdkit({ filters: ['delay'], args: ['64M', 'delay-read=100ms'] });
    const child = await start(['copy', '--no-extents', '-R4', '-C1', '--progress=1', server.uri(), at('file')]);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    server.kill();
    expect(await exit).toBe(1);
    expect(child.err()).toMatch(/the copy is incomplete: \S+ MiB of 64\.0 MiB were copied/);
    expect(child.said()).not.toContain('100/100');
  });

  it.each([
    ['to a server', true],
    ['to standard output', false],
  ])('%s: a source file that becomes shorter on the way is a failure', async (_, toServer) => {
    await using server = await startNbdkit({ filters: ['delay'], args: ['8M', 'delay-write=50ms'] });
    await writeFile(at('shrinking'), Buffer.alloc(8 << 20, 1));
    const options = toServer ? ['-R1', '-C1', '--request-size=256k'] : [];
    const child = await start(['copy', '--progress=2', ...options, at('shrinking'), toServer ? server.uri() : '-']);
    const exit = exitOf(child);
    // The pipe is soon full: it is not read.
    child.stdout?.pause();
    await printed(child, HALF_WAY);
    await truncate(at('shrinking'), 1 << 20);
    child.stdout?.resume();
    expect(await exit).toBe(1);
    expect(child.err()).toMatch(/the copy is incomplete/);
    expect(child.err()).toMatch(/nbd copy: .*shrinking.* unexpected end of file\n/);
  });

  it.each([
    ['copy to standard output', (file: string) => ['copy', file, '-']],
    ['dump', (file: string) => ['dump', '[', 'nbdkit', 'file', file, ']']],
  ])('%s: a reader that has gone is a failure without a message', async (_, words) => {
    await writeFile(at('long'), randomBytes(8 << 20));
    const child = await start(words(at('long')));
    const exit = exitOf(child);
    child.stdout?.once('data', () => child.stdout?.destroy());
    // As a shell reports libnbd's tools, which SIGPIPE ends.
    expect(await exit).toBe(141);
    expect(child.err()).toBe('');
  });

  it('stops at Ctrl-C with exit code 130 and reports how far it came', async () => {
    await using server = await startNbdkit({ filters: ['delay'], args: ['64M', 'delay-read=100ms'] });
    const child = await start(['copy', '--no-extents', '-R4', '-C1', '--progress=1', server.uri(), 'null:']);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    child.kill('SIGINT');
    expect(await exit).toBe(130);
    expect(child.err()).toMatch(/the copy is incomplete: \S+ MiB of 64\.0 MiB/);
    expect(child.err()).toMatch(/nbd copy: interrupted\n/);
  });
});
