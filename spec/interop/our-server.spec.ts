// The embedded server in the hands of clients that were not written for it.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ExtentMap,
  FileBackend,
  fillPattern,
  MemoryBackend,
  NbdServer,
  type NbdServerOptions,
  PatternBackend,
} from '../../lib/server/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { randomNumbers } from '../support/deliver.js';
import { content } from '../support/golden.js';
import { describeWith, runLibnbd, runTool, startNbdkit } from '../support/real-servers.js';

const MiB = 1 << 20;

let folder: string;
const servers: NbdServer[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-interop-'));
});
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
  await rm(folder, { recursive: true, force: true });
});

let sockets = 0;
function make(options: NbdServerOptions): NbdServer {
  const server = new NbdServer({ closeTimeout: 500, ...options });
  servers.push(server);
  return server;
}

const serve = (options: NbdServerOptions): Promise<NbdServer> =>
  make(options).listenUnix(join(folder, `socket${(sockets += 1)}`));

/** Runs a program that must succeed, and gives what it said. */
async function run(name: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runTool(name, args);
  expect({ name, args, code, stderr: code === 0 ? '' : stderr }).toEqual({ name, args, code: 0, stderr: '' });
  return stdout;
}

/** Runs a script with libnbd's binding; the handle `h` is connected to `uri`. */
async function libnbd(uri: string, ...lines: string[]): Promise<string> {
  const { code, stdout, stderr } = await runLibnbd(
    [
      'h = nbd.NBD()',
      'h.set_uri_allow_local_file(True)',
      'h.add_meta_context("base:allocation")',
      `h.connect_uri("${uri}")`,
      ...lines,
    ].join('\n'),
  );
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout.trim();
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Some data, some long runs of zeroes. */
function sparseContents(length: number, seed = 7): Buffer {
  const bytes = Buffer.alloc(length);
  const next = randomNumbers(seed);
  for (let at = 0; at < length; at += 65536) {
    if (next() < 0.5) content(Math.floor(next() * length), Math.min(65536, length - at)).copy(bytes, at);
  }
  return bytes;
}

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
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
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
    const to = join(folder, 'to');
    await run('nbdcopy', '--no-extents', old.uri('a'), to);
    expect(sha(await readFile(to))).toBe(sha(bytes));
  });

  it('copies through TCP into a file backend', async () => {
    const bytes = sparseContents(16 * MiB);
    const [from, image] = [join(folder, 'from'), join(folder, 'image')];
    await writeFile(from, bytes);
    const server = make({
      exports: { '': await FileBackend.open(image, { create: true, size: bytes.length }) },
    });
    await server.listenTcp();
    await run('nbdcopy', '--flush', from, server.uri());
    await run('nbdcopy', server.uri(), join(folder, 'to'));
    await server.close();
    expect(sha(await readFile(image))).toBe(sha(bytes));
    expect(sha(await readFile(join(folder, 'to')))).toBe(sha(bytes));
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
    const zeroes = join(folder, 'ones');
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

describeWith(['qemu-img'], 'qemu-img and our server', () => {
  it('reads, compares and maps', async () => {
    const bytes = sparseContents(16 * MiB);
    const image = join(folder, 'image');
    await writeFile(image, bytes);
    const it = await serve({ exports: { disk: MemoryBackend.from(bytes) } });
    const uri = it.uri('disk');
    expect(JSON.parse(await run('qemu-img', 'info', '--output=json', uri))).toMatchObject({
      'virtual-size': bytes.length,
      format: 'raw',
    });
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, uri)).toMatch(/identical/);
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, join(folder, 'out'));
    expect(sha(await readFile(join(folder, 'out')))).toBe(sha(bytes));
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
    const image = join(folder, 'image');
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

describeWith(['python3-libnbd'], 'libnbd and our server', () => {
  it('reads and writes with every command and flag', async () => {
    const backend = new MemoryBackend(MiB);
    const it = await serve({ exports: { '': backend } });
    const said = await libnbd(
      it.uri(),
      'h.pwrite(b"A" * 8192, 4096, nbd.CMD_FLAG_FUA)',
      'h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)',
      'h.trim(1024, 8192, nbd.CMD_FLAG_FUA)',
      'h.cache(MiB := 1 << 20, 0)',
      'h.flush()',
      'b = h.pread(16384, 0)',
      'print(b.count(b"A"), b.find(b"A"))',
      'chunks = []',
      'b = h.pread_structured(1 << 20, 0, lambda d, o, s, e: chunks.append((o, len(d), s)) or 0)',
      'print(chunks)',
      'h.pread_structured(1 << 20, 0, lambda d, o, s, e: print("df", o, len(d), s) or 0, nbd.CMD_FLAG_DF)',
      'h.block_status(1 << 20, 0, lambda c, o, e, r: print(c, o, e) or 0)',
      'h.block_status(1 << 20, 0, lambda c, o, e, r: print(e) or 0, nbd.CMD_FLAG_REQ_ONE)',
      'h.shutdown()',
    );
    expect(said.split('\n')).toEqual([
      '3072 9216',
      '[(0, 65536, 1), (65536, 983040, 2)]',
      'df 0 1048576 1',
      'base:allocation 0 [65536, 0, 983040, 3]',
      '[65536, 0]',
    ]);
    expect(it.statistics).toMatchObject({
      errors: 0,
      requests: { read: 3, write: 1, zero: 1, trim: 1, cache: 1, flush: 1, blockStatus: 2, disconnect: 1 },
    });
  });

  it('gets the errno and keeps the connection', async () => {
    const it = await serve({ exports: { '': new MemoryBackend(MiB) } });
    for (const [nth, error] of ['EPERM', 'EIO', 'ENOMEM', 'EINVAL', 'ENOSPC', 'EOVERFLOW', 'ENOTSUP'].entries()) {
      it.faults.push({ command: 'cache', nth: nth + 1, error });
    }
    const said = await libnbd(
      it.uri(),
      'h.set_strict_mode(0)',
      'def attempt(f):',
      '  try: f(); print("ok")',
      '  except nbd.Error as e: print(e.errno)',
      'for i in range(8): attempt(lambda: h.cache(1, 0))',
      'attempt(lambda: h.pread(512, 1 << 20))',
      'attempt(lambda: h.pwrite(b"x", 1 << 20))',
      'attempt(lambda: h.flush())',
    );
    expect(said.split('\n')).toEqual([
      'EPERM',
      'EIO',
      'ENOMEM',
      'EINVAL',
      'ENOSPC',
      'EOVERFLOW',
      'ENOTSUP',
      'ok',
      'EINVAL',
      'ENOSPC',
      'ok',
    ]);
  });

  it('holds many requests in flight', async () => {
    const it = await serve({ exports: { '': new PatternBackend(1n << 40n) } });
    const said = await libnbd(
      it.uri(),
      'bufs = [nbd.Buffer(65536) for i in range(500)]',
      'cookies = [h.aio_pread(b, 65537 * i) for i, b in enumerate(bufs)]',
      'while h.aio_in_flight() > 0: h.poll(-1)',
      'assert all(h.aio_command_completed(c) for c in cookies)',
      'def byte(o): return (o - o % 8).to_bytes(8, "big")[o % 8]',
      'print(all(b.to_bytearray()[j] == byte(65537 * i + j) for i, b in enumerate(bufs) for j in (0, 1, 9, 65535)))',
    );
    expect(said).toBe('True');
  });

  it('negotiates step by step', async () => {
    const it = await serve({ exports: { a: new MemoryBackend(MiB), b: new MemoryBackend(2 * MiB) } });
    const { code, stdout, stderr } = await runLibnbd(
      [
        'h = nbd.NBD()',
        'h.set_opt_mode(True)',
        `h.connect_uri("${it.uri('nowhere')}")`,
        'h.opt_list(lambda n, d: print("export", n) or 0)',
        'try: h.opt_info()',
        'except nbd.Error as e: print(e.errno)',
        'h.set_export_name("a")',
        'h.opt_list_meta_context(lambda c: print(c) or 0)',
        'h.opt_info(); print(h.get_size())',
        'h.set_export_name("b"); h.opt_go(); print(h.get_size())',
        'h.shutdown()',
        'g = nbd.NBD(); g.set_opt_mode(True)',
        `g.connect_uri("${it.uri('a')}"); g.opt_abort()`,
      ].join('\n'),
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.trim().split('\n')).toEqual([
      'export a',
      'export b',
      'ENOENT',
      'base:allocation',
      String(MiB),
      String(2 * MiB),
    ]);
  });

  describe('over TLS', () => {
    let pki: Certificates;
    beforeAll(async () => {
      pki = await makeCertificates();
    });
    afterAll(() => pki.remove());

    it('by certificates of both sides', async () => {
      const server = make({
        exports: { '': MemoryBackend.from(content(0, MiB)) },
        tls: 'require',
        tlsOptions: { ...pki.server, ca: pki.ca, verifyPeer: true },
      });
      await server.listenTcp();
      const uri = `${server.uri()}?tls-certificates=${pki.folder}`;
      expect(uri).toMatch(/^nbds:/);
      const said = await libnbd(uri, 'print(h.get_tls_negotiated(), h.pread(1 << 20, 0)[-1])', 'h.shutdown()');
      expect(said).toBe(`True ${content(MiB - 1, 1)[0]}`);
      const stranger = `${server.uri()}?tls-certificates=${pki.strangerFolder}`;
      expect(
        (await runLibnbd(`h = nbd.NBD(); h.set_uri_allow_local_file(True); h.connect_uri("${stranger}")`)).stderr,
      ).toMatch(/certificate/i);
      const plain = server.uri().replace('nbds', 'nbd');
      expect((await runLibnbd(`nbd.NBD().connect_uri("${plain}")`)).stderr).toMatch(/TLS/i);
    });

    it('by a pre-shared key', async () => {
      const it = await serve({
        exports: { '': MemoryBackend.from(content(0, MiB)) },
        tls: 'require',
        tlsOptions: { psk: { [pki.pskUser]: Buffer.from(pki.pskKey, 'hex') } },
      });
      const uri = `${it.uri().replace('///', `//${pki.pskUser}@/`)}&tls-psk-file=${pki.pskFile}`;
      const said = await libnbd(uri, 'print(h.get_tls_negotiated(), h.pread(1 << 20, 0)[-1])', 'h.shutdown()');
      expect(said).toBe(`True ${content(MiB - 1, 1)[0]}`);
    });
  });
});

describeWith(['nbdkit', 'python3-libnbd'], "nbdkit's pattern and ours", () => {
  it('are the same bytes', async () => {
    const size = 0x1_0010_0000;
    const nbdkit = await startNbdkit({ plugin: 'pattern', args: [`size=${size}`] });
    for (const offset of [0, 4091, 0xffff_fff5, size - 1003]) {
      const length = Math.min(1003, size - offset);
      const script = `import sys; h = nbd.NBD(); h.connect_uri("${nbdkit.uri()}"); sys.stdout.buffer.write(h.pread(${length}, ${offset}))`;
      const ours = Buffer.alloc(length);
      fillPattern(ours, offset);
      expect((await runLibnbd(script)).output.equals(ours)).toBe(true);
    }
  });
});
