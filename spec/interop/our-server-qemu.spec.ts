// The embedded server in the hands of qemu-img.

import { expect, it } from '@jest/globals';
import { readFile, writeFile } from 'node:fs/promises';
import { MemoryBackend } from '../../lib/server/index.js';
import { describeWith } from '../support/real-servers.js';
import { inFolder, MiB, run, serve, sha, sparseContents } from './our-server.js';

describeWith(['qemu-img'], 'qemu-img and our server', () => {
  it('reads, compares and maps', async () => {
    const bytes = sparseContents(16 * MiB);
    const image = inFolder('image');
    await writeFile(image, bytes);
    const it = await serve({ exports: { disk: MemoryBackend.from(bytes) } });
    const uri = it.uri('disk');
    expect(JSON.parse(await run('qemu-img', 'info', '--output=json', uri))).toMatchObject({
      'virtual-size': bytes.length,
      format: 'raw',
    });
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, uri)).toMatch(/identical/);
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, inFolder('out'));
    expect(sha(await readFile(inFolder('out')))).toBe(sha(bytes));
  });

  it('maps holes', async () => {
    const backend = new MemoryBackend(MiB);
    backend.write(Buffer.alloc(65536, 1), 65536);
    const it = await serve({ exports: { '': backend } });
    const map = JSON.parse(await run('qemu-img', 'map', '--output=json', '-f', 'raw', it.uri())) as object[];
    expect(map).toMatchObject([
      { start: 0, length: 65536, zero: true, data: false },
      { start: 65536, length: 65536, zero: false, data: true },
      { start: 131072, length: MiB - 131072, zero: true, data: false },
    ]);
  });

  it('converts into it, trimming and zeroing as it likes', async () => {
    const bytes = sparseContents(16 * MiB);
    const image = inFolder('image');
    await writeFile(image, bytes);
    const backend = MemoryBackend.from(Buffer.alloc(bytes.length, 0xff));
    const it = await serve({ exports: { '': backend } });
    await run('qemu-img', 'convert', '-n', '-W', '-f', 'raw', '-O', 'raw', image, it.uri());
    const read = Buffer.alloc(bytes.length);
    backend.read(read, 0);
    expect(sha(read)).toBe(sha(bytes));
    expect(it.statistics.requests.zero + it.statistics.requests.trim).toBeGreaterThan(0);
    expect(it.statistics.errors).toBe(0);
  });

  it('keeps a qcow2 image on it', async () => {
    const it = await serve({ exports: { '': new MemoryBackend(32 * MiB) } });
    await run('qemu-img', 'create', '-f', 'qcow2', it.uri(), '16M');
    expect(await run('qemu-img', 'check', it.uri())).toMatch(/No errors/);
    expect(await run('qemu-img', 'info', it.uri())).toMatch(/file format: qcow2/);
    expect(await run('qemu-img', 'bench', '-w', '-c', '500', '-d', '16', '-s', '4096', it.uri())).toMatch(/completed/);
    expect(await run('qemu-img', 'check', it.uri())).toMatch(/No errors/);
  });
});
