// Every example: short, importing the package by its name, correct to the type checker, and run as a user runs it.

import { beforeAll, describe, expect, it, jest } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { bundled } from '../support/bundled.js';
import { importsOf } from '../support/layers.js';
import {
  describeWith,
  runTool,
  startNbdkit,
  startNbdServer,
  startQemuNbd,
  type ToolResult,
} from '../support/real-servers.js';
import { startRedis } from '../support/redis-server.js';
import { ROOT } from '../support/root.js';
import { typeErrors } from '../support/type-check.js';

const MAX_LINES = 60;

/** Processes on a busy machine. */
const TIMEOUT = 600_000;
jest.setTimeout(TIMEOUT);

const files = readdirSync(join(ROOT, 'examples'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .map((path) => ({ path: `examples/${path}`, text: readFileSync(join(ROOT, 'examples', path), 'utf8') }));

/** These run as a user runs them, with tsx: one of them starts it itself, and two print their own source. */
const AS_WRITTEN: ReadonlySet<string> = new Set(['hello', 'worker', 'copy', 'option-mode']);

let compiled: (name: string) => string;
beforeAll(async () => {
  compiled = await bundled(files.map(({ path }) => path));
});

/** Runs an example in a process of its own; the colours of a developer's terminal must not be in its output. */
function run(name: string, ...args: readonly string[]): Promise<ToolResult> {
  const program = AS_WRITTEN.has(name) ? ['--import', 'tsx', `examples/${name}.ts`] : [compiled(name)];
  // Later versions of Node have another reporter unless they are asked for this one.
  const reporter = name === 'testing' ? ['--test-reporter=tap'] : [];
  return runTool(process.execPath, [...reporter, ...program, ...args], {
    cwd: ROOT,
    env: { FORCE_COLOR: '0' },
    timeout: TIMEOUT,
  });
}

const linesOf = (output: string): string[] => output.split('\n').filter((line) => line !== '');

/** Whose lines come in the order in which replies do. */
const UNORDERED: ReadonlySet<string> = new Set(['cookies']);

/** What is not part of this package. */
const NEEDS: Readonly<Record<string, readonly string[]>> = { 'incremental-backup': ['qemu-img', 'qemu-nbd'] };

/** Whose output has times and more; each of these lines must be there. */
const PARTS: ReadonlySet<string> = new Set(['testing']);

/** What each prints, line by line and to the end; a pattern where a line holds a number that varies. */
const OUTPUT: Readonly<Record<string, readonly (string | RegExp)[]>> = {
  hello: ['the export has 1048576 bytes', 'Hello, block device!', 'Bye.', '<Buffer 00 00 00 00>'],
  map: [
    '0 +131072 data',
    '131072 +549755682816 hole, zero',
    '549755813888 +65536 data',
    '549755879424 +549755748352 hole, zero',
    'reply: 65536 +65536 0',
    'reply: 131072 +196608 3',
  ],
  partitions: [
    'gpt, sectors of 512 bytes',
    '1: 1048576 +16777216 EFI System boot',
    '2: 17825792 +48234496 Linux filesystem root',
    'its contents have the hash 1448d99397a96317aaae14812906f04fedca1abfb4740e6c0fb670345d86a391',
  ],
  cookies: [
    'after it was retired: false',
    'cookie 1: done',
    'cookie 2: done',
    'cookie 3: EIO',
    'cookie 4: done',
    'cookie 5: callback called',
    'issued Set(4) { 1n, 2n, 3n, 4n } in flight: 4',
  ],
  abort: [
    'sent: rejected, with the reason',
    'queued: rejected, with the reason',
    'requests received by the server: 1',
    'still in flight: 1',
    'after the reply: 0',
    'too slow: TimeoutError',
  ],
  'in-memory': [
    'scratch: a sparse TiB',
    'far out',
    'pattern: read-only true, 8 bytes at 512: 0000000000000200',
    /^NbdCommandError: pread of 512 bytes at offset 0: .*EIO.*"a bad sector"$/,
    'requests: 3 errors: 1',
  ],
  errors: [
    'a port without a server: no server is listening',
    'an unknown export: ENOENT, the server refused export tape',
    'a read: succeeded',
    'a read beyond the end: EINVAL, refused by the client, nothing was sent',
    'a write: EPERM, refused by the client, nothing was sent',
    'half a byte: EINVAL, refused by the client, nothing was sent',
    'a failing read: EIO, reported by the server: a bad sector',
    'the next read: succeeded',
    /^a lost connection: connection lost, cause: NbdConnectionError: /,
  ],
  backend: [
    'can cache: true, can flush: false',
    'read-only: true',
    'first read: fetched 1 blocks',
    'second read: fetched 0 blocks',
    'prefetch: fetched 16 blocks',
    'read of prefetched blocks: fetched 0 blocks',
  ],
  tls: [
    'nbds URI: encrypted',
    'plain nbd URI: NbdOptionError ENOTSUP',
    'wrong key: NbdConnectionError EACCES',
    /^required: NbdOptionError E[A-Z]+$/,
    'allowed: in plaintext',
  ],
  'http-upgrade': ['1048576 bytes, and at 4096: through HTTP', 'the gateway responded with status 403'],
  pool: [
    'the server is away',
    'it is back',
    'Written once, wanted for ever.',
    'to be written again: 512 bytes at 0',
    'reconnects: 1',
  ],
  'option-mode': [
    'negotiating: true',
    'scratch: writable, scratch space, base:allocation',
    'source: read-only, no description, base:allocation',
    'no such export: ENOENT',
    '// Uses option mode: list',
  ],
  copy: [
    'copied: read 3145728 bytes, wrote 3145728',
    'allocated at the destination: 3 MiB',
    'same hash: true',
    '// Copies an export to anot',
  ],
  'incremental-backup': [
    'full: 67108864 bytes, of which 1048576 were read and 66060288 zeroed',
    'monday: 2097152 bytes, of which 1048576 were read and 1048576 zeroed',
    'tuesday: 2097152 bytes, of which 1048576 were read and 1048576 zeroed',
    'restored: 67108864 bytes, of which 2097152 were read and 65011712 zeroed',
    'restored: equal',
  ],
  'http-range': [
    'bytes=512-527: 206 bytes 512-527/268435456 00000000000002000000000000000208',
    'bytes=-8: 206 bytes 268435448-268435455/268435456 000000000ffffff8',
    'bytes=999999999-: 416 bytes */268435456 ',
    'ended early: Premature close',
    'read less than all of it: true',
  ],
  mirror: [
    'Error: interrupted after 8 MiB',
    'resumed: true, of 16777216 bytes',
    'requests that failed: true',
    'the mirror is equal: true',
  ],
  worker: ['read at 0: 16 bytes', 'read at 4096: 65536 bytes', 'read at 1048576: EINVAL'],
  testing: [
    'TAP version 13',
    ...['a read that fails is tried again', 'damage is noticed', 'a lost connection is not tried again'].map(
      (name, at) => `ok ${at + 1} - ${name}`,
    ),
    'ok 4 - replies may come in any order',
    '# fail 0',
  ],
  backpressure: ['40 writes, 0 failed, at most 6 at a time, some had to wait'],
  events: [
    'state: created -> connecting',
    'state: connecting -> ready',
    /^trace: pwrite of 512 bytes at 0 succeeded after \d+\.\d ms$/,
    /^trace: pread of 512 bytes at 512 failed after \d+\.\d ms: EIO$/,
    /^state: (ready|processing) -> closed$/,
    'close: without an error',
  ],
  prefetch: [
    /^Started a server in this process with an export of 64 MiB\./,
    'Connected to an export of 64.0 MiB.',
    'Prefetched: 16.0 MiB of 64.0 MiB (25 %)',
    'Prefetched: 32.0 MiB of 64.0 MiB (50 %)',
    'Prefetched: 48.0 MiB of 64.0 MiB (75 %)',
    'Prefetched: 64.0 MiB of 64.0 MiB (100 %)',
    'The server accepted 64 cache commands.',
    'Fire and forget: cookies 1, 2, 3 are in flight, without a promise.',
    'Polled every 10 ms until all three had completed.',
    /^Aborted a command: it rejected with "Error: no longer wanted"\./,
    'Read all 64 MiB back: every byte is correct. Done.',
  ],
};

describe('examples/', () => {
  it('is correct to the type checker', async () => {
    expect(await typeErrors(new Map(files.map(({ path, text }) => [path, text])))).toEqual([]);
  });

  it.each(files)('$path is short and imports the package by name', (file) => {
    expect(file.text.split('\n').length - 1).toBeLessThanOrEqual(MAX_LINES);
    for (const imported of importsOf(file)) {
      expect(imported).toMatch(/^(nbd-sdk(\/(server|fleet))?|node:[\w/]+|\.\/(support\/)?[\w-]+\.js)$/);
    }
  });

  it('is run, all of it', () => {
    const programs = files
      .map(({ path }) => /^examples\/([\w-]+)\.ts$/.exec(path)?.[1])
      .filter((name) => name !== undefined);
    expect(programs.sort()).toEqual([...Object.keys(OUTPUT), 'fleet'].sort());
  });
});

describe.each(Object.entries(OUTPUT))('%s', (name, expected) => {
  describeWith(NEEDS[name] ?? [], 'the program', () => {
    it('prints its documented output and ends by itself', async () => {
      const { code, stdout, stderr } = await run(name);
      expect(stderr).toBe('');
      const lines = linesOf(stdout);
      const wanted = expected.map((line): unknown => (typeof line === 'string' ? line : expect.stringMatching(line)));
      const isWhole = !PARTS.has(name);
      expect(UNORDERED.has(name) ? lines.sort() : lines).toEqual(isWhole ? wanted : expect.arrayContaining(wanted));
      expect(code).toBe(0);
    });
  });
});

describe('prefetch URI', () => {
  it('prints in one line why it could not connect', async () => {
    const { code, stdout, stderr } = await run('prefetch', 'nbd://127.0.0.1:1');
    expect(linesOf(stderr)).toEqual([expect.stringMatching(/^NbdConnectionError ECONNREFUSED: /)]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  });
});

describeWith(['redis-server'], 'fleet', () => {
  it('copies and verifies with two workers', async () => {
    await using redis = await startRedis();
    const { code, stdout, stderr } = await run('fleet', redis.url);
    expect(stderr).toBe('');
    expect(linesOf(stdout)).toEqual([
      '8 exports, 24 ranges, 16777216 bytes of data',
      '8 were planned already',
      '48 of 48 ranges are done',
      'ranges of the two workers: 48',
      'copied and verified: 8, failed: 0',
    ]);
    expect(code).toBe(0);
  });
});

const PREFETCHED = [
  'Connected to an export of 10.0 MiB.',
  'Prefetched: 10.0 MiB of 10.0 MiB (100 %)',
  'The server accepted 10 cache commands.',
];

describeWith(['nbdkit'], 'prefetch URI of nbdkit', () => {
  it('has the server prefetch the export', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-examples-'));
    const statsFile = join(folder, 'stats');
    try {
      const server = await startNbdkit({ args: ['10M', `statsfile=${statsFile}`], filters: ['stats'] });
      const { code, stdout } = await run('prefetch', server.uri());
      expect(linesOf(stdout)).toEqual(expect.arrayContaining(PREFETCHED));
      expect(code).toBe(0);
      await server.stop();
      expect(readFileSync(statsFile, 'utf8')).toMatch(/^cache: 10 ops, .* 10\.00 MiB/m);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('reports that the server has no cache command', async () => {
    await using server = await startNbdkit({ args: ['10M'], filters: ['nocache'] });
    const { code, stdout, stderr } = await run('prefetch', server.uri());
    expect(linesOf(stdout)).toEqual(['Connected to an export of 10.0 MiB.']);
    expect(stderr).toMatch(/^This server does not support the cache command/);
    expect(code).toBe(1);
  });
});

describeWith(['qemu-nbd'], 'prefetch URI of qemu-nbd', () => {
  it('has the server prefetch the export', async () => {
    await using server = await startQemuNbd({ size: 10 * 1024 * 1024 });
    const { code, stdout } = await run('prefetch', server.uri());
    expect(linesOf(stdout)).toEqual(expect.arrayContaining(PREFETCHED));
    expect(code).toBe(0);
  });
});

describeWith(['nbd-server'], 'prefetch URI of nbd-server', () => {
  it('reports that nbd-server has no cache command', async () => {
    await using server = await startNbdServer({ size: 10 * 1024 * 1024 });
    const { code, stderr } = await run('prefetch', server.uri('export'));
    expect(stderr).toMatch(/^This server does not support the cache command/);
    expect(code).toBe(1);
  });
});
