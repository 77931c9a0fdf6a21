// `nbd copy`, `nbd compare` and `nbd hash` of parts; copies that are killed and go on; and of what cannot all be read.

import { createHash, randomBytes } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import { NbdServer } from '../../lib/server/index.js';
import { describeWith, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { NbdConnection } from '../../lib/index.js';
import { until } from '../support/waiting.js';
import { exitOf, nbd, out, start } from './support.js';

const MIB = 1 << 20;
const SIZE = 3 * MIB;
const bytes = Buffer.concat([randomBytes(MIB), Buffer.alloc(MIB), randomBytes(MIB)]);

/** When a file was made; 0 where there is none. */
const savedAt = (path: string): number => (existsSync(path) ? statSync(path).mtimeMs : 0);

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-parts-'));
  await writeFile(at('from'), bytes);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describeWith(['nbdkit'], 'nbd copy of a part', () => {
  const old = randomBytes(SIZE + 5000);

  it.each([
    [['--offset=500k', '--length=1M'], [[500 * 1024, MIB]], 0],
    [['--offset', '100', '--length', '1000', '--destination-offset=7'], [[100, 1000]], -93],
    [['-o', '2M', '--destination-offset', '0'], [[2 * MIB, MIB]], -2 * MIB],
    [['--ranges', 'RANGES'], [[0, 1000], [1024 * 1024, 512], [SIZE - 10, 10]], 0], // prettier-ignore
    [['--ranges=RANGES', '--offset=500', '-n', '1M'], [[500, 500], [1024 * 1024, 500]], 0], // prettier-ignore
  ] as const)('%j writes that, and leaves the rest', async (words, parts, shift) => {
    await writeFile(at('list'), '# what is copied\n0 1000\n\n1M, 512\n3145718\t10\n');
    const options = words.map((word) => word.replace('RANGES', at('list')));
    const expected = Buffer.from(old);
    for (const [offset, length] of parts) bytes.copy(expected, offset + shift, offset, offset + length);
    await writeFile(at('to'), old);
    await out(['copy', ...options, at('from'), at('to')]);
    expect((await readFile(at('to'))).equals(expected)).toBe(true);

    await writeFile(at('to'), old);
    await using server = await startNbdkit({ plugin: 'file', args: [at('to')] });
    await out(['copy', '--flush', ...options, at('from'), server.uri()]);
    expect((await readFile(at('to'))).equals(expected)).toBe(true);
  });

  it.each([
    [['--bitmap=x', '--ranges=y'], /--bitmap and --ranges together/],
    [['--bitmap='], /--bitmap: a name is expected/],
    [['--bitmap=b0'], /no dirty bitmaps/],
    [['--ranges=missing'], /--ranges: missing: No such file/],
    [['--ranges', '/proc/self/stat'], /line 1/],
    [['--offset=4M'], /--offset: 4194304 is beyond the end of the source/],
    [['--length=4M'], /--length: .* ends at 3145728/],
    [['--rate=0'], /--rate: must be at least 1/],
    [['--rate=x'], /--rate: could not parse/],
    [['--blkhash', '--checkpoint=x'], /--blkhash and --checkpoint together/],
  ] as const)('refuses %j, and touches nothing', async (words, message) => {
    const { code, stderr } = await nbd(['copy', ...words, at('from'), at('never')]);
    expect([code, existsSync(at('never'))]).toEqual([1, false]);
    expect(stderr).toMatch(message);
  });

  it('refuses what needs places for what flows, and a destination that is too small', async () => {
    const flowing = await nbd(['copy', '--offset=1', at('from'), '-']);
    expect([flowing.code, flowing.stdout]).toEqual([1, '']);
    expect(flowing.stderr).toMatch(/--offset: cannot be used with standard input or output/);
    await using server = await startNbdkit({ args: ['1M'] });
    const small = await nbd(['copy', '--length=1M', '--destination-offset=1', at('from'), server.uri()]);
    expect(small.code).toBe(1);
    expect(small.stderr).toMatch(/destination size is smaller than the end of what is copied \(1048576 < 1048577/);
  });
});

describeWith(['qemu-nbd', 'qemu-img'], 'nbd copy --bitmap', () => {
  it('copies what has changed, and reports what was in flight', async () => {
    await using server = await startQemuNbd({ size: SIZE, bitmap: 'b0' });
    await out(['copy', at('from'), server.uri()]);
    await writeFile(at('backup'), bytes);
    await using connection = await NbdConnection.connect(server.uri());
    await connection.pwrite(Buffer.alloc(65_536, 7), MIB);
    await connection.zero(65_536, 0);
    const { code, stderr } = await nbd(['copy', '--verbose', '--bitmap=b0', server.uri(), at('backup')]);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/bytes in flight=\d+[KM]\n/)]);
    const expected = Buffer.from(bytes)
      .fill(7, MIB, MIB + 65_536)
      .fill(0, 0, 65_536);
    expect((await readFile(at('backup'))).equals(expected)).toBe(true);
    const missing = await nbd(['copy', '--bitmap=b1', server.uri(), at('backup')]);
    expect(missing.code).toBe(1);
    expect(missing.stderr).toMatch(/b1/);
  });
});

describeWith(['nbdkit'], 'nbd copy --checkpoint', () => {
  it('goes on after it was killed, and after Ctrl-C says how', async () => {
    const large = randomBytes(64 * MIB);
    await writeFile(at('large'), large);
    await using server = await startNbdkit({ args: ['64M'] });
    const words = ['copy', '--checkpoint', at('state'), at('large'), server.uri()];
    for (const signal of ['SIGKILL', 'SIGINT'] as const) {
      const child = await start([...words, '--rate=24M']);
      const ended = exitOf(child);
      // The file of the round before counts only when it has been replaced.
      const before = savedAt(at('state'));
      await until(() => savedAt(at('state')) !== before);
      child.kill(signal);
      expect(await ended).toBe(signal === 'SIGKILL' ? 'SIGKILL' : 130);
      if (signal === 'SIGINT') expect(child.err()).toMatch(/run the same command again/);
    }
    const other = await nbd(['copy', '--checkpoint', at('state'), at('from'), server.uri()]);
    expect([other.code, existsSync(at('state'))]).toEqual([1, true]);
    expect(other.stderr).toMatch(/belongs to another copy/);
    await out(words);
    expect(existsSync(at('state'))).toBe(false);
    expect((await nbd(['compare', at('large'), server.uri()])).code).toBe(0);
  });
});

describeWith(['nbdkit'], 'nbd copy --salvage', () => {
  it('zeroes what cannot be read, lists it, and ends with 1', async () => {
    await using server = await new NbdServer({
      exports: {
        '': {
          backend: {
            size: SIZE,
            read: (buffer, offset) => {
              const start = Number(offset);
              if (start < 4096 && 1024 < start + buffer.length) throw Object.assign(new Error('bad'), { code: 'EIO' });
              bytes.copy(buffer, 0, start, start + buffer.length);
            },
          },
        },
      },
    }).listenTcp();
    const { code, stderr } = await nbd(['copy', '--salvage', server.uri(), at('salvaged')]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/3072 bytes could not be read, and are zero in the destination:\n1024 3072\n$/);
    expect((await readFile(at('salvaged'))).equals(Buffer.from(bytes).fill(0, 1024, 4096))).toBe(true);
    expect((await nbd(['copy', server.uri(), at('strict')])).code).toBe(1);
  });
});

describeWith(['nbdkit'], 'nbd compare and nbd hash of a part', () => {
  it('look at nothing else', async () => {
    const padded = Buffer.concat([bytes, Buffer.alloc(1000)]);
    await writeFile(at('padded'), padded);
    expect((await nbd(['compare', '-q', at('from'), at('padded')])).code).toBe(2);
    expect((await nbd(['compare', '-q', '--trailing-zeroes', at('from'), at('padded')])).code).toBe(0);
    padded[5000] = (padded[5000] ?? 0) ^ 1;
    await writeFile(at('padded'), padded);
    expect((await nbd(['compare', '-q', '--offset=5001', '--length=1M', at('from'), at('padded')])).code).toBe(0);
    const json = await out(['compare', '--json', '-o', '4k', '-n', '1M', at('from'), at('padded')], 2);
    expect(JSON.parse(json)).toMatchObject({ equal: false, firstDifference: 5000, differing: 1, compared: MIB });
    await using server = await startNbdkit({ plugin: 'file', args: [at('from')] });
    const line = await out(['hash', '--offset=77', '--length=100000', server.uri()]);
    expect(line.split(' ')[0]).toBe(createHash('sha256').update(bytes.subarray(77, 100_077)).digest('hex'));
    for (const words of [
      ['hash', '--offset=4M'],
      ['hash', '--length=x'],
    ]) {
      expect((await nbd([...words, server.uri()])).code).toBe(1);
    }
  });
});
