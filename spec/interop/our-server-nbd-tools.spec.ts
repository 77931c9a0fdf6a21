// The embedded server in the hands of nbdinfo and nbdcopy.

import { expect, it } from '@jest/globals';
import { readFile, stat, writeFile } from 'node:fs/promises';
import {
  ExtentMap,
  FileBackend,
  MemoryBackend,
  type NbdServerOptions,
  PatternBackend,
} from '../../lib/server/index.js';
import { content } from '../support/golden.js';
import { describeWith, runTool } from '../support/real-servers.js';
import { inFolder, make, MiB, run, serve, sha, sparseContents } from './our-server.js';

describeWith(['nbdinfo'], 'nbdinfo and our server', () => {
  it('sees size, description, contexts, flags and block sizes', async () => {
    const backend = new MemoryBackend(5 * MiB);
    const { uri } = await serve({
      exports: {
        disk: {
          backend,
          description: 'a disk\twith a tab',
          blockSize: { minimum: 512, preferred: 4096, maximum: MiB },
          metaContexts: { 'qemu:dirty-bitmap:b0': new ExtentMap(backend.size) },
        },
      },
    }).then((it) => ({ uri: it.uri('disk') }));
    const told = JSON.parse(await run('nbdinfo', '--json', uri)) as Record<string, unknown>;
    expect(told).toMatchObject({
      protocol: 'newstyle-fixed',
      TLS: false,
      structured: true,
      exports: [
        {
          'export-name': 'disk',
          description: 'a disk\twith a tab',
          contexts: ['base:allocation', 'qemu:dirty-bitmap:b0'],
          is_rotational: false,
          is_read_only: false,
          can_cache: true,
          can_df: true,
          can_fast_zero: true,
          can_flush: true,
          can_fua: true,
          can_multi_conn: true,
          can_trim: true,
          can_zero: true,
          block_size_minimum: 512,
          block_size_preferred: 4096,
          block_size_maximum: MiB,
          'export-size': 5 * MiB,
        },
      ],
    });
  });

  it('sees what was switched off', async () => {
    const it = await serve({
      exports: {
        '': {
          backend: new MemoryBackend(MiB),
          readOnly: true,
          baseAllocation: false,
          flags: { flush: false, df: false, cache: false, multiConn: false, rotational: true },
        },
      },
      features: { blockSizeInfo: false },
    });
    const told = JSON.parse(await run('nbdinfo', '--json', it.uri())) as { exports: Record<string, unknown>[] };
    expect(told.exports[0]).toMatchObject({
      contexts: [],
      is_read_only: true,
      is_rotational: true,
      can_cache: false,
      can_df: false,
      can_flush: false,
      can_multi_conn: false,
    });
    expect(told.exports[0]).not.toHaveProperty('block_size_minimum');
    expect((await runTool('nbdinfo', ['--can', 'cache', it.uri()])).code).toBe(2);
    expect((await runTool('nbdinfo', ['--is', 'read-only', it.uri()])).code).toBe(0);
  });

  it('lists exports', async () => {
    const names = ['', 'a', 'ü/b c', 'x'.repeat(200)];
    const it = await serve({ exports: Object.fromEntries(names.map((name) => [name, new MemoryBackend(MiB)])) });
    const told = JSON.parse(await run('nbdinfo', '--list', '--json', it.uri())) as {
      exports: { 'export-name': string; 'export-size': number }[];
    };
    expect(told.exports.map((entry) => entry['export-name'])).toEqual(names);
    expect(told.exports.every((entry) => entry['export-size'] === MiB)).toBe(true);
  });

  it('maps allocation and a dirty bitmap, of a huge export too', async () => {
    const backend = new MemoryBackend(1n << 40n);
    backend.write(Buffer.alloc(65536, 1), 1n << 35n);
    backend.zero(0, 4096, { fua: false, fast: false, noHole: true });
    const dirty = new ExtentMap(backend.size);
    dirty.set(512, 1024, 1);
    const it = await serve({ exports: { '': { backend, metaContexts: { 'qemu:dirty-bitmap:b': dirty } } } });
    const map = JSON.parse(await run('nbdinfo', '--map', '--json', it.uri())) as unknown[];
    expect(map).toEqual([
      { offset: 0, length: 4096, type: 2, description: 'zero' },
      { offset: 4096, length: 2 ** 35 - 4096, type: 3, description: 'hole,zero' },
      { offset: 2 ** 35, length: 65536, type: 0, description: 'data' },
      { offset: 2 ** 35 + 65536, length: 2 ** 40 - 2 ** 35 - 65536, type: 3, description: 'hole,zero' },
    ]);
    expect(await run('nbdinfo', '--map=qemu:dirty-bitmap:b', it.uri())).toMatch(/512 +1024 +1 +dirty\n/);
  });

  it('finds servers of old', async () => {
    const exports = { '': new MemoryBackend(MiB) };
    const protocol = async (options: NbdServerOptions): Promise<string> => {
      const it = await serve({ exports, ...options });
      const { protocol: name, structured } = JSON.parse(await run('nbdinfo', '--json', '--no-content', it.uri())) as {
        protocol: string;
        structured: boolean;
      };
      await it.close();
      return `${name} ${structured ? 'structured' : 'simple'}`;
    };
    expect(await protocol({ style: 'oldstyle' })).toBe('oldstyle simple');
    expect(await protocol({ fixedNewstyle: false, noZeroes: false })).toBe('newstyle simple');
    expect(await protocol({ features: { structuredReply: false } })).toBe('newstyle-fixed simple');
    expect(await protocol({ features: { info: false, go: false } })).toBe('newstyle-fixed structured');
    expect(await protocol({ features: { list: 'POLICY', setMetaContext: false } })).toBe('newstyle-fixed structured');
  });
});

describeWith(['nbdcopy'], 'nbdcopy and our server', () => {
  it.each([[1], [4]])('copies to it and from it, over %d connections', async (connections) => {
    const bytes = sparseContents(24 * MiB + 513);
    const [from, to] = [inFolder('from'), inFolder('to')];
    await writeFile(from, bytes);
    const backend = new MemoryBackend(bytes.length);
    const it = await serve({ exports: { '': backend } });
    await run('nbdcopy', `--connections=${connections}`, '--flush', from, it.uri());
    await run('nbdcopy', `--connections=${connections}`, it.uri(), to);
    expect(sha(await readFile(to))).toBe(sha(bytes));
    expect(it.statistics.requests.flush).toBeGreaterThan(0);
    // Runs of zeroes were not stored, and came back as holes.
    expect(backend.allocated).toBeLessThan(bytes.length * 0.7);
    expect((await stat(to)).blocks * 512).toBeLessThan(bytes.length * 0.7);
  });

  it('copies between two of them, by simple replies too', async () => {
    const bytes = sparseContents(8 * MiB);
    const target = new MemoryBackend(bytes.length);
    const it = await serve({ exports: { a: MemoryBackend.from(bytes), b: target } });
    await run('nbdcopy', it.uri('a'), it.uri('b'));
    const read = Buffer.alloc(bytes.length);
    target.read(read, 0);
    expect(sha(read)).toBe(sha(bytes));
    await it.close();
    const old = await serve({ exports: { a: MemoryBackend.from(bytes) }, features: { structuredReply: false } });
    const to = inFolder('to');
    await run('nbdcopy', '--no-extents', old.uri('a'), to);
    expect(sha(await readFile(to))).toBe(sha(bytes));
  });

  it('copies through TCP into a file backend', async () => {
    const bytes = sparseContents(16 * MiB);
    const [from, image] = [inFolder('from'), inFolder('image')];
    await writeFile(from, bytes);
    const server = make({
      exports: { '': await FileBackend.open(image, { create: true, size: bytes.length }) },
    });
    await server.listenTcp();
    await run('nbdcopy', '--flush', from, server.uri());
    await run('nbdcopy', server.uri(), inFolder('to'));
    await server.close();
    expect(sha(await readFile(image))).toBe(sha(bytes));
    expect(sha(await readFile(inFolder('to')))).toBe(sha(bytes));
    // The holes of a file that was made here were never written.
    expect((await stat(image)).blocks * 512).toBeLessThan(bytes.length * 0.7);
  });

  it('verifies a pattern by writing it back', async () => {
    const it = await serve({
      exports: { a: new PatternBackend(32 * MiB), b: new PatternBackend(32 * MiB, { writable: true }) },
    });
    await run('nbdcopy', it.uri('a'), it.uri('b'));
    expect(it.statistics.bytesWritten).toBe(32 * MiB);
    const shifted = await serve({ exports: { b: new PatternBackend(32 * MiB, { writable: true }) } });
    const zeroes = inFolder('ones');
    await writeFile(zeroes, Buffer.alloc(MiB, 1));
    expect((await runTool('nbdcopy', [zeroes, shifted.uri('b')])).stderr).toMatch(/Input\/output error/);
  });

  it('meets an error in the middle', async () => {
    const it = await serve({ exports: { '': MemoryBackend.from(content(0, 8 * MiB)) } });
    it.faults.push({ command: 'read', nth: 5, error: 'EIO' });
    const { code, stderr } = await runTool('nbdcopy', [it.uri(), 'null:']);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/Input\/output error/);
  });
});
