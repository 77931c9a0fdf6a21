import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { descriptions } from '../../lib/cli/registry.js';
import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { A_URI, exitOf, nbd, out, printed, start } from './support.js';

const DATA = 'data=@32768 "hello" @0x100000 (0x55*70000)';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-tools-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describeWith(['nbdkit', 'nbdcopy', 'nbdinfo'], 'nbd zero and nbd discard', () => {
  it('clear a part, then everything', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=4M'] });
    const map = async (): Promise<string> => (await runTool('nbdinfo', ['--map', server.uri()])).stdout;
    expect(await out(['zero', '-y', '-o', '32k', '-n', '32k', '--fua', '--flush', server.uri()])).toBe('');
    expect(await map()).toMatch(/^ {9}0 {5}1048576 {4}3 {2}hole,zero\n/);
    expect((await nbd(['discard', '-y', '--progress=2', server.uri()])).stderr).toMatch(
      /^0\/100\n(\d+\/100\n)*100\/100\n$/,
    );
    expect(await map()).toBe('         0     4194304    3  hole,zero\n');
  });

  it('refuse a read-only export and a range outside', async () => {
    await using server = await startNbdkit({ options: ['-r'], args: ['1M'] });
    for (const command of ['zero', 'discard']) {
      const { code, stderr } = await nbd([command, '-y', server.uri()]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/the export is read-only/);
    }
  });
});

describeWith(['nbdkit', 'nbdcopy'], 'nbd compare', () => {
  it('distinguishes equal, different and shorter by exit code and message', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=4M'] });
    const file = join(folder, 'copy');
    await runTool('nbdcopy', [server.uri(), file]);
    expect(await out(['compare', server.uri(), file])).toMatch(
      /^the same: 4194304 bytes, .* of zeroes were not read\n$/,
    );
    const bytes = await readFile(file);
    bytes[40_000] = 1;
    bytes[3_000_000] = 2;
    await writeFile(file, bytes);
    expect(await out(['compare', server.uri(), file], 2)).toBe(
      'first difference at byte 40000 (0x9c40)\n2 of 4194304 bytes differ\n',
    );
    expect(await out(['compare', '--stop', '--no-extents', server.uri(), file], 2)).toBe(
      'first difference at byte 40000 (0x9c40)\n',
    );
    expect(JSON.parse(await out(['compare', '--json', server.uri(), file], 2))).toMatchObject({
      equal: false,
      firstDifference: 40000,
      differing: 2,
    });
    await writeFile(file, bytes.subarray(0, 1000));
    expect(await out(['compare', file, server.uri()], 2)).toBe(
      'sizes differ: 1000 and 4194304 bytes\nthe first 1000 bytes are the same\n',
    );
    expect((await nbd(['compare', '-q', file, 'nbd://127.0.0.1:1'])).code).toBe(1);
  });
});

describeWith(['nbdkit', 'nbdcopy'], 'nbd hash', () => {
  it('equals what sha256sum prints for a copy; --block does not depend on how zeroes are stored', async () => {
    await using sparse = await startNbdkit({ plugin: 'data', args: [DATA, 'size=3000001'] });
    const file = join(folder, 'hashed');
    await runTool('nbdcopy', ['--allocated', sparse.uri(), file]);
    const wanted = createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
    expect(await out(['hash', sparse.uri()])).toBe(`${wanted}  ${sparse.uri()}\n`);
    expect(JSON.parse(await out(['hash', '--json', '--no-extents', sparse.uri()]))).toEqual({
      algorithm: 'sha256',
      block: false,
      hash: wanted,
    });
    await using full = await startNbdkit({ plugin: 'file', args: [file] });
    const block = async (...words: string[]): Promise<string> =>
      (await out(['hash', '--block', ...words])).split(' ')[0] ?? '';
    expect(await block(sparse.uri())).toBe(await block('--no-extents', full.uri()));
    expect(await block(sparse.uri())).not.toBe(wanted);
    expect((await nbd(['hash', '-a', 'nope', sparse.uri()])).stderr).toMatch(
      /--algorithm: unknown hash algorithm: nope/,
    );
  });
});

describeWith(['nbdkit'], 'nbd bench', () => {
  it('prints rates and percentiles, as a table and as JSON', async () => {
    await using server = await startNbdkit();
    expect(await out(['bench', '--time', '0.2', '--depth', '8', server.uri()])).toMatch(
      /^requests +\d+ in [\d.]+ s, 8 in flight\nrequests\/s +\d+\nthroughput +\S+ \w+\/s\nlatency mean +[\d.]+ ms\n/,
    );
    const words = ['bench', '-t', '0.2', '--mix', '50', '--force', '--json', '-C', '2', server.uri()];
    const json = JSON.parse(await out(words)) as { latency: Record<string, number>; requests: number };
    expect(json.requests).toBeGreaterThan(0);
    const { p50 = 0, p99 = 0, max = 0 } = json.latency;
    expect(p50).toBeLessThanOrEqual(p99);
    expect(p99).toBeLessThanOrEqual(max);
    expect((await nbd(['bench', '--mix', '1', server.uri()])).stderr).toMatch(/suggestion: add --force/);
  });
});

describeWith(['nbdkit'], 'nbd shell', () => {
  it('runs code with the connection as h, and ends with 1 when it throws', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=4M'] });
    const first = 'const size = h.getSize(); console.log(size)';
    const second = 'console.log(String(await h.pread(5, 32768)), size, nbd.STATE_ZERO)';
    expect(await out(['shell', '-u', server.uri(), '-c', first, '-c', second])).toBe('4194304n\nhello 4194304n 2\n');
    const failed = await nbd(['shell', server.uri(), '-c', 'await h.pread(5, -1)']);
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/^nbd shell: command line script failed: pread/);
    const optMode = ['shell', '--opt-mode', '--base-allocation', server.uri(), '-c', '-'];
    const input =
      'console.log(h.aioIsNegotiating(), h.getNrMetaContexts()); await h.optGo(); console.log(h.aioIsReady())';
    expect(await out(optMode, 0, { input })).toBe('true 1\ntrue\n');
    expect(await out(['shell', '-n', '-c', 'console.log(typeof h, typeof nbd.copy)'])).toBe('undefined function\n');
  });

  it('is a prompt without -c', async () => {
    await using server = await startNbdkit({ args: ['1M'] });
    const input = 'await h.getSize()\n';
    expect(await out(['shell', server.uri()], 0, { input })).toContain('nbd> 1048576n\n');
  });
});

describeWith(['nbdinfo', 'nbdcopy'], 'nbd serve', () => {
  it('serves files and memory to libnbd’s tools until it is stopped', async () => {
    const file = join(folder, 'served');
    await writeFile(file, Buffer.alloc(1 << 20, 'served'));
    const socket = join(folder, 'socket');
    const child = await start(['serve', '--unix', socket, '-r', `disk=${file}`, '-m', 'scratch=2M']);
    const exit = exitOf(child);
    await printed(child, /^nbd.*\nnbd.*\n/);
    const uris = child.said().trim().split('\n').sort();
    expect((await runTool('nbdinfo', ['--size', uris[0] ?? ''])).stdout).toBe('1048576\n');
    expect((await runTool('nbdinfo', ['--is', 'read-only', uris[1] ?? ''])).code).toBe(0);
    const back = join(folder, 'back');
    expect((await runTool('nbdcopy', [uris[0] ?? '', back])).code).toBe(0);
    expect((await readFile(back)).equals(await readFile(file))).toBe(true);
    child.kill('SIGTERM');
    expect(await exit).toBe(0);
  });

  it('listens on TCP, and on a socket that a client hands over', async () => {
    const child = await start(['serve', '--port=0', '--memory', '1M', '--name', 'x', '--description', 'a test']);
    const exit = exitOf(child);
    await printed(child, A_URI);
    expect((await runTool('nbdinfo', [child.said().trim()])).stdout).toContain('\tdescription: a test\n');
    child.kill('SIGINT');
    expect(await exit).toBe(0);
    expect(child.err()).toBe('');
    // libnbd's own client starts ours.
    const command = [process.execPath, await (await import('./support.js')).cliPath(), 'serve', '--memory', '3M'];
    const { stdout, stderr } = await runTool('nbdinfo', ['--size', '--', '[', ...command, ']']);
    expect({ stdout, stderr }).toEqual({ stdout: '3145728\n', stderr: '' });
  });

  it('reports what is wrong', async () => {
    const cases: [words: string[], message: RegExp][] = [
      [['serve'], /nothing to serve/],
      [['serve', '/nonexistent'], /\/nonexistent: No such file or directory/],
      [['serve', '-m', '1M', '-m', '2M'], /two exports have the same name/],
      [['serve', '-m', '1X'], /--memory: could not parse: 1X/],
      [['serve', '-m', '1M', '--tls-psk', '/nonexistent'], /\/nonexistent: No such file/],
    ];
    for (const [words, message] of cases) {
      const { code, stderr } = await nbd(words);
      expect({ words, code }).toEqual({ words, code: 1 });
      expect(stderr).toMatch(message);
    }
  });
});

describe('nbd --help', () => {
  it('describes every command, and each of them itself', async () => {
    const commands = (await descriptions()).map(({ name }) => name);
    expect(commands).toContain('completion');
    const helps = await Promise.all(commands.map(async (name) => out([name, '--help'])));
    for (const help of helps)
      expect(help).toMatch(/^NAME\n {4}nbd [\s\S]*\nSYNOPSIS\n[\s\S]*\nOPTIONS\n[\s\S]*\nEXAMPLES\n/);
    const overview = await out(['--help']);
    for (const name of commands) expect(overview).toMatch(new RegExp(`^ {4}${name} `, 'm'));
    expect(await out(['--version'])).toMatch(/^nbd \d+\.\d+\.\d+\nnbd-sdk /);
    expect((await nbd(['nope'])).stderr).toMatch(/unknown command 'nope'/);
    expect((await nbd(['completion'])).code).toBe(1);
  });
});
