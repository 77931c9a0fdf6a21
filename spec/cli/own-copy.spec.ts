// Copying a file onto itself, whatever stands between: it is refused, and the file is as it was. And copies that come to
// nothing: what is at the destination stays, and no file is made.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { link, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import {
  describeWith,
  freePort,
  runTool,
  startNbdkit,
  startQemuNbd,
  type ToolResult,
} from '../support/real-servers.js';
import { cliPath } from './support.js';

const contents = randomBytes(1 << 20);

let folder: string;
let env: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-own-copy-'));
  await writeFile(join(folder, 'z'), contents);
  await symlink('z', join(folder, 'symbolic'));
  await link(join(folder, 'z'), join(folder, 'hard'));
  env = { NBD: `${process.execPath} ${await cliPath()}` };
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const shell = (line: string): Promise<ToolResult> => runTool('sh', ['-c', line], { cwd: folder, env });

async function refused(line: string): Promise<void> {
  const { code, stderr } = await shell(line);
  expect({ line, code, stderr }).toEqual({
    line,
    code: 1,
    stderr: expect.stringMatching(/^nbd copy: the source and the destination are the same/) as unknown as string,
  });
  expect((await readFile(join(folder, 'z'))).equals(contents)).toBe(true);
}

describeWith(['nbdkit', 'qemu-nbd'], 'a file onto itself', () => {
  it('is refused for local names', async () => {
    for (const pair of ['z z', 'z symbolic', 'hard z', '- z < z', 'z - 1<> z', '- - < z 1<> hard']) {
      await refused(`$NBD copy ${pair}`);
    }
  });

  it('is refused where a server of its own serves it', async () => {
    const servers = ['nbdkit file z', 'qemu-nbd -f raw symbolic', 'sh -c "nbdkit-not-this; exec nbdkit file hard"'];
    for (const server of servers) await refused(`$NBD copy -- [ ${server} ] z`);
    await refused('$NBD copy hard [ nbdkit file z ]');
  });

  it('is refused where a server on this machine serves it', async () => {
    const port = await freePort();
    await using unix = await startNbdkit({ plugin: 'file', args: [join(folder, 'z')] });
    await using tcp = await startQemuNbd({ file: join(folder, 'z'), transport: 'tcp', port });
    await refused(`$NBD copy '${unix.uri()}' symbolic`);
    await refused(`$NBD copy nbd://localhost:${port} hard`);
    expect(tcp.uri()).toContain(String(port));
  });

  it('is not what it takes a copy of a copy for', async () => {
    await using server = await startNbdkit({ plugin: 'file', args: [join(folder, 'z')] });
    for (let i = 0; i < 2; i++) expect(await shell(`$NBD copy '${server.uri()}' other`)).toMatchObject({ code: 0 });
    expect((await readFile(join(folder, 'other'))).equals(contents)).toBe(true);
  });
});

describeWith(['nbdkit'], 'a copy that comes to nothing', () => {
  const BROKEN = '[ nbdkit --filter=error pattern 1M error-pread=EIO error-pread-rate=1 ]';
  const LINES: readonly (readonly [title: string, line: (to: string) => string])[] = [
    ['a source that cannot be read', (to) => `$NBD copy ${BROKEN} ${to}`],
    ['a source that cannot be read in order', (to) => `$NBD copy --synchronous ${BROKEN} ${to}`],
    ['a source that is not there', (to) => `$NBD copy [ nbdkit file missing ] ${to}`],
    ['standard input that cannot be read', (to) => `$NBD copy - ${to} < .`],
  ];

  it.each(LINES)('leaves what is there, and makes nothing: %s', async (_title, line) => {
    await writeFile(join(folder, 'old'), 'before');
    expect((await shell(line('old'))).code).toBe(1);
    expect(await readFile(join(folder, 'old'), 'utf8')).toBe('before');
    expect((await shell(line('new'))).code).toBe(1);
    expect(existsSync(join(folder, 'new'))).toBe(false);
  });
});
