// The SDK in a program's bundle, as esbuild, rollup and webpack make it: the bundle runs without node_modules.

import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { projectWithPackage } from '../support/built-package.js';
import { ROOT } from '../support/root.js';
import { runTool } from '../support/tools.js';

jest.setTimeout(300_000);

const PROGRAM = `
import { NbdConnection, NbdPool, copy, hash, nullDestination, TLS_REQUIRE } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';
const server = await new NbdServer({ exports: { '': MemoryBackend.from(Buffer.alloc(65536, 7)) } }).listenTcp();
const connection = await NbdConnection.connect(server.uri());
const { total } = await copy(connection, nullDestination());
const pool = await NbdPool.connect(server.uri());
console.log((await pool.pread(4, 0)).toString('hex'), String(total), (await hash(connection)).length, TLS_REQUIRE);
await pool.shutdown();
await connection.shutdown();
await server.close();
`;

let project = '';
let output = '';
let entry = '';

beforeAll(async () => {
  project = await projectWithPackage();
  output = await mkdtemp(join(tmpdir(), 'nbd-bundles-'));
  entry = join(project, 'program.mjs');
  await writeFile(entry, PROGRAM);
});

afterAll(async () => {
  for (const folder of [project, output]) await rm(folder, { recursive: true, force: true });
});

it.each(['esbuild', 'rollup', 'webpack'])('a bundle by %s runs', async (name) => {
  const file = join(output, `${name}.mjs`);
  const bundler = join(ROOT, 'spec/support/bundle-with.mjs');
  const made = await runTool(process.execPath, [bundler, name, entry, file], { timeout: 120_000 });
  expect({ code: made.code, stderr: made.code === 0 ? '' : made.stderr }).toEqual({ code: 0, stderr: '' });
  const { code, stdout, stderr } = await runTool(process.execPath, [file], { cwd: output, timeout: 60_000 });
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '07070707 65536 64 2\n', stderr: '' });
});
