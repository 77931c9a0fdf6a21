import { describe, expect, it } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

import { checkLayers, importsOf, type SourceFile } from '../support/layers.js';

const LIB = join(import.meta.dirname, '../../lib');

function readLib(): SourceFile[] {
  return readdirSync(LIB, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({ path: relative(LIB, path).split(sep).join('/'), text: readFileSync(path, 'utf8') }));
}

const check = (path: string, text: string): string[] => checkLayers([{ path, text }]);

describe('the layers of lib/', () => {
  it('hold', () => {
    const files = readLib();
    expect(files.map((file) => file.path)).toContain('protocol/constants.ts');
    expect(checkLayers(files)).toEqual([]);
  });
});

describe('checkLayers', () => {
  it.each([
    ['util/u64.ts', '../protocol/constants.js', 'protocol is not below base'],
    ['errors.ts', './protocol/names.js', 'protocol is not below base'],
    ['protocol/command.ts', '../transport/transport.js', 'transport is not below protocol'],
    ['protocol/handshake/option.ts', '../../client/options/options.js', 'client is not below protocol'],
    ['transport/tls.ts', '../protocol/constants.js', 'protocol is not below transport'],
    ['client/connection.ts', '../server/index.js', 'server is not below client'],
    ['server/server.ts', '../client/connection.js', 'client is not below server'],
    ['client/connection.ts', '../pool/pool.js', 'pool is not below client'],
    ['pool/pool.ts', '../bulk/copy.js', 'bulk is not below pool'],
    ['pool/pool.ts', '../server/server.js', 'server is not below pool'],
    ['bulk/copy.ts', '../index.js', 'index is not below bulk'],
    ['bulk/copy.ts', '../fleet/plan.js', 'fleet is not below bulk'],
    ['index.ts', './cli/main.js', 'cli is not below index'],
    ['index.ts', './testing/index.js', 'testing is not below index'],
    ['cli/main.ts', '../testing/index.js', 'testing is not below cli'],
    ['testing/index.ts', '../cli/main.js', 'cli is not below testing'],
    ['client/connection.ts', '../../spec/support/tools.js', 'outside lib/'],
  ])('%s must not import %s', (path, specifier, why) => {
    expect(check(path, `import { x } from '${specifier}';`)).toEqual([expect.stringContaining(why)]);
  });

  it.each([
    ['errors.ts', './util/u64.js'],
    ['protocol/handshake/option.ts', '../constants.js'],
    ['protocol/handshake/option.ts', '../../errors.js'],
    ['client/connection.ts', '../transport/dial.js'],
    ['server/server.ts', '../protocol/commands.js'],
    ['pool/pool.ts', '../client/connection.js'],
    ['index.ts', './bulk/copy.js'],
    ['cli/main.ts', '../index.js'],
    ['cli/main.ts', '../server/index.js'],
    ['testing/index.ts', '../protocol/constants.js'],
    ['transport/socket.ts', 'node:net'],
  ])('%s may import %s', (path, specifier) => {
    expect(check(path, `import { x } from '${specifier}';`)).toEqual([]);
  });

  it.each([
    "import type { x } from '../client/x.js';",
    "export { x } from '../client/x.js';",
    "export * from '../client/x.js';",
    "const x = import('../client/x.js');",
    "let x: import('../client/x.js').X;",
    "import x = require('../client/x.js');",
    "const x = require('../client/x.js');",
    "import '../client/x.js';",
  ])('sees %s', (text) => {
    expect(importsOf({ path: 'a.ts', text })).toEqual(['../client/x.js']);
    expect(check('protocol/a.ts', text)).toHaveLength(1);
  });

  it('does not take comments and strings for imports or words', () => {
    const text = "// import x from '../client/x.js'; async\nconst s = \"await Promise import '../client/x.js'\";";
    expect(check('protocol/a.ts', text)).toEqual([]);
  });

  it.each([
    'node:net',
    'node:tls',
    'node:fs',
    'node:timers/promises',
    'node:events',
    'eventemitter3',
    'p-queue',
    'net',
  ])('keeps %s out of protocol/', (name) => {
    expect(check('protocol/a.ts', `import x from '${name}';`)).toEqual([
      `protocol/a.ts imports ${name}: protocol/ is pure`,
    ]);
  });

  it.each([
    ['async', 'const f = async () => 1;'],
    ['await', 'const x = await y;'],
    ['Promise', 'const f = (): Promise<void> => g();'],
    ['setTimeout', 'setTimeout(f, 1);'],
    ['process', 'process.nextTick(f);'],
  ])('keeps %s out of protocol/', (word, text) => {
    expect(check('protocol/a.ts', text)).toEqual([`protocol/a.ts uses ${word}: protocol/ is pure`]);
    expect(check('client/a.ts', text)).toEqual([]);
  });

  it('limits the length of files', () => {
    const text = '\n'.repeat(401);
    expect(check('client/a.ts', text)).toEqual(['client/a.ts has 401 lines, more than 400']);
    expect(check('client/a.ts', '\n'.repeat(400))).toEqual([]);
    expect(check('client/connection.ts', text)).toEqual([]);
  });

  it('knows every room', () => {
    expect(check('misc/a.ts', '')).toEqual(['misc/a.ts: lib/misc is no room of the design']);
  });
});
