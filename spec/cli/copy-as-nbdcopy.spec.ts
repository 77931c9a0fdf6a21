// What nbdcopy's own tests ask of `nbd copy`, beyond copying.

import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLI_COMMANDS } from '../../lib/cli/registry.js';
import { describeWith, startNbdkit } from '../support/real-servers.js';
import { nbd, out } from './support.js';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-as-nbdcopy-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describeWith(['nbdkit'], 'an export copied onto itself', () => {
  it('is read and written back, with a note; whatever it is called', async () => {
    await using server = await startNbdkit({
      filters: ['exportname'],
      plugin: 'data',
      args: ['data=@4096 "hello"*1000', 'size=1M', 'exportname=a b', 'default-export=a b'],
    });
    const before = await out(['hash', server.uri('a b')]);
    for (const other of [server.uri('a b'), `nbd+unix:///%61%20b?socket=${server.socketPath ?? ''}`]) {
      const { code, stdout, stderr } = await nbd(['copy', server.uri('a b'), other]);
      expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
      expect(stderr).toBe('nbd copy: note: the source and the destination are the same export\n');
    }
    expect(await out(['hash', server.uri('a b')])).toBe(before);
  });
});

describeWith(['nbdkit'], '--allocated --destination-is-zero', () => {
  it.each([[[]], [['--synchronous']]])('allocates the zeroes %j', async (more) => {
    await using server = await startNbdkit({ args: ['4M'] });
    await rm(at('allocated'), { force: true });
    await out(['copy', '--allocated', '--destination-is-zero', ...more, server.uri(), at('allocated')]);
    const { size, blocks } = await stat(at('allocated'));
    expect(size).toBe(4 << 20);
    expect(blocks * 512).toBeGreaterThanOrEqual(4 << 20);
  });
});

describeWith(['nbdkit'], '--blkhash', () => {
  const size = 1_500_001;
  const bytes = Buffer.alloc(size);
  bytes.fill('some text ', 100_000, 400_000);
  bytes[size - 1] = 7;

  /** libblkhash's: the hash of the blocks' digests and the size. */
  const expected = (algorithm: string, block: number): string => {
    const whole = createHash(algorithm);
    for (let start = 0; start < size; start += block) {
      whole.update(
        createHash(algorithm)
          .update(bytes.subarray(start, start + block))
          .digest(),
      );
    }
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(size));
    return whole.update(length).digest('hex');
  };

  it('prints the hash of what was copied, from exports, files and pipes', async () => {
    await writeFile(at('bytes'), bytes);
    await using server = await startNbdkit({ plugin: 'file', args: [at('bytes')] });
    const cases: [words: string[], hash: string, input?: Buffer][] = [
      [['--blkhash', server.uri(), 'null:'], expected('sha256', 65_536)],
      [['--blkhash=md5', at('bytes'), at('copy-1')], expected('md5', 65_536)],
      [['--blkhash=SHA1/4k', '--no-extents', server.uri(), at('copy-2')], expected('sha1', 4096)],
      [['--blkhash=sha512/1M', '--synchronous', server.uri(), at('copy-3')], expected('sha512', 1 << 20)],
      [['--blkhash', '-', at('copy-4')], expected('sha256', 65_536), bytes],
    ];
    for (const [words, hash, input] of cases) {
      expect([words, await out(['copy', ...words], 0, { input: input ?? '' })]).toEqual([words, `${hash}\n`]);
    }
    for (const name of ['copy-1', 'copy-2', 'copy-3', 'copy-4'])
      expect((await readFile(at(name))).equals(bytes)).toBe(true);
  });

  it('goes to a file when standard output is taken, and only when all was copied', async () => {
    await writeFile(at('bytes'), bytes);
    await using server = await startNbdkit({ plugin: 'file', args: [at('bytes')] });
    const { output, code } = await nbd(['copy', `--blkhash-file=${at('hash')}`, server.uri(), '-']);
    expect([code, output.equals(bytes)]).toEqual([0, true]);
    expect(await readFile(at('hash'), 'utf8')).toBe(`${expected('sha256', 65_536)}\n`);

    const args = ['2M', 'error-pwrite=EIO', 'error-pwrite-rate=100%'];
    await using broken = await startNbdkit({ filters: ['error'], args });
    const failed = await nbd(['copy', '--blkhash', `--blkhash-file=${at('none')}`, server.uri(), broken.uri()]);
    expect(failed).toMatchObject({ code: 1, stdout: '' });
    expect(await readdir(folder)).not.toContain('none');
  });

  it.each([
    ['--blkhash=nope', /--blkhash: nope: .*nope/],
    ['--blkhash=md5/5000', /--blkhash: md5\/5000: .*power of 2/],
    ['--blkhash=md5/4k/2', /--blkhash: could not parse/],
    ['--blkhash=/4k', /--blkhash: could not parse/],
    ['--blkhash=md5/x', /--blkhash: could not parse: x/],
    ['--blkhash-file=', /--blkhash-file: expected a file name/],
  ])('refuses %s', async (word, message) => {
    const { code, stderr } = await nbd(['copy', word, 'nbd://127.0.0.1:1', 'null:']);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
  });
});

describe('the SYNOPSIS of copy and compare', () => {
  it.each(['copy', 'compare'])('%s has every option, and defines what it names', async (name) => {
    const { spec } = await (CLI_COMMANDS[name] as (typeof CLI_COMMANDS)[string])();
    const help = await out([name, '--help']);
    const synopsis = help.slice(help.indexOf('SYNOPSIS'), help.indexOf('DESCRIPTION'));
    for (const option of spec.options) expect(synopsis).toContain(`--${option.names[0] ?? ''}`);
    expect(synopsis.match(new RegExp(`nbd ${name}`, 'g'))).toHaveLength(1);
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });
});
