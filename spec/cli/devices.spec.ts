// Block devices as source, as destination and served: Node's stat reports a size of 0. A loop device stands
// for them, where this machine lets one be made.

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { deviceSize, numbersOf, sizeByReading } from '../../lib/bulk/ends/device-size.js';
import { describeWith, startNbdkit } from '../support/real-servers.js';
import { findTool, runTool } from '../support/tools.js';
import { A_URI, cliPath, nbd, out, printed, start } from './support.js';

describe('the size of a device', () => {
  // What os.makedev() of Python makes of them.
  it.each([
    [1792, '7:0'],
    [2065, '8:17'],
    [286_327_664, '259:70000'],
    [1_048_575, '4095:255'],
    [17_592_187_092_992, '4096:256'],
    [4_503_603_922_337_797, '1048576:1048581'],
  ])('has the device number %d for %s', (device, numbers) => {
    expect(numbersOf(device)).toBe(numbers);
  });

  it('is found by reading where the system does not report it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-size-'));
    for (const size of [0, 1, 2, 3, 511, 512, 513, 1_000_003, 2 ** 40 + 7]) {
      const file = await open(join(folder, 'file'), 'w+');
      await file.truncate(size);
      expect(await sizeByReading(file)).toBe(size);
      await file.close();
    }
    await rm(folder, { recursive: true });
  });
});

const SIZE = 3_000_832;

/** A loop device over a file, or the reason why one cannot be made. */
function makeLoop(): { readonly device: string; remove(): void } | string {
  const losetup = findTool('losetup');
  if (losetup === undefined) return 'there is no losetup';
  const folder = mkdtempSync(join(tmpdir(), 'nbd-loop-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    const file = join(folder, 'device');
    writeFileSync(file, Buffer.alloc(SIZE, 0xee));
    const device = execFileSync(losetup, ['-f', '--show', file], {
      encoding: 'utf8',
      stdio: 'pipe',
      timeout: 5000,
    }).trim();
    return {
      device,
      remove: () => {
        execFileSync(losetup, ['-d', device]);
        remove();
      },
    };
  } catch (error) {
    remove();
    return String((error as { stderr?: string }).stderr ?? error).trim();
  }
}

const loop = makeLoop();
const withLoop = typeof loop === 'string' ? describe.skip : describe;

withLoop(`a block device${typeof loop === 'string' ? ` (skipped: ${loop})` : ''}`, () => {
  const { device, remove } = loop as Exclude<typeof loop, string>;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-devices-'));
  });
  afterAll(async () => {
    remove();
    await rm(folder, { recursive: true, force: true });
  });

  it('has its size', async () => {
    expect(await deviceSize(device, await stat(device))).toBe(SIZE);
  });

  describeWith(['nbdkit'], 'in the command line', () => {
    it('is copied to, from and compared; what a shorter source leaves stays', async () => {
      const source = Buffer.concat([randomBytes(300_000), Buffer.alloc(200_000), randomBytes(500_448)]);
      await writeFile(join(folder, 'source'), source);
      await out(['copy', '--flush', join(folder, 'source'), device]);
      const expected = Buffer.concat([source, Buffer.alloc(SIZE - source.length, 0xee)]);
      expect((await readFile(device)).equals(expected)).toBe(true);

      await using server = await startNbdkit({ args: [String(SIZE)] });
      await out(['copy', device, server.uri()]);
      expect((await nbd(['compare', device, server.uri()])).code).toBe(0);
      await out(['copy', server.uri(), join(folder, 'back')]);
      expect((await readFile(join(folder, 'back'))).equals(expected)).toBe(true);
      await out(['copy', server.uri(), device]);
      expect((await readFile(device)).equals(expected)).toBe(true);

      await using larger = await startNbdkit({ args: [String(SIZE + 512)] });
      const refused = await nbd(['copy', larger.uri(), device]);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toMatch(/destination size is smaller than source size \(3000832 < 3001344 bytes\)/);
    });

    it('is standard input and output like any file, and is not copied onto itself', async () => {
      const source = randomBytes(SIZE);
      await writeFile(join(folder, 'all'), source);
      const NBD = `${process.execPath} ${await cliPath()}`;
      const shell = async (line: string): Promise<number> =>
        (await runTool('sh', ['-c', line], { cwd: folder, env: { NBD, DEVICE: device } })).code;
      expect(await shell('$NBD copy --flush all - > $DEVICE')).toBe(0);
      expect((await readFile(device)).equals(source)).toBe(true);
      expect(await shell('$NBD copy - read < $DEVICE')).toBe(0);
      expect((await readFile(join(folder, 'read'))).equals(source)).toBe(true);
      expect(await shell('mknod node b $(stat -c "0x%t 0x%T" $DEVICE) && $NBD copy node $DEVICE')).toBe(1);
      expect(await shell('$NBD copy [ nbdkit file $DEVICE ] - > $DEVICE')).toBe(0);
      expect((await readFile(device)).equals(source)).toBe(true);
    });

    it('is served whole', async () => {
      const server = await start(['serve', `--unix=${join(folder, 'socket')}`, device]);
      await printed(server, A_URI);
      expect(await out(['info', '--size', server.said().trim()])).toBe(`${SIZE}\n`);
      expect((await nbd(['compare', device, server.said().trim()])).code).toBe(0);
      server.kill();
    });
  });
});
