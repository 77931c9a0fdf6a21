import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeWith, runTool, startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';
import { cliPath, nbd, out } from './support.js';

/**
 * Our output, which is that of libnbd 1.22, as nbdinfo of libnbd 1.14 (Debian 12) prints it: without
 * `can_block_status_payload`, without `extended`, without a human size behind block sizes, and without contexts where replies are simple.
 */
const ESC = '\u001b';
const COLOURED_FLAG = new RegExp(`${ESC}\\[22;31m\\tcan_block_status_payload: .*\\n${ESC}\\[0m`, 'g');
const BLOCK_SIZE = new RegExp(`^((?:${ESC}\\[0m)?\\tblock_size_\\w+: \\d+) \\(.*\\)$`, 'gm');

/** It lists no contexts without structured replies. */
const withoutContexts = (text: string): string =>
  /using simple packets|"structured": false/.test(text)
    ? text.replace(/\tcontexts:\n(?:\t\t.*\n)*/g, '').replace(/^\s*"contexts": \[[^\]]*\],\n/gm, '')
    : text;

const as114 = (text: string): string =>
  withoutContexts(text)
    .replace(/^\tcan_block_status_payload: .*\n/gm, '')
    .replace(/^\t"can_block_status_payload": .*\n/gm, '')
    .replace(COLOURED_FLAG, '')
    .replace(/^"extended": .*\n/gm, '')
    .replace(BLOCK_SIZE, '$1');

let version: Promise<string> | undefined;

/** Whether this nbdinfo is new enough to print what we print. */
async function reference(words: readonly string[]): Promise<{ text: string; adapt: (text: string) => string }> {
  const { stdout, code } = await runTool('nbdinfo', words);
  expect(code).toBe(0);
  version ??= runTool('nbdinfo', ['--version']).then((result) => result.stdout);
  const minor = Number(/libnbd 1\.(\d+)/.exec(await version)?.[1] ?? 0);
  return { text: stdout, adapt: minor >= 18 ? (text) => text : as114 };
}

async function expectSame(words: readonly string[]): Promise<void> {
  const { text, adapt } = await reference(words);
  expect(adapt(await out(['info', ...words]))).toBe(text);
}

describeWith(['nbdkit', 'nbdinfo'], 'nbd info, byte for byte as nbdinfo', () => {
  const servers: [title: string, options: Parameters<typeof startNbdkit>[0]][] = [
    ['a plain export', {}],
    ['an empty export', { args: ['0'] }],
    ['an odd size', { args: ['1537'] }],
    ['a read-only export', { options: ['-r'] }],
    ['oldstyle', { options: ['-o'] }],
    ['without structured replies', { options: ['--no-sr'] }],
    ['plain newstyle', { options: ['--mask-handshake=0'] }],
    [
      'block sizes',
      {
        filters: ['blocksize-policy'],
        args: ['1M', 'blocksize-minimum=4096', 'blocksize-preferred=64K', 'blocksize-maximum=1M'],
      },
    ],
    ['no zero, no cache', { filters: ['nozero', 'nocache'], args: ['1M', 'cachemode=none'] }],
    ['multi-conn off', { filters: ['multi-conn'], args: ['1M', 'multi-conn-mode=disable'] }],
    ['a partition table', { plugin: 'data', args: ['data=0x55*510 0x55 0xaa', 'size=1M'] }],
    ['text as content', { plugin: 'data', args: ['data="#!/bin/sh" 0x0a "echo hello" 0x0a'] }],
    ['reads that fail', { filters: ['error'], args: ['1M', 'error-pread=EIO', 'error-pread-rate=100%'] }],
    ['7 exabytes', { plugin: 'null', args: ['7E'] }],
  ];
  /** Colours are those of the lines, whatever these say. */
  const COLOURED = ['a plain export', 'oldstyle', 'block sizes'];
  it.each(servers)('%s', async (title, options) => {
    await using server = await startNbdkit(options);
    await Promise.all([expectSame([server.uri()]), expectSame(['--json', server.uri()])]);
    if (COLOURED.includes(title)) await expectSame([server.uri(), '--no-content', '--colour']);
  });

  it('--size prints a number', async () => {
    await using server = await startNbdkit({ plugin: 'null', args: ['7E'] });
    expect(await out(['info', '--size', server.uri()])).toBe('8070450532247928832\n');
  });

  it('over TCP, with a name, a list, and options after operands', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-info-spec-'));
    await writeFile(join(folder, 'a b'), '');
    await writeFile(join(folder, 'ü"\\x'), 'hello');
    await truncate(join(folder, 'a b'), 1 << 20);
    await using server = await startNbdkit({ plugin: 'file', args: [`dir=${folder}`], transport: 'tcp' });
    await expectSame([server.uri('a b')]);
    await expectSame([server.uri('a b'), '--list']);
    await expectSame(['-L', '--json', server.uri()]);
    await expectSame(['--list', '--content', server.uri('ü"\\x')]);
    expect(await out(['list', '--json', server.uri()])).toBe(await out(['info', '-L', '--json', server.uri()]));
    await rm(folder, { recursive: true });
  });

  it('prints what libnbd 1.22 added', async () => {
    await using server = await startNbdkit({
      filters: ['blocksize-policy'],
      args: ['1M', 'blocksize-minimum=512', 'blocksize-preferred=4K', 'blocksize-maximum=32M'],
    });
    const text = await out(['info', server.uri()]);
    expect(text).toContain('\tis_read_only: false\n\tcan_block_status_payload: false\n\tcan_cache: true\n');
    expect(text).toContain(
      '\tblock_size_minimum: 512\n\tblock_size_preferred: 4096 (4K)\n\tblock_size_maximum: 33554432 (32M)\n',
    );
    const json = JSON.parse(await out(['info', '--json', server.uri()])) as Record<string, unknown>;
    expect(Object.keys(json)).toEqual(['protocol', 'TLS', 'structured', 'extended', 'exports']);
    expect(json).toMatchObject({ extended: false, exports: [{ can_block_status_payload: false }] });
    expect(await out(['info', '--uri', server.uri()])).toBe(`${server.uri()}\n`);
    expect(await out(['info', '--uri', '--json', server.uri()])).toBe(`"${server.uri()}"\n`);
  });

  it('prints nothing on standard output when it fails', async () => {
    await using server = await startNbdkit();
    const cases: [words: string[], message: RegExp][] = [
      [['nbd+unix:///?socket=/nonexistent'], /no such file|ENOENT/i],
      [['--map=no:such', server.uri()], /--map: server does not support metadata context "no:such"/],
      [['nbd://127.0.0.1:1/'], /ECONNREFUSED|refused/],
      [['not a uri'], /URI/],
      [['--can', 'fly', server.uri()], /unknown --can or --is option: fly/],
      [['--list', '--map', server.uri()], /together/],
      [['--totals', server.uri()], /--totals only with --map/],
      [['--content', '--no-content', server.uri()], /together/],
      [['--no-such', server.uri()], /unrecognized option '--no-such'/],
      [['--json=yes', server.uri()], /option '--json' doesn't allow an argument/],
      [['--can'], /option '--can' requires an argument/],
      [['--co', server.uri()], /option '--co' is ambiguous/],
      [[], /missing NBD-URI/],
      [[server.uri(), server.uri()], /one server/],
    ];
    const results = await Promise.all(cases.map(async ([words]) => nbd(['info', ...words])));
    results.forEach(({ code, stdout, stderr }, at) => {
      expect({ words: cases[at]?.[0], code, stdout }).toEqual({ words: cases[at]?.[0], code: 1, stdout: '' });
      expect(stderr).toMatch(cases[at]?.[1] as RegExp);
      expect(stderr).toMatch(/^nbd info: [^\n]+\n/);
      expect(stderr).not.toMatch(/\n {4}at /);
    });
  });

  it('suggests --list for an export that is not there, as nbdinfo does', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-info-spec-'));
    await using server = await startNbdkit({ plugin: 'file', args: [`dir=${folder}`] });
    const { code, stdout, stderr } = await nbd(['info', server.uri('nope')]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/suggestion: to list all exports on the server, use --list/);
    expect((await nbd(['info', '--verbose', server.uri('nope')])).stderr).toMatch(/\n {4}at /);
    await rm(folder, { recursive: true });
  });

  it('accepts abbreviations, aliases and libnbd’s lists of options', async () => {
    await using server = await startNbdkit();
    expect(await out(['info', '--siz', server.uri()])).toBe('67108864\n');
    const ours = (await out(['info', '--long-options'])).split('\n');
    const theirs = (await runTool('nbdinfo', ['--long-options'])).stdout.split('\n');
    expect(theirs.filter((name) => !ours.includes(name))).toEqual([]);
    expect(await out(['info', '--short-options'])).toMatch(/^-L\n/);
  });

  it('colours only when asked or on a terminal', async () => {
    await using server = await startNbdkit();
    expect(await out(['info', server.uri()])).not.toContain('\u001b');
    expect(await out(['info', '--color', server.uri()], 0, { env: { NO_COLOR: '1' } })).toContain('\u001b[1;30m');
    // On a terminal, as util-linux's script makes one.
    const command = [process.execPath, await cliPath(), 'info', server.uri()].map((word) => `'${word}'`).join(' ');
    const onTty = async (NO_COLOR: string): Promise<string> =>
      (await runTool('script', ['-qec', command, '/dev/null'], { env: { NO_COLOR, TERM: 'xterm' } })).stdout;
    expect(await onTty('')).toContain('\u001b[1;30m');
    expect(await onTty('1')).not.toContain('\u001b');
  });
});

describeWith(['nbdkit', 'nbdinfo'], 'nbd info --can and its spellings', () => {
  it('ends with 0 for yes, 2 for no, as nbdinfo does', async () => {
    await using server = await startNbdkit({ options: ['-r'] });
    const names = ['connect', 'write', 'tls', 'SR', 'read-only', 'rotational', 'cache'];
    const more = ['df', 'fast-zero', 'flush', 'multi-conn'];
    await Promise.all(
      [...names, ...more].map(async (name) => {
        const theirs = await runTool('nbdinfo', ['--can', name, server.uri()]);
        const ours = await nbd(['info', '--can', name, server.uri()]);
        expect({ name, code: ours.code, stdout: ours.stdout }).toEqual({ name, code: theirs.code, stdout: '' });
      }),
    );
  });

  it('knows negations', async () => {
    await using server = await startNbdkit({ options: ['-r'] });
    const questions = [
      ['--isnt', 'READ_ONLY'],
      ['--cannot', 'write'],
      ['--has', 'extended headers'],
    ];
    const codes = await Promise.all(questions.map(async (words) => (await nbd(['info', ...words, server.uri()])).code));
    expect(codes).toEqual([2, 0, 2]);
  });
});

describeWith(['nbdkit', 'nbdinfo'], 'nbd info of a server that is started for it', () => {
  it('prints what nbdinfo prints, with -- and without', async () => {
    await expectSame(['--', '[', 'nbdkit', '-r', 'memory', '1M', ']']);
    await expectSame(['--json', '[', 'nbdkit', 'memory', '1M', ']']);
    expect(await out(['info', '--map', '[', 'nbdkit', '-r', 'memory', '1M', ']', '--totals'])).toBe(
      '   1048576 100.0%   3 hole,zero\n',
    );
    expect((await nbd(['info', '--is', 'read-only', '[', 'nbdkit', '-r', 'null', ']'])).code).toBe(0);
  });

  it('reports what is wrong', async () => {
    const cases: [words: string[], message: RegExp][] = [
      [['[', 'nbdkit', 'memory', '1M'], /'\[' without '\]'/],
      [['[', ']'], /no command between \[ and \]/],
      [['--uri', '[', 'nbdkit', 'null', ']'], /has no URI that remains valid/],
      [['[', '/nonexistent/server', ']'], /nonexistent/],
    ];
    for (const [words, message] of cases) {
      const { code, stdout, stderr } = await nbd(['info', ...words]);
      expect({ words, code, stdout }).toEqual({ words, code: 1, stdout: '' });
      expect(stderr).toMatch(message);
    }
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'nbdinfo'], 'nbd info of qemu-nbd', () => {
  it('shows bitmaps and descriptions as nbdinfo does', async () => {
    await using server = await startQemuNbd({ bitmap: 'b0', exportName: 'disk', description: 'a "fine" disk' });
    await expectSame([server.uri('disk')]);
    await expectSame(['--json', server.uri('disk')]);
    await expectSame(['--list', '--json', server.uri()]);
    await expectSame(['--map=qemu:dirty-bitmap:b0', server.uri('disk')]);
  });
});

interface Report {
  readonly exports: readonly { readonly 'export-size': number }[];
}

describeWith(['nbd-server', 'nbdinfo'], 'nbd info of nbd-server', () => {
  // Of its answers to NBD_OPT_INFO, all of which have a size of 0, nbdinfo makes an empty export.
  it.each([['info'], ['info', '--no-content'], ['list'], ['list', '--content']])(
    'shows what nbdinfo shows, and the size that there is: nbd %s %s',
    async (...words) => {
      await using server = await startNbdServer({ size: 10 * 2 ** 20 });
      const uri = server.uri(words[0] === 'list' ? '' : 'export');
      const options = [...words.slice(1), ...(words[0] === 'list' ? ['--list'] : [])];
      const theirs = await reference(['--json', ...options, uri]);
      const ours = await nbd([...words, '--json', uri]);
      expect({ code: ours.code, stderr: ours.stderr }).toEqual({ code: 0, stderr: '' });
      const [found, expected] = [theirs.adapt(ours.stdout), theirs.text].map((text) => JSON.parse(text) as Report);
      expect(found?.exports.map((each) => each['export-size'])).toEqual([10 * 2 ** 20]);
      const rest = (report: Report | undefined): unknown =>
        report?.exports.map((each) => ({ ...each, 'export-size': 0, 'export-size-str': '', content: '' }));
      expect(rest(found)).toEqual(rest(expected));
      expect((await nbd([...words, uri])).stdout).toContain('export-size: 10485760 (10M)');
    },
  );
});
