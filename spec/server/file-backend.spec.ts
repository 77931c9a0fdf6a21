import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileBackend, type FileBackendOptions } from '../../lib/server/index.js';

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

  it('knows holes in a file that it made, and zeroes that it wrote, in whole blocks', async () => {
    const backend = await open({ create: true, size: BLOCK * 6 + 10 });
    expect(await runs(backend)).toEqual([[BLOCK * 6 + 10, 3]]);
    await backend.write(Buffer.alloc(BLOCK * 3, 1), 100, PLAIN);
    expect(await runs(backend)).toEqual([
      [BLOCK * 4, 0],
      [BLOCK * 2 + 10, 3],
    ]);
    await backend.zero(BLOCK - 10, BLOCK + 20, ZERO);
    expect(await runs(backend)).toEqual([
      [BLOCK, 0],
      [BLOCK, 2],
      [BLOCK * 2, 0],
      [BLOCK * 2 + 10, 3],
    ]);
    // To the end of the file, whose last block is short.
    await backend.zero(BLOCK * 5, BLOCK + 10, { ...ZERO, noHole: true });
    expect((await runs(backend)).at(-1)).toEqual([BLOCK + 10, 2]);
    const bytes = Buffer.alloc(BLOCK * 3);
    await backend.read(bytes, 0);
    const expected = Buffer.alloc(BLOCK * 3, 1)
      .fill(0, 0, 100)
      .fill(0, BLOCK - 10, BLOCK * 2 + 10);
    expect(bytes.equals(expected)).toBe(true);
  });

  it('zeroes fast only what is known to be zero', async () => {
    await writeFile(path, Buffer.alloc(BLOCK * 2, 7));
    const backend = await open();
    await expect(backend.zero(0, BLOCK, { ...ZERO, fast: true })).rejects.toMatchObject({ code: 'ENOTSUP' });
    expect((await readFile(path))[0]).toBe(7);
    await backend.zero(0, BLOCK, ZERO);
    await backend.zero(0, BLOCK, { ...ZERO, fast: true, noHole: true });
    expect((await readFile(path))[BLOCK]).toBe(7);
    const made = await FileBackend.open(join(folder, 'made'), { create: true, size: BLOCK });
    opened.push(made);
    await made.zero(0, BLOCK, { ...ZERO, fast: true });
    await expect(made.zero(0, BLOCK, { ...ZERO, fast: true, noHole: true })).rejects.toMatchObject({ code: 'ENOTSUP' });
  });

  it('does not call zero what a write touched while it was being zeroed', async () => {
    const backend = await open({ create: true, size: BLOCK * 4 });
    await backend.write(Buffer.alloc(BLOCK * 4, 1), 0, PLAIN);
    await Promise.all([backend.zero(0, BLOCK * 2, ZERO), backend.write(Buffer.from('x'), BLOCK, PLAIN)]);
    await Promise.all([backend.write(Buffer.from('x'), BLOCK * 2, PLAIN), backend.zero(BLOCK * 2, BLOCK, ZERO)]);
    await Promise.all([backend.zero(BLOCK * 3, BLOCK, ZERO), backend.write(Buffer.from('x'), BLOCK * 2, PLAIN)]);
    expect(await runs(backend)).toEqual([
      [BLOCK * 3, 0],
      [BLOCK, 2],
    ]);
  });

  it('finds zeroes by reading when told to, up to a limit', async () => {
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
    await truncate(path, 1 << 26);
    const large = await open({ detectZeroes: true });
    const told = await runs(large);
    expect(told.length).toBe((1 << 24) / BLOCK);
  });
});
