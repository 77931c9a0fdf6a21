// What the embedded server has for tests, in the hands of clients that were not written for it: a rate, held replies,
// damaged data, overlays, random data, exports made on demand, errors by chance, and disconnects.

import { expect, it } from '@jest/globals';
import { readFile, writeFile } from 'node:fs/promises';
import {
  FileBackend,
  MemoryBackend,
  type NbdServerOptions,
  OverlayBackend,
  RandomBackend,
} from '../../lib/server/index.js';
import { describeWith, runLibnbd, runTool } from '../support/real-servers.js';
import { inFolder, MiB, run, serve, sha, sparseContents } from './our-server.js';

/** Runs a script with libnbd's binding; the handle `h` is connected to `uri`. */
async function libnbd(uri: string, ...lines: string[]): Promise<string[]> {
  const script = ['import nbd', 'h = nbd.NBD()', 'h.set_uri_allow_local_file(True)', `h.connect_uri("${uri}")`];
  const { code, stdout, stderr } = await runLibnbd([...script, ...lines].join('\n'));
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout.trim().split('\n');
}

/** The bits that differ. */
function difference(left: Buffer, right: Buffer): number[] {
  const bits: number[] = [];
  for (const [at, byte] of left.entries()) {
    for (let bit = 0; bit < 8; bit++) if ((((right[at] ?? 0) ^ byte) >> bit) & 1) bits.push(8 * at + bit);
  }
  return bits;
}

describeWith(['nbdcopy'], 'nbdcopy', () => {
  it('is slowed down by `rate`, reading and writing', async () => {
    const rate = 8 * MiB;
    const server = await serve({ rate, exports: { '': MemoryBackend.from(Buffer.alloc(4 * MiB, 7)) } });
    const file = inFolder('copy');
    await writeFile(file, Buffer.alloc(4 * MiB, 9));
    for (const way of [
      [server.uri(), 'null:'],
      [file, server.uri()],
    ]) {
      const before = performance.now();
      await run('nbdcopy', ...way);
      // What is allowed at once aside: a lower bound, which no load can break.
      expect(performance.now() - before).toBeGreaterThan(300);
    }
  });

  it('gets data that is damaged by a seed', async () => {
    const contents = sparseContents(MiB);
    const damage = async (seed: number): Promise<number[]> => {
      const server = await serve({ seed, exports: { '': MemoryBackend.from(contents) } });
      server.faults.push({ command: 'pread', nth: 2, corrupt: 3 });
      const file = inFolder('damaged');
      await run('nbdcopy', '--connections=1', '--request-size=262144', '--no-extents', server.uri(), file);
      return difference(contents, await readFile(file));
    };
    const found = await damage(5);
    expect(found).toHaveLength(3);
    expect(await damage(5)).toEqual(found);
    expect(await damage(6)).not.toEqual(found);
  });

  it('copies random data between holes to an export that fails what is wrong', async () => {
    const size = 2 * MiB;
    const from = await serve({ exports: { '': new RandomBackend(size, { seed: 3, percent: 30 }) } });
    const to = (seed: number): NbdServerOptions => ({
      exports: { '': new RandomBackend(size, { seed, percent: 30, writable: true }) },
    });
    await run('nbdcopy', from.uri(), (await serve(to(3))).uri());
    const { code, stderr } = await runTool('nbdcopy', [from.uri(), (await serve(to(4))).uri()]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/Input\/output error/);
    const totals = JSON.parse(await run('nbdinfo', '--map', '--totals', '--json', from.uri())) as { size: number }[];
    expect(totals.map((each) => each.size).reduce((sum, each) => sum + each, 0)).toBe(size);
    expect(totals).toHaveLength(2);
  });

  it('gets an export of its own for a name, while it is connected', async () => {
    let made = 0;
    const server = await serve({
      openExport: (name) => {
        if (name !== 'scratch') throw new Error('only scratch is made here');
        made += 1;
        return new MemoryBackend(MiB);
      },
    });
    const [source, target] = [inFolder('source'), inFolder('target')];
    await writeFile(source, sparseContents(MiB));
    await run('nbdcopy', '--connections=1', source, server.uri('scratch'));
    await run('nbdcopy', '--connections=1', server.uri('scratch'), target);
    expect(made).toBe(2);
    expect((await readFile(target)).equals(Buffer.alloc(MiB))).toBe(true);
    const { code, stderr } = await runTool('nbdinfo', [server.uri('other')]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/error to opt_go request/);
  });
});

describeWith(['qemu-img', 'nbdinfo'], 'qemu-img', () => {
  it('writes to an overlay, whose base changes with commit() alone', async () => {
    const [base, image] = [inFolder('base'), inFolder('image')];
    const [before, after] = [sparseContents(2 * MiB, 1), sparseContents(2 * MiB, 2)];
    await writeFile(base, before);
    await writeFile(image, after);
    const overlay = new OverlayBackend(await FileBackend.open(base));
    const bitmap = 'qemu:dirty-bitmap:changes';
    const server = await serve({
      exports: { '': { backend: overlay, metaContexts: { [bitmap]: overlay.changes } } },
    });
    const dirty = async (): Promise<number> => {
      const map = JSON.parse(await run('nbdinfo', `--map=${bitmap}`, '--json', server.uri())) as {
        length: number;
        type: number;
      }[];
      return map.filter(({ type }) => type === 1).reduce((sum, { length }) => sum + length, 0);
    };
    expect(await dirty()).toBe(0);
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', image, server.uri());
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, server.uri())).toMatch(/identical/);
    expect(sha(await readFile(base))).toBe(sha(before));
    expect(await dirty()).toBeGreaterThan(0);
    await overlay.commit();
    expect(sha(await readFile(base))).toBe(sha(after));
    expect(await dirty()).toBe(0);
  });
});

describeWith(['python3-libnbd'], 'libnbd', () => {
  it('gets held replies in the order in which they are released', async () => {
    const backend = new MemoryBackend(MiB);
    const server = await serve({ exports: { '': backend } });
    server.faults.push({ command: 'pread', hold: 'reply' }, { command: 'pwrite', hold: 'request' });
    const order = libnbd(
      server.uri(),
      'done = []',
      'for i in range(3): h.aio_pread(nbd.Buffer(512), i * 512, completion=lambda e, i=i: done.append(i) or 1)',
      'while h.aio_in_flight() > 0: h.poll(-1)',
      'h.pwrite(b"x" * 512, 0)',
      'print(done)',
      'h.shutdown()',
    );
    const held = await server.faults.untilHeld(3);
    expect(held.map(({ request }) => Number(request.offset))).toEqual([0, 512, 1024]);
    for (const index of [2, 0, 1]) held[index]?.release();
    await server.faults.untilHeld(1);
    const bytes = Buffer.alloc(512);
    backend.read(bytes, 0);
    expect(bytes.equals(Buffer.alloc(512))).toBe(true);
    server.faults.release();
    expect(await order).toEqual(['[2, 0, 1]']);
    backend.read(bytes, 0);
    expect(bytes.equals(Buffer.alloc(512, 'x'))).toBe(true);
  });

  it('gets the errors that follow from the seed, and goes on', async () => {
    const failing = async (seed: number): Promise<number[]> => {
      const server = await serve({ seed, exports: { '': new MemoryBackend(MiB) } });
      server.faults.push({ command: 'pread', probability: 0.2, error: 'EIO' });
      const [printed = ''] = await libnbd(
        server.uri(),
        'failed = []',
        'for i in range(100):',
        '  try: h.pread(512, 0)',
        '  except nbd.Error as e: failed.append(i) if e.errno == "EIO" else print(e)',
        'print(failed)',
        'h.shutdown()',
      );
      expect(server.statistics.errors).toBe((JSON.parse(printed) as number[]).length);
      return JSON.parse(printed) as number[];
    };
    const failed = await failing(1);
    expect(failed.length).toBeGreaterThan(5);
    expect(failed.length).toBeLessThan(50);
    expect(await failing(1)).toEqual(failed);
    expect(await failing(2)).not.toEqual(failed);
  });

  it.each([
    ['refuse', 'True False'],
    ['disconnect', 'False True'],
  ] as const)('that writes above the maximum: %s', async (oversizedWrites, outcome) => {
    const blockSize = { minimum: 1, preferred: 4096, maximum: 65536 };
    const server = await serve({ exports: { '': { backend: new MemoryBackend(MiB), blockSize, oversizedWrites } } });
    const printed = await libnbd(
      server.uri(),
      'h.set_strict_mode(0)',
      'h.pwrite(b"x" * 65536, 0)',
      'try: h.pwrite(b"x" * 65537, 0)',
      'except nbd.Error as e: print(e.errno == "EINVAL", h.aio_is_dead() or h.aio_is_closed())',
    );
    expect(printed).toEqual([outcome]);
    expect(server.statistics.bytesWritten).toBe(65536);
  });
});
