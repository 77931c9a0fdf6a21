// What a command line must refuse, run as a process: exit code 1, nothing on standard output, one line with the reason,
// and a destination that is unchanged.

import { spawn, spawnSync } from 'node:child_process';
import { copyFile, link, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLI_COMMANDS } from '../../lib/cli/registry.js';
import { describeWith, findTool, runTool, startNbdkit, type ToolResult } from '../support/real-servers.js';
import { cliPath, exitOf, nbd, out } from './support.js';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-bad-input-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

type Case = readonly [words: readonly string[], message: RegExp];

/** Two at a time: starting Node is most of the work. */
async function refuses(cases: readonly Case[], stdout = ''): Promise<void> {
  const rest = [...cases];
  const worker = async (): Promise<void> => {
    for (let next = rest.shift(); next !== undefined; next = rest.shift()) {
      const [words, message] = next;
      const { code, stdout: said, stderr } = await nbd(words);
      expect({ words, code, stdout: said }).toEqual({ words, code: 1, stdout });
      expect(stderr).toMatch(message);
      // A usage message of one line or two, no stack.
      expect({ words, lines: stderr.trimEnd().split('\n').length <= 3 }).toEqual({ words, lines: true });
    }
  };
  await Promise.all([worker(), worker()]);
}

describe('bad options and sizes', () => {
  it('are refused by every command before anything is connected to', async () => {
    await refuses(
      Object.keys(CLI_COMMANDS).map((name) => [
        [...name.split(' '), '--nope', 'nbd://127.0.0.1:1'],
        new RegExp(`^nbd ${name}: unrecognized option '--nope'\\nTry 'nbd ${name} --help'\\.\\n$`),
      ]),
    );
  });
});

describeWith(['nbdkit'], 'bad sizes', () => {
  it('are refused by every command that takes one', async () => {
    await using server = await startNbdkit({ args: ['1M'] });
    const uri = server.uri();
    const cases: Case[] = [];
    const options: [command: string, option: string][] = [
      ...['offset', 'length', 'request-size'].flatMap((option) =>
        ['cache', 'zero'].map((command): [string, string] => [command, option]),
      ),
      ['dump', 'offset'],
      ['dump', 'length'],
      ['bench', 'size'],
    ];
    for (const [command, option] of options) {
      for (const size of ['-1', '1.5', '12Q', '9999999999E'].slice(
        0,
        command === 'cache' && option === 'offset' ? 4 : 1,
      )) {
        cases.push([
          [command, `--${option}=${size}`, uri],
          new RegExp(`^nbd ${command}: .*--${option}.*: ?.*${size.replace('.', '\\.')}`),
        ]);
      }
    }
    for (const option of ['request-size', 'queue-size', 'sparse']) {
      cases.push([
        ['copy', `--${option}=12Q`, uri, 'null:'],
        new RegExp(`^nbd copy: --${option}: could not parse: 12Q\n`),
      ]);
    }
    cases.push(
      [['serve', '--memory=12Q'], /^nbd serve: --memory: could not parse: 12Q\n/],
      [['cache', '--offset=2M', uri], /^nbd cache: .*offset.*2097152/],
      [['zero', '-y', '--request-size=0', uri], /^nbd zero: --request-size: /],
      [['discard', '-y', '-R', '0', uri], /^nbd discard: --requests: could not parse: 0\n/],
      [['dump', '-o', '2097152', uri], /^nbd dump: --offset: 2097152 is beyond the end/],
    );
    await refuses(cases);
    expect(await out(['map', '--totals', uri])).toMatch(/^ +1048576 +100\.0% +3 hole,zero\n$/);
  });
});

describeWith(['nbdkit', 'nbdcopy'], 'a destination that cannot take the source', () => {
  it('stays as it is when it is smaller', async () => {
    await using source = await startNbdkit({ plugin: 'pattern', args: ['1M'] });
    await using small = await startNbdkit({ plugin: 'data', args: ['data=1 @0x3ffff 1', 'size=256K'] });
    await writeFile(at('large'), Buffer.alloc(262_145, 7));
    const before = await out(['hash', small.uri()]);
    for (const from of [source.uri(), at('large')]) {
      const theirs = await runTool('nbdcopy', [from, small.uri()]);
      const ours = await nbd(['copy', from, small.uri()]);
      expect([from, theirs.code, ours.code]).toEqual([from, 1, 1]);
      for (const { stderr } of [theirs, ours])
        expect(stderr).toMatch(/error: destination size is smaller than source size/);
    }
    expect(await out(['hash', small.uri()])).toBe(before);
  });

  it('is refused when it is read-only: an export, a program that runs', async () => {
    await using source = await startNbdkit({ args: ['1M'] });
    await using fixed = await startNbdkit({ args: ['1M'], options: ['-r'] });
    await refuses([[['copy', source.uri(), fixed.uri()], /the destination is read-only, cannot write to it/]]);
    const piped = await nbd(['copy', '-', fixed.uri()], { input: 'x' });
    expect(piped).toMatchObject({ code: 1, stdout: '' });
    expect(piped.stderr).toMatch(/the destination is read-only, cannot write to it/);

    await copyFile(findTool('sleep') ?? '', at('busy'));
    const busy = spawn(at('busy'), ['60'], { stdio: 'ignore' });
    await new Promise((done) => busy.once('spawn', done));
    const ended = exitOf(busy);
    try {
      const said = await nbd(['copy', source.uri(), at('busy')]);
      expect(said).toMatchObject({ code: 1, stdout: '' });
      expect(said.stderr).toMatch(/^nbd copy: .*\/busy: Text file (is )?busy\n$/);
    } finally {
      busy.kill('SIGKILL');
      await ended;
    }
  });

  it('is refused when it is a file and the source, whatever it is called', async () => {
    await writeFile(at('file'), 'contents');
    await symlink(at('file'), at('symlink'));
    await link(at('file'), at('link'));
    const same = /^nbd copy: the source and the destination are the same\n$/;
    await refuses([
      ...['file', 'symlink', 'link'].map((name): Case => [['copy', at('file'), at(name)], same]),
      [['copy', at('symlink'), at('link')], same],
    ]);
    expect(await readFile(at('file'), 'utf8')).toBe('contents');
  });

  it('is refused when it is a terminal, as by nbdcopy', async () => {
    await using server = await startNbdkit({ plugin: 'pattern', args: ['64K'] });
    const onTty = async (...words: string[]): Promise<ToolResult> =>
      runTool('script', ['-qec', words.map((word) => `'${word}'`).join(' '), '/dev/null']);
    const theirs = await onTty('nbdcopy', server.uri(), '-');
    expect(theirs).toMatchObject({ code: 1, stdout: 'nbdcopy: refusing to write to tty\r\n' });
    const ours = [process.execPath, await cliPath(), 'copy', server.uri()];
    const hint = 'nbd copy: suggestion: give the name of a file, or pipe the output to a program\r\n';
    expect(await onTty(...ours, '-')).toMatchObject({
      code: 1,
      stdout: `nbd copy: refusing to write to tty\r\n${hint}`,
    });
    expect(await onTty(...ours, '/dev/tty')).toMatchObject({
      code: 1,
      stdout: `nbd copy: /dev/tty: refusing to write to tty\r\n${hint}`,
    });
  });
});

/** A mount of its own for one command: root may, and others where user namespaces are allowed. */
const UNSHARE = ['unshare', process.getuid?.() === 0 ? '-m' : '-rm'] as const;
const SMALL_DISK = 'mount -t tmpfs -o size=1M none "$0" || exit 99; exec "$@"';
const canMount = ((): boolean => {
  const [name, flag] = UNSHARE;
  return spawnSync(name, [flag, 'sh', '-c', SMALL_DISK, '/mnt', 'true']).status === 0;
})();

describeWith(['nbdkit', 'nbdcopy'], 'a full disk at the destination', () => {
  const INCOMPLETE = /^nbd copy: the copy is incomplete: (at most )?\S+ \w+ of 4\.00 MiB were copied\n/;

  it('ends a copy to a device, to standard output and to a file that may not grow', async () => {
    await using server = await startNbdkit({ plugin: 'pattern', args: ['4M'] });
    const ours = [process.execPath, await cliPath(), 'copy', server.uri()];
    const device = await nbd(['copy', server.uri(), '/dev/full']);
    const output = await runTool('sh', ['-c', 'exec "$@" >/dev/full', 'sh', ...ours, '-']);
    const limited = await runTool('prlimit', ['--fsize=1000000', ...ours, at('limited')]);
    for (const said of [device, output, limited]) {
      expect(said).toMatchObject({ code: 1, stdout: '' });
      expect(said.stderr).toMatch(INCOMPLETE);
    }
    for (const { stderr } of [device, output]) expect(stderr).toMatch(/\n.*(ENOSPC|No space left on device)/i);
    expect(limited.stderr).toMatch(/\nnbd copy: .*\/limited: File too large\n$/);
  });

  (canMount ? it : it.skip)('ends a copy to a file on it (skipped where nothing can be mounted)', async () => {
    const [name, flag] = UNSHARE;
    // A server for each: nbdkit 1.32 aborts itself when a client goes away in the middle of a reply.
    const onDisk = async (...words: string[]): Promise<ToolResult> => {
      await using server = await startNbdkit({ plugin: 'pattern', args: ['4M'] });
      return await runTool(name, [flag, 'sh', '-c', SMALL_DISK, folder, ...words, server.uri(), at('file')]);
    };
    const theirs = await onDisk('nbdcopy');
    expect(theirs.code).toBe(1);
    expect(theirs.stderr).toMatch(/No space left on device/);
    for (const words of [[], ['--synchronous'], ['--no-extents', '-C1']]) {
      const said = await onDisk(process.execPath, await cliPath(), 'copy', '--progress=1', ...words);
      expect({ words, code: said.code }).toEqual({ words, code: 1 });
      expect(said.stdout).not.toContain('100/100');
      expect(said.stderr).toMatch(INCOMPLETE);
      expect(said.stderr).toMatch(/write at offset \d+ failed: ENOSPC: no space left on device/);
    }
  });

  it('a server without space is distinguished from an export that is too small', async () => {
    const args = ['4M', 'error-pwrite=ENOSPC', 'error-pwrite-rate=100%'];
    await using full = await startNbdkit({ filters: ['error'], args });
    await writeFile(at('data'), Buffer.alloc(300_000, 1));
    const piped = await nbd(['copy', '-', full.uri()], { input: await readFile(at('data')) });
    const copied = await nbd(['copy', at('data'), full.uri()]);
    for (const said of [piped, copied]) {
      expect(said).toMatchObject({ code: 1, stdout: '' });
      expect(said.stderr).toMatch(/^nbd copy: the copy is incomplete: /);
      expect(said.stderr).toMatch(/ENOSPC|No space left on device/i);
      expect(said.stderr).not.toMatch(/smaller than source/);
    }
    expect(copied.stderr).toMatch(/write at offset \d+ failed/);
  });

  it('makes no command that prints succeed', async () => {
    await using server = await startNbdkit({ plugin: 'pattern', args: ['64K'] });
    for (const command of ['info', 'dump', 'map', 'hash', 'cache']) {
      const words = [process.execPath, await cliPath(), command, server.uri()];
      const { code, stderr } = await runTool('sh', ['-c', 'exec "$@" >/dev/full', 'sh', ...words]);
      expect({ command, code }).toEqual({ command, code: 1 });
      expect(stderr).toMatch(/no space left on device/i);
    }
  });
});
