// A server that is killed half-way, and Ctrl-C: every long-running command reports how far it came, claims no
// success, and ends with 1 or with 130.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeWith, type NbdkitOptions, type RealServer, startNbdkit } from '../support/real-servers.js';
import { until } from '../support/waiting.js';
import { exitOf, HALF_WAY, start } from './support.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-ended-early-spec-'));
  await writeFile(join(folder, 'random'), randomBytes(32 << 20));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Slow enough that nothing is finished by the time it is ended: 100 ms for every request, few of them at a time. */
const slow = (what: string, size: string): NbdkitOptions => ({
  filters: ['delay'],
  args: [size, `delay-${what}=100ms`],
});

interface Work {
  readonly title: string;
  /** The server that is killed. */
  readonly server: NbdkitOptions;
  /** `own` is the path of a file that no other run writes to. */
  readonly words: (uri: string, other: string, own: string) => string[];
  /** How far it came. */
  readonly says: RegExp;
  /** When it is half-way; by its progress if missing. */
  readonly begun?: (said: string, server: RealServer) => boolean;
}

const COPY = ['copy', '--no-extents', '-R2', '-C1', '--request-size=256k'];
const INCOMPLETE = /the copy is incomplete: \S+ [KM]iB of \S+ MiB were copied\n/;
const written = (_said: string, server: RealServer): boolean => server.log().includes('memory: pwrite');

const WORKS: readonly Work[] = [
  {
    title: 'copy from it to a file',
    server: slow('read', '64M'),
    words: (uri, _other, own) => [...COPY, '--progress=1', uri, own],
    says: INCOMPLETE,
  },
  {
    title: 'copy from it to another server',
    server: slow('read', '64M'),
    words: (uri, other) => [...COPY, '--progress=1', uri, other],
    says: INCOMPLETE,
  },
  {
    title: 'copy to it from a file',
    server: slow('write', '64M'),
    words: (uri) => [...COPY, '--progress=1', join(folder, 'random'), uri],
    says: INCOMPLETE,
  },
  {
    title: 'copy from it to standard output',
    server: slow('read', '4G'),
    words: (uri) => ['copy', '--no-extents', '--progress=2', uri, '-'],
    begun: (said) => said.includes('\0'),
    says: /the copy is incomplete: at most \S+ [KM]iB of 4\.00 GiB were copied\n/,
  },
  {
    title: 'copy to it what flows',
    server: { ...slow('write', '1G'), options: ['-v'] },
    words: (uri) => ['copy', '-S', '0', '/dev/zero', uri],
    begun: written,
    says: /the copy is incomplete: at most \S+ \w+ were copied\n/,
  },
  {
    title: 'cache',
    server: slow('cache', '64M'),
    words: (uri) => ['cache', '--all', '-R2', '--request-size=256k', '--progress=1', uri],
    says: /(\S+ [KM]iB) of 64\.0 MiB were prefetched\n/,
  },
  {
    title: 'cache --read',
    server: slow('read', '64M'),
    words: (uri) => ['cache', '--all', '--read', '-R2', '--request-size=256k', '--progress=1', uri],
    says: /(\S+ [KM]iB) of 64\.0 MiB were prefetched\n/,
  },
  {
    title: 'hash',
    server: slow('read', '4G'),
    words: (uri) => ['hash', '--no-extents', '--progress=2', uri],
    says: /incomplete: \S+ MiB of 4\.00 GiB were hashed\n/,
  },
  {
    title: 'hash --block',
    server: slow('read', '4G'),
    words: (uri) => ['hash', '--block', '--no-extents', '--progress=2', uri],
    says: /incomplete: \S+ MiB of 4\.00 GiB were hashed\n/,
  },
  {
    title: 'compare',
    server: slow('read', '4G'),
    words: (uri, other) => ['compare', '--no-extents', '--progress=2', uri, other],
    says: /the comparison is incomplete: \S+ MiB of 4\.00 GiB were compared\n/,
  },
  {
    title: 'zero',
    server: slow('zero', '64M'),
    words: (uri) => ['zero', '-y', '-R2', '--request-size=256k', '--progress=1', uri],
    says: /incomplete: \S+ [KM]iB of 64\.0 MiB were zeroed\n/,
  },
  {
    title: 'discard',
    server: slow('trim', '64M'),
    words: (uri) => ['discard', '-y', '-R2', '--request-size=256k', '--progress=1', uri],
    says: /incomplete: \S+ [KM]iB of 64\.0 MiB were discarded\n/,
  },
];

/** Runs the work until it has begun, ends it, and checks its output. */
async function endEarly(work: Work, how: 'server' | 'interrupt'): Promise<void> {
  await using server = await startNbdkit(work.server);
  await using other = await startNbdkit({ args: ['4G'] });
  const child = await start(work.words(server.uri(), other.uri(), join(folder, how)));
  const exit = exitOf(child);
  const { begun = (said) => HALF_WAY.test(said) } = work;
  await until(() => {
    if (child.hasEnded()) throw new Error(`it ended before it was half-way: ${child.err()}`);
    return begun(child.said() + child.err(), server);
  });
  if (how === 'server') server.kill('SIGKILL');
  else child.kill('SIGINT');
  expect(await exit).toBe(how === 'server' ? 1 : 130);

  const err = child.err();
  expect(err).toMatch(work.says);
  expect(err).not.toMatch(/: 0 B of/);
  expect(`${child.said()}${err}`).not.toContain('100/100');
  // Of what is on standard output, nothing claims a result.
  expect(
    child
      .said()
      .replace(/^\d+\/100\n/gm, '')
      .replaceAll('\0', ''),
  ).toBe('');
  const last = err.trimEnd().split('\n').at(-1) ?? '';
  if (how === 'interrupt') expect(last).toMatch(/^nbd \w+: interrupted$/);
  else expect(err).toMatch(/^nbd \w+: .*(closed|ended|reset|EPIPE|ECONNRESET|disconnect|without)/m);
}

describeWith(['nbdkit'], 'a server that is killed half-way, and Ctrl-C', () => {
  it.each(WORKS.map((work) => [work.title, work] as const))('%s', async (_title, work) => {
    await Promise.all([endEarly(work, 'server'), endEarly(work, 'interrupt')]);
  });
});
