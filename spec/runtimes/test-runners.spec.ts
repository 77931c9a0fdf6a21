// The package in other people's tests: the README's test and settings, with the build, in node:test and jest.

import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { projectWithPackage } from '../support/built-package.js';
import { ROOT } from '../support/root.js';
import { runTool, type ToolResult } from '../support/tools.js';

const TIMEOUT = 300_000;
jest.setTimeout(2 * TIMEOUT);

const NAME = 'a read that fails once succeeds the second time';
const MODULES = '--experimental-vm-modules';

let folder = '';
let program = '';

beforeAll(async () => {
  folder = await projectWithPackage();
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  const section = readme.slice(
    readme.indexOf('\n## Testing your program'),
    readme.indexOf('\n## Testing other clients'),
  );
  program = /```ts\n([\s\S]*?)```/.exec(section)?.[1] ?? '';
  expect(program).toContain(`test('${NAME}'`);
  const settings = JSON.parse(/```json\n([\s\S]*?)```/.exec(section)?.[1] ?? '') as {
    transformIgnorePatterns: string[];
  };
  for (const name of ['jest', 'jest-environment-node', '@jest']) {
    await symlink(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name));
  }
  await mkdir(join(folder, 'cjs'));
  await writeFile(join(folder, 'cjs/package.json'), '{ "type": "commonjs" }');
  await writeFile(join(folder, 'bare-environment.cjs'), BARE_ENVIRONMENT);
  await writeFile(join(folder, 'esbuild-transform.cjs'), TRANSFORM);
  await writeFile(
    join(folder, 'jest.config.json'),
    JSON.stringify({ transform: {}, cacheDirectory: `${folder}/cache` }),
  );
  // esbuild in place of Babel, which is not among our dependencies; what must be transformed is the README's.
  const { transformIgnorePatterns } = settings;
  await writeFile(
    join(folder, 'transformed.config.json'),
    JSON.stringify({
      ...{ rootDir: folder, cacheDirectory: `${folder}/cache`, transformIgnorePatterns },
      transform: { '\\.[cm]?js$': '<rootDir>/esbuild-transform.cjs' },
    }),
  );
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** As jsdom has it: fewer globals, timers that are numbers, and typed arrays of another realm than Buffer's. */
const BARE_ENVIRONMENT = `
const { TestEnvironment } = require('jest-environment-node');
const { runInContext } = require('node:vm');
module.exports = class extends TestEnvironment {
  async setup() {
    await super.setup();
    const { global } = this;
    for (const name of ['TextDecoder', 'TextEncoder', 'setImmediate', 'clearImmediate', 'structuredClone']) delete global[name];
    for (const name of ['setTimeout', 'setInterval']) {
      const real = global[name];
      global[name] = (...args) => Number(real(...args)[Symbol.toPrimitive]());
    }
    global.Uint8Array = runInContext('Object.getPrototypeOf(new Uint8Array()).constructor', this.context);
  }
};
`;

const TRANSFORM = `
const { transformSync } = require(${JSON.stringify(join(ROOT, 'node_modules/esbuild'))});
exports.process = (source) => ({ code: transformSync(source, { format: 'cjs', target: 'node20' }).code });
`;

/** The README's test for another runner, or with what it imports written in another way. */
const importing = (runner: string): string => program.replace("'node:test'", `'${runner}'`);
const required = (code: string): string => code.replace(/^import (.*) from (.*?);/gm, 'const $1 = require($2);');
const dynamic = (code: string): string => {
  const own = /^import (.*) from ('nbd-sdk.*?');$/gm;
  const inside = [...code.matchAll(own)]
    .map(([, names, from]) => `  const ${names} = await import(${from});\n`)
    .join('');
  return required(code.replaceAll(own, '')).replace('async () => {\n', `async () => {\n${inside}`);
};

const runNode = (...args: readonly string[]): Promise<ToolResult> =>
  runTool(process.execPath, ['--no-warnings', ...args], {
    cwd: folder,
    env: { NODE_OPTIONS: '', FORCE_COLOR: '0', JEST_RESULT_FILE: '' },
    timeout: TIMEOUT,
  });

it.each([
  ['an ES module', 'node.test.mjs', () => importing('node:test')],
  ['CommonJS', 'node.test.cjs', () => required(importing('node:test'))],
])('node:test, %s', async (_how, file, code) => {
  await writeFile(join(folder, file), code());
  const { code: status, stdout } = await runNode('--test', '--test-reporter=tap', file);
  expect(stdout).toContain(`ok 1 - ${NAME}`);
  expect({ status, passed: /# pass (\d+)/.exec(stdout)?.[1] }).toEqual({ status: 0, passed: '1' });
});

it.each([
  ['an ES module', 'esm.test.js', () => importing('@jest/globals'), [MODULES], []],
  ['CommonJS and import()', 'cjs/dynamic.test.js', () => dynamic(importing('@jest/globals')), [MODULES], []],
  ['transformed', 'cjs/required.test.js', () => importing('@jest/globals'), [], ['--config=transformed.config.json']],
  [
    ...(['fewer globals, as with jsdom', 'bare.test.js', () => importing('@jest/globals'), [MODULES]] as const),
    ['--env=./bare-environment.cjs'],
  ],
] as const)('jest, %s', async (_how, file, code, flags, options) => {
  await writeFile(join(folder, file), code());
  const args = [...flags, join(ROOT, 'node_modules/jest/bin/jest.js'), `--runTestsByPath`, file, ...options];
  const { code: status, stderr } = await runNode(...args);
  expect({ status, passed: /Tests: +(.*)/.exec(stderr)?.[1], stderr: status === 0 ? '' : stderr }).toEqual({
    ...{ status: 0, passed: '1 passed, 1 total', stderr: '' },
  });
});
