import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open as openFile, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { NBD_STATE_ZERO } from '../../lib/protocol/constants.js';
import { FileBackend, type FileBackendOptions } from '../../lib/server/index.js';
import { findTool } from '../support/tools.js';

const BLOCK = 65536;
const PLAIN = { fua: false };
const ZERO = { fua: false, noHole: false, fast: false };

describe('FileBackend', () => {
  let folder: string;
  let path: string;
  const opened: FileBackend[] = [];
  const open = async (options?: FileBackendOptions): Promise<FileBackend> => {
    const backend = await FileBackend.open(path, options);
    opened.push(backend);
    return backend;
  };
  const runs = async (backend: FileBackend, offset = 0, count = backend.size): Promise<unknown[]> =>
    [...(await backend.extents(offset, count))].map(({ length, flags }) => [length, flags]);

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-file-'));
    path = join(folder, 'image');
  });
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((backend) => backend.close()));
    await rm(folder, { recursive: true });
  });

  it('reads and writes the file', async () => {
    await writeFile(path, 'hello, file');
    const backend = await open();
    expect(backend.size).toBe(11);
    await backend.write(Buffer.from('HELLO'), 0, { fua: true });
    const bytes = Buffer.alloc(8);
    await backend.read(bytes, 3);
    expect(bytes.toString()).toBe('LO, file');
    await backend.flush();
    await backend.close();
    await backend.close();
    expect(await readFile(path, 'utf8')).toBe('HELLO, file');
  });

  it('makes a file of the size, but never over another', async () => {
    const backend = await open({ create: true, size: 1 << 30 });
    expect(backend.size).toBe(1 << 30);
    expect((await stat(path)).size).toBe(1 << 30);
    await expect(FileBackend.open(path, { create: true, size: 10 })).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(FileBackend.open(join(folder, 'no'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('leaves a read-only file as it is', async () => {
    await writeFile(path, 'contents');
    const backend = await open({ readOnly: true });
    expect(backend.readOnly).toBe(true);
    await backend.flush();
    await expect(backend.write(Buffer.from('x'), 0, PLAIN)).rejects.toMatchObject({ code: 'EBADF' });
  });

  it('fails with EIO when the file has become shorter', async () => {
    await writeFile(path, Buffer.alloc(1000));
    const backend = await open();
    await truncate(path, 500);
    await expect(backend.read(Buffer.alloc(100), 450)).rejects.toMatchObject({ code: 'EIO' });
  });

  describe.each(['with perl', 'with python3', 'without either'])('%s', (how) => {
    const name = how.slice('with '.length);
    const program = how === 'without either' ? undefined : findTool(name);
    const isHelped = program !== undefined && process.platform === 'linux';
    const path_ = process.env['PATH'];
    beforeEach(async () => {
      const bin = join(folder, 'bin');
      await mkdir(bin);
      if (program !== undefined) await symlink(program, join(bin, name));
      process.env['PATH'] = bin;
    });
    afterEach(() => {
      process.env['PATH'] = path_;
    });
    /** Which of the blocks are reported as zeroes, whether as holes or not; asks until the answer is whole. */
    const zeroBlocks = async (backend: FileBackend): Promise<string> => {
      let map = '';
      for (let at = 0; at < backend.size;) {
        for (const { length, flags } of await backend.extents(at, backend.size - at)) {
          map += (Number(flags) & NBD_STATE_ZERO ? 'z' : 'd').repeat(Number(length) / 4096);
          at += Number(length);
        }
      }
      return map.replace(/(.){16}/g, (block) => (block === 'z'.repeat(16) ? 'z' : 'd'));
    };
    const allocated = async (): Promise<number> => (await stat(path)).blocks * 512;

    it('reports as zeroes what is a hole, in a file of another’s too', async () => {
      await writeFile(path, Buffer.alloc(BLOCK, 1));
      await truncate(path, BLOCK * 8);
      const backend = await open();
      expect(await zeroBlocks(backend)).toBe('dzzzzzzz');
      if (isHelped) expect((await runs(backend)).at(-1)).toEqual([BLOCK * 7, 3]);
      await backend.write(Buffer.alloc(BLOCK, 1), BLOCK * 6, PLAIN);
      expect(await zeroBlocks(backend)).toBe('dzzzzzdz');
    });

    it('believes nothing of what another writer may have changed', async () => {
      await truncate(await emptyFile(path), BLOCK * 8);
      const [one, other] = [await open(), await open()];
      await one.zero(0, BLOCK * 8, ZERO);
      expect(await zeroBlocks(one)).toBe('zzzzzzzz');
      await other.write(Buffer.alloc(BLOCK * 2, 7), BLOCK, PLAIN);
      const handle = await openFile(path, 'r+');
      await handle.write(Buffer.alloc(BLOCK, 8), 0, BLOCK, BLOCK * 5);
      await handle.close();
      expect(await zeroBlocks(one)).toBe('zddzzdzz');
      // What another wrote is zeroed, not thought to be so.
      await one.zero(0, BLOCK * 8, ZERO);
      expect((await readFile(path)).equals(Buffer.alloc(BLOCK * 8))).toBe(true);
      expect([undefined, 'ENOTSUP']).toContain(await codeOf(other.zero(0, BLOCK * 8, { ...ZERO, fast: true })));
    });

    it('allocates nothing to zero what is a hole', async () => {
      await truncate(await emptyFile(path), 1 << 26);
      const backend = await open();
      await backend.write(Buffer.alloc(BLOCK, 1), 1 << 25, PLAIN);
      await backend.flush();
      const before = await allocated();
      await backend.zero(0, 1 << 25, ZERO);
      await backend.zero(BLOCK + 1, 100, ZERO);
      await backend.zero((1 << 25) + BLOCK, (1 << 25) - BLOCK, ZERO);
      await backend.flush();
      expect(await allocated()).toBe(before);
      await backend.zero(0, 1 << 26, ZERO);
      expect((await readFile(path)).equals(Buffer.alloc(1 << 26))).toBe(true);
    });

    it.each([
      [0, BLOCK * 4],
      [1, BLOCK * 4 - 2],
      [BLOCK - 10, BLOCK + 20],
      [BLOCK + 5, 11],
      [BLOCK * 3, BLOCK + 10],
    ])('zeroes from %d on %d bytes, and no others', async (offset, count) => {
      for (const noHole of [false, true]) {
        const bytes = Buffer.alloc(BLOCK * 4 + 10, 7);
        await writeFile(path, bytes);
        const backend = await open();
        await backend.zero(offset, count, { ...ZERO, noHole, fua: true });
        expect((await readFile(path)).equals(bytes.fill(0, offset, offset + count))).toBe(true);
      }
    });

    it('zeroes fast, or fails and changes nothing', async () => {
      await writeFile(path, Buffer.alloc(BLOCK * 2, 7));
      const backend = await open();
      const outcome = await codeOf(backend.zero(0, BLOCK, { ...ZERO, fast: true }));
      expect([undefined, 'ENOTSUP']).toContain(outcome);
      if (!isHelped) expect(outcome).toBe('ENOTSUP');
      expect((await readFile(path))[0]).toBe(outcome === undefined ? 0 : 7);
      expect((await readFile(path))[BLOCK]).toBe(7);
    });

    it('trims, or leaves it alone', async () => {
      await writeFile(path, Buffer.alloc(BLOCK * 3, 7));
      const backend = await open();
      await backend.trim(BLOCK, BLOCK, { fua: true });
      const bytes = await readFile(path);
      expect([0, 7]).toContain(bytes[BLOCK]);
      bytes.fill(7, BLOCK, BLOCK * 2);
      expect(bytes.equals(Buffer.alloc(BLOCK * 3, 7))).toBe(true);
    });

    it('stops zeroing when its command is given up', async () => {
      await writeFile(path, Buffer.alloc(1 << 24, 7));
      const backend = await open();
      const gone = new AbortController();
      gone.abort();
      const options = { ...ZERO, signal: gone.signal };
      await expect(backend.zero(0, 1 << 24, options)).rejects.toMatchObject({ code: 'ESHUTDOWN' });
      await expect(backend.zero(0, 100, options)).rejects.toMatchObject({ code: 'ESHUTDOWN' });
      expect((await readFile(path)).equals(Buffer.alloc(1 << 24, 7))).toBe(true);
    });

    it('does not call a hole what lies behind the end of a file that was cut', async () => {
      await truncate(await emptyFile(path), BLOCK * 4);
      const backend = await open();
      await truncate(path, BLOCK);
      const outcome = await codeOf(runs(backend));
      if (isHelped)
        expect(outcome).toEqual([
          [BLOCK, 3],
          [BLOCK * 3, 0],
        ]);
      // Reading it fails, and that is what a client has to see.
      else expect(outcome === 'EIO' || JSON.stringify(outcome) === `[[${BLOCK * 4},0]]`).toBe(true);
    });

    it('finds zeroes by reading when the option is set, up to a limit', async () => {
      const contents = Buffer.alloc(BLOCK * 3 + 5);
      contents[BLOCK * 2 - 1] = 1;
      await writeFile(path, contents);
      const backend = await open({ detectZeroes: true });
      expect(await runs(backend)).toEqual([
        [BLOCK, 2],
        [BLOCK, 0],
        [BLOCK, 2],
        [5, 2],
      ]);
      expect(await runs(backend, BLOCK + 3, BLOCK)).toEqual([
        [BLOCK - 3, 0],
        [3, 2],
      ]);
      await writeFile(path, Buffer.alloc((1 << 24) + BLOCK));
      const large = await open({ detectZeroes: true });
      expect((await runs(large)).length).toBe((1 << 24) / BLOCK);
    });
  });

  it('goes on without the helper that has ended', async () => {
    await writeFile(join(folder, 'perl'), '#!/bin/sh\nread line; exit 0\n', { mode: 0o755 });
    const before = process.env['PATH'];
    process.env['PATH'] = folder;
    try {
      await truncate(await emptyFile(path), BLOCK * 2);
      const backend = await open();
      const [first, second] = await Promise.all([runs(backend), runs(backend, BLOCK, BLOCK)]);
      expect([first, second]).toEqual([
        [
          [BLOCK, 2],
          [BLOCK, 2],
        ],
        [[BLOCK, 2]],
      ]);
    } finally {
      process.env['PATH'] = before;
    }
  });

  it.each<[string, unknown, RegExp]>([
    ['an unknown key', { readonly: true }, /FileBackend.open: unknown option "readonly"/],
    ['a size that is not one', { create: true, size: NaN }, /size: must be a whole number/],
    ['a text for a switch', { detectZeroes: 'yes' }, /detectZeroes: must be true or false/],
    ['sizes of blocks that are not', { blockSize: { minimum: 3, preferred: 4096, maximum: 4096 } }, /power of 2/],
    ['too few of them', { blockSize: { minimum: 512 } }, /must have minimum, preferred and maximum/],
    ['what contradicts itself', { create: true, readOnly: true }, /exclude each other/],
  ])('refuses %s', async (_, options, message) => {
    await expect(FileBackend.open(path, options as FileBackendOptions)).rejects.toThrow(message);
    await expect(FileBackend.open(path, options as FileBackendOptions)).rejects.toMatchObject({ code: 'EINVAL' });
  });

  it('refuses what is not a file, at once', async () => {
    await expect(FileBackend.open(folder)).rejects.toMatchObject({ code: 'EISDIR' });
    await expect(FileBackend.open('/dev/null')).rejects.toMatchObject({ code: 'EINVAL' });
    await promisify(execFile)('mkfifo', [path]);
    for (const readOnly of [false, true]) {
      await expect(FileBackend.open(path, { readOnly, size: 10 })).rejects.toMatchObject({ code: 'EINVAL' });
    }
  });
});

async function emptyFile(path: string): Promise<string> {
  await writeFile(path, '');
  return path;
}

/** What a promise resolves with, or the code of its error. */
const codeOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.catch((error: unknown) => (error as NodeJS.ErrnoException).code);
