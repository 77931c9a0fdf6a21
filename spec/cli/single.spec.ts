// The command in one file: as a bundle that needs nothing but Node, and as an executable that does not even need that.
// Both run in a folder without node_modules and without package.json.

import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../support/root.js';
import { describeWith, runTool, type ToolResult } from '../support/real-servers.js';

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

let folder: string;
let bundle: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-single-spec-'));
  bundle = join(folder, 'nbd.cjs');
  // A process of its own: esbuild does not run in jest's realm.
  const script = `await (await import(${JSON.stringify(join(ROOT, 'spec/support/bundle-cli.mjs'))})).bundleSingle(${JSON.stringify(bundle)})`;
  const { code, stderr } = await runTool(process.execPath, ['--input-type=module', '-e', script]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

type Run = (...words: string[]) => Promise<ToolResult>;

async function works(run: Run): Promise<void> {
  expect((await run('--version')).stdout).toBe(`nbd ${version}\nnbd-sdk ${version}\n`);
  const server = ['[', 'nbdkit', 'data', 'data=1 2 3', 'size=1M', ']'];
  expect((await run('info', '--size', ...server)).stdout).toBe('1048576\n');
  const copied = await run('copy', '--progress', ...server, 'out.img');
  expect(copied).toMatchObject({ code: 0, stdout: '' });
  // cli-progress, a dependency that is loaded late.
  expect(copied.stderr).toContain('100%');
  expect(
    (await readFile(join(folder, 'out.img'))).equals(Buffer.concat([Buffer.from([1, 2, 3]), Buffer.alloc(1048573)])),
  ).toBe(true);
  expect((await run('hash', '[', 'nbdkit', 'memory', '1M', ']')).stdout).toMatch(
    /^30e14955ebf1352266dc2ff8067e68104607e750/,
  );
  expect((await run('shell', '-n', '-c', 'console.log(typeof nbd.copy)')).stdout).toBe('function\n');
  expect((await run('completion', 'bash')).stdout).toContain('--partitions');
  expect(await run('info', 'nbd://127.0.0.1:1')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('ECONNREFUSED') as unknown,
  });
}

describeWith(['nbdkit'], 'nbd in one file', () => {
  it('works as a bundle', async () => {
    const run: Run = (...words) => runTool(process.execPath, [bundle, ...words], { cwd: folder });
    await works(run);
  });

  // Copies Node, 100 MB, and takes a few seconds.
  const inCI = process.env['CI'] === 'true' || process.env['NBD_SDK_SINGLE'] === '1';
  (inCI ? it : it.skip)('works as an executable, without Node (in CI, or with NBD_SDK_SINGLE=1)', async () => {
    const nbd = join(folder, 'nbd');
    const built = await runTool(process.execPath, [join(ROOT, 'spec/support/build-single.mjs'), nbd]);
    expect(built).toMatchObject({ code: 0, stdout: `${nbd}\n` });
    // Servers that it starts come from the system, and there is no node.
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: folder };
    await works((...words) => runTool(nbd, words, { cwd: folder, env }));
    await symlink('nbd', join(folder, 'nbdinfo'));
    expect((await runTool(join(folder, 'nbdinfo'), ['--version'], { env })).stdout).toMatch(/^nbdinfo /);
  });
});
