// Maps of many extents: in bounded memory, and nothing on standard output when they cannot be complete.

import { jest } from '@jest/globals';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BackendExtent, type NbdBackend, NbdServer } from '../../lib/server/index.js';
import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { cliPath, nbd } from './support.js';

// About forty processes, each of which prints 400,000 extents.
jest.setTimeout(300_000);

const BLOCK = 4096;
const COUNT = 400_000;
/** Extents of one answer. */
const BATCH = 100_000;

let folder: string;
const at = (name: string): string => join(folder, name);
const fine = (name: string): string => `nbd+unix:///${name}?socket=${at('socket')}`;

/** Data and hole by turns; the map fails at `brokenAt` where that is given. */
const alternating = (brokenAt = Infinity): NbdBackend => ({
  size: COUNT * BLOCK,
  read: (buffer) => void buffer.fill(0),
  extents: (offset, count) => {
    const start = Number(offset);
    if (start >= brokenAt) throw Object.assign(new Error('broken'), { code: 'EIO' });
    const end = Math.min(start + Number(count), start + BATCH * BLOCK);
    const found: BackendExtent[] = [];
    for (let place = start; place < end; place += found.at(-1)?.length as number) {
      const length = Math.min(BLOCK - (place % BLOCK), end - place);
      found.push({ length, flags: Math.floor(place / BLOCK) % 2 === 0 ? 0 : 3 });
    }
    return found;
  },
});

const server = new NbdServer({});
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-big-map-spec-'));
  server.addExport('fine', { backend: alternating() });
  server.addExport('broken', { backend: alternating(COUNT * BLOCK * 0.75) });
  await server.listenUnix(at('socket'));
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

/** A list of all extents needs five times this. */
const SMALL_HEAP = { env: { NODE_OPTIONS: '--max-old-space-size=24' } };

describe('a map of 400,000 extents', () => {
  it('is printed in bounded memory, as text, JSON, totals, bar and picture', async () => {
    const text = await nbd(['map', fine('fine')], SMALL_HEAP);
    expect({ code: text.code, stderr: text.stderr }).toEqual({ code: 0, stderr: '' });
    const lines = text.stdout.split('\n');
    expect(lines).toHaveLength(COUNT + 1);
    lines.forEach((line, index) => {
      if (index === COUNT) return;
      const wanted = `${String(index * BLOCK).padStart(10)}        4096    ${index % 2 === 0 ? '0  data' : '3  hole,zero'}`;
      if (line !== wanted) throw new Error(`line ${index}: ${line}`);
    });

    const json = JSON.parse((await nbd(['map', '--json', fine('fine')], SMALL_HEAP)).stdout) as unknown[];
    expect(json).toHaveLength(COUNT);
    expect(json.at(-1)).toEqual({ offset: (COUNT - 1) * BLOCK, length: BLOCK, type: 3, description: 'hole,zero' });

    const totals = await nbd(['map', '--totals', fine('fine')], SMALL_HEAP);
    expect(totals.stdout).toBe(' 819200000  50.0%   0 data\n 819200000  50.0%   3 hole,zero\n');
    const bar = await nbd(['map', '--bar', '--no-color', fine('fine')], SMALL_HEAP);
    expect(bar.stdout).toMatch(/\n\[[-#]{78}\]\n# data 781 MiB {3}- hole,zero 781 MiB\n$/);
    const picture = await nbd(['map', '--picture', at('fine.svg'), fine('fine')], SMALL_HEAP);
    expect(picture.code).toBe(0);
    expect(await readFile(at('fine.svg'), 'utf8')).toMatch(/50\.0 %/);
  });

  it('leaves nothing behind, on standard output or elsewhere, when the server fails', async () => {
    const made = await mkdtemp(join(folder, 'tmp-'));
    for (const words of [[], ['--json'], ['--totals'], ['--bar'], ['--picture', at('broken.svg')]]) {
      const { code, stdout, stderr } = await nbd(['map', ...words, fine('broken')], { env: { TMPDIR: made } });
      expect({ words, code, stdout }).toEqual({ words, code: 1, stdout: '' });
      expect(stderr).toMatch(/EIO/);
    }
    expect(await readdir(made)).toEqual([]);
    expect((await readdir(folder)).filter((name) => name.startsWith('broken'))).toEqual([]);
  });

  it('names the folder that cannot hold it', async () => {
    const { code, stdout, stderr } = await nbd(['map', fine('fine')], { env: { TMPDIR: at('none') } });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(
      /cannot write the output to a temporary file in \S+\/none: No such file or directory\n.*TMPDIR/,
    );
  });
});

describeWith(['nbdkit'], 'a picture that cannot be written', () => {
  it('leaves no file, and the one that was there as it was', async () => {
    await using disk = await startNbdkit({ args: ['1M'] });
    const limited = async (path: string): Promise<void> => {
      const words = [process.execPath, await cliPath(), 'map', '--picture', path, disk.uri()];
      const { code, stdout, stderr } = await runTool('prlimit', ['--fsize=5000', ...words]);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(/\.svg: File too large\n$/);
    };
    const made = await mkdtemp(join(folder, 'picture-'));
    await limited(join(made, 'new.svg'));
    expect(await readdir(made)).toEqual([]);
    await writeFile(join(made, 'old.svg'), 'as it was');
    await limited(join(made, 'old.svg'));
    expect(await readdir(made)).toEqual(['old.svg']);
    expect(await readFile(join(made, 'old.svg'), 'utf8')).toBe('as it was');
  });
});
