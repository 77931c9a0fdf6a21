// `nbd map` of several contexts at once, and of what a dirty bitmap marks as changed.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryBackend, type NbdBackend, NbdServer } from '../../lib/server/index.js';
import { describeWith, type RealServer, runTool, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { nbd, out } from './support.js';

const A = 'base:allocation';
const B = 'qemu:dirty-bitmap:b0';
const BOTH = ['--context', A, '--context', B];

let folder: string;
let server: RealServer;

describeWith(['qemu-nbd', 'qemu-img', 'qemu-io', 'nbdinfo'], 'nbd map of an image with a dirty bitmap', () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-map-several-spec-'));
    const image = join(folder, 'disk.qcow2');
    const io = (...commands: string[]): Promise<unknown> =>
      runTool('qemu-io', ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), image]);
    await runTool('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
    await io('write -P 1 0 1M', 'write -P 2 8M 128k');
    await runTool('qemu-img', ['bitmap', '--add', image, 'b0']);
    await io('write -P 3 512k 64k', 'write -z 8M 64k', 'write -P 3 32M 192k');
    server = await startQemuNbd({ file: image, format: 'qcow2', bitmap: 'b0', args: ['--read-only'] });
  });
  afterAll(async () => {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it('lists contexts side by side, in the order of the options', async () => {
    expect(await out(['map', ...BOTH, server.uri()])).toBe(
      `         0      524288    0  data          0  clean
    524288       65536    0  data          1  dirty
    589824      458752    0  data          0  clean
   1048576     7340032    3  hole,zero     0  clean
   8388608       65536    3  hole,zero     1  dirty
   8454144       65536    0  data          0  clean
   8519680    25034752    3  hole,zero     0  clean
  33554432      196608    0  data          1  dirty
  33751040    33357824    3  hole,zero     0  clean
`,
    );
    expect(await out(['map', '--context', B, '--context', A, '-o', '512k', '-n', '64k', server.uri()])).toBe(
      '    524288       65536    1  dirty         0  data\n',
    );
    const coloured = await out(['map', ...BOTH, '-o', '512k', '-n', '64k', '--color', server.uri()]);
    expect(coloured).toContain('\u001b[22;31m  1  dirty\u001b[0m\n');
  });

  it('has them in JSON, and their totals as those of one context', async () => {
    const json = JSON.parse(await out(['map', ...BOTH, '--json', server.uri()])) as unknown[];
    expect(json).toHaveLength(9);
    expect(json[4]).toEqual({
      offset: 8_388_608,
      length: 65_536,
      contexts: { [A]: { type: 3, description: 'hole,zero' }, [B]: { type: 1, description: 'dirty' } },
    });
    const [text, allocation, dirty] = [
      await out(['map', ...BOTH, '--totals', server.uri()]),
      (await runTool('nbdinfo', ['--map', '--totals', server.uri()])).stdout,
      (await runTool('nbdinfo', [`--map=${B}`, '--totals', server.uri()])).stdout,
    ];
    expect(text).toBe(`${A}:\n${allocation}${B}:\n${dirty}`);
    const totals = JSON.parse(await out(['map', ...BOTH, '--totals', '--json', server.uri()])) as Record<
      string,
      unknown
    >;
    for (const context of [A, B]) {
      const theirs = await runTool('nbdinfo', [`--map=${context}`, '--totals', '--json', server.uri()]);
      expect(totals[context]).toEqual(JSON.parse(theirs.stdout));
    }
  });

  it.each([['--dirty'], ['--dirty=b0'], [`--dirty=${B}`]])('lists what has changed: %s', async (option) => {
    expect(await out(['map', option, server.uri()])).toBe(
      '    524288       65536  data\n   8388608       65536  zero\n  33554432      196608  data\n',
    );
  });

  it('lists what has changed as JSON, of a range, and in totals', async () => {
    expect(JSON.parse(await out(['map', '--dirty', '--json', '-o', '520k', server.uri()]))).toEqual([
      { offset: 532_480, length: 57_344, zero: false },
      { offset: 8_388_608, length: 65_536, zero: true },
      { offset: 33_554_432, length: 196_608, zero: false },
    ]);
    expect(JSON.parse(await out(['map', '--dirty', '--json', '-n', '1k', server.uri()]))).toEqual([]);
    expect(await out(['map', '--dirty', '--totals', server.uri()])).toBe(
      '    262144   0.4% data\n     65536   0.1% zero\n  66781184  99.5% clean\n',
    );
    expect(JSON.parse(await out(['map', '--dirty', '--totals', '--json', server.uri()]))).toEqual({
      data: { size: 262_144, percent: 0.390625 },
      zero: { size: 65_536, percent: 0.0976562 },
      clean: { size: 66_781_184, percent: 99.5117 },
    });
    expect(await out(['map', '--dirty', '-n', '0', '--totals', server.uri()])).toMatch(
      / 0 {3}0\.0% data\n.*\n.*clean\n$/,
    );
  });

  it('is an error, with nothing on standard output, where the bitmap is not there', async () => {
    const image = join(folder, 'plain.qcow2');
    await runTool('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
    await runTool('qemu-img', ['bitmap', '--add', image, 'x']);
    await runTool('qemu-img', ['bitmap', '--add', image, 'y']);
    const started = (...words: string[]): string[] => ['[', 'qemu-nbd', '-r', '-f', 'qcow2', ...words, image, ']'];
    for (const [words, message] of [
      [['--dirty=b1', server.uri()], /does not have the bitmap "b1"\n/],
      [['--dirty=no:such', server.uri()], /does not have the bitmap "no:such"\n/],
      [['--dirty', ...started()], /has no QEMU dirty bitmap\n/],
      [['--dirty', ...started('-B', 'x', '-B', 'y')], /has several bitmaps: "[xy]", "[xy]"\n.*--dirty=NAME/],
      [['--dirty', ...BOTH, server.uri()], /cannot use --dirty with --context/],
      [['--dirty', '--picture=a.svg', server.uri()], /cannot use --dirty with/],
      [['--dirty=', server.uri()], /the name of the bitmap is empty/],
      [['--context', A, '--context', A, server.uri()], /base:allocation is there twice/],
      [[...BOTH, '--context', 'no:such', server.uri()], /does not support metadata context "no:such"/],
    ] as [string[], RegExp][]) {
      const { code, stdout, stderr } = await nbd(['map', ...words]);
      expect({ words, code, stdout }).toEqual({ words, code: 1, stdout: '' });
      expect(stderr).toMatch(message);
    }
    expect(await out(['map', '--dirty=y', ...started('-B', 'x', '-B', 'y')])).toBe('');
  });
});

describeWith(['nbdkit'], 'nbd map --dirty of a server without bitmaps', () => {
  it('is an error', async () => {
    await using kit = await startNbdkit({ args: ['1M'] });
    for (const option of ['--dirty', '--dirty=b0']) {
      const { code, stdout } = await nbd(['map', option, kit.uri()]);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    }
  });
});

describe('a map of 300,000 changes', () => {
  const COUNT = 300_000;
  const BLOCK = 4096;

  it('is printed in bounded memory, or not at all', async () => {
    const own = await mkdtemp(join(tmpdir(), 'nbd-map-several-spec-'));
    const backend: NbdBackend = new MemoryBackend(2 * COUNT * BLOCK);
    /** Extents come in answers of `each` blocks. */
    const bitmap = (each: number, brokenAt: number) => ({
      extents: (offset: number | bigint, count: number | bigint) => {
        const [start, end] = [Number(offset), Number(offset) + Number(count)];
        if (start >= brokenAt) throw Object.assign(new Error('broken'), { code: 'EIO' });
        const found = [];
        for (let at = start; at < Math.min(end, start + each * BLOCK);) {
          const length = BLOCK - (at % BLOCK);
          found.push({ length, flags: Math.floor(at / BLOCK) % 2 });
          at += length;
        }
        return found;
      },
    });
    await using fine = new NbdServer({
      exports: {
        fine: { backend, metaContexts: { [B]: bitmap(100_000, Infinity) } },
        broken: { backend, metaContexts: { [B]: bitmap(10_000, 30_000 * BLOCK) } },
      },
    });
    await fine.listenUnix(join(own, 's'));
    const uri = (name: string): string => `nbd+unix:///${name}?socket=${join(own, 's')}`;
    const limited = { env: { NODE_OPTIONS: '--max-old-space-size=32' } };
    const text = await nbd(['map', '--dirty=b0', uri('fine')], limited);
    expect({ code: text.code, stderr: text.stderr, lines: text.stdout.split('\n').length }).toEqual({
      code: 0,
      stderr: '',
      lines: COUNT + 1,
    });
    const both = await nbd(['map', '--json', ...BOTH, uri('fine')], limited);
    expect({ code: both.code, stderr: both.stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(both.stdout)).toHaveLength(2 * COUNT);
    for (const words of [['--dirty'], ['--dirty', '--totals'], BOTH, [...BOTH, '--totals', '--json']]) {
      const { code, stdout, stderr } = await nbd(['map', ...words, uri('broken')]);
      expect({ words, code, stdout }).toEqual({ words, code: 1, stdout: '' });
      expect(stderr).toMatch(/EIO/);
    }
    await rm(own, { recursive: true, force: true });
  });
});

it('the help has both', async () => {
  const help = await out(['map', '--help']);
  expect(help).toMatch(/--dirty\[=BITMAP\]/);
  expect(help).toMatch(/May be repeated/);
});
