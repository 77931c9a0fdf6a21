// The embedded server in the hands of libnbd, and its pattern beside nbdkit's.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { fillPattern, MemoryBackend, PatternBackend } from '../../lib/server/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { content } from '../support/golden.js';
import { describeWith, runLibnbd, startNbdkit } from '../support/real-servers.js';
import { make, MiB, serve } from './our-server.js';

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
      requests: { pread: 3, pwrite: 1, zero: 1, trim: 1, cache: 1, flush: 1, blockStatus: 2, disconnect: 1 },
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
