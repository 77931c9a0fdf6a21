// `--reconnect` and `--retry`: real servers are killed under a command and started again. The exit code is 0 only if
// the bytes are right afterwards; without a server, the command ends with what it tried.

import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from '@jest/globals';

import { atAnyPace } from '../support/pace.js';
import { describeWith, type RealServer, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { until } from '../support/waiting.js';
import { cliPath, exitOf, HALF_WAY, nbd, printed, start } from './support.js';

const MIB = 1 << 20;
const SIZE = 24 * MIB;
/** Of a copy that takes a second times the pace, in which its servers die. */
const rate = (pace = 1): string => `--rate=${Math.floor(SIZE / pace)}`;
/** Of a copy that does not come to its end: that may take long. */
const SLOW = rate(10);

let folder: string;
let bytes: Buffer;
const at = (name: string): string => join(folder, name);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-reconnect-'));
  bytes = Buffer.concat([randomBytes(SIZE / 3), Buffer.alloc(SIZE / 3), randomBytes(SIZE / 3)]);
  await writeFile(at('from'), bytes);
  await writeFile(at('to'), '');
  await truncate(at('to'), SIZE);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A server at a socket, which can be killed and started again there. */
class Mortal implements AsyncDisposable {
  readonly #start: (socketPath: string) => Promise<RealServer>;
  readonly socketPath: string;
  #server: RealServer | null = null;

  constructor(name: string, begin: (socketPath: string) => Promise<RealServer>) {
    this.#start = begin;
    this.socketPath = at(name);
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.socketPath}`;
  }

  async start(): Promise<this> {
    this.#server = await this.#start(this.socketPath);
    return this;
  }

  async kill(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    server?.kill('SIGKILL');
    await server?.ended;
    await server?.stop();
    await rm(this.socketPath, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

const nbdkitOf = (name: string, file: string): Promise<Mortal> =>
  new Mortal(name, (socketPath) => startNbdkit({ socketPath, plugin: 'file', args: [at(file)] })).start();
/** It loses what was not flushed. See spec/reliability.md for its one thread. */
const writeBack = (name: string, file: string): Promise<Mortal> =>
  new Mortal(name, (socketPath) =>
    startNbdkit({
      ...{ socketPath, plugin: 'file', options: ['-t1'], filters: ['cache'] },
      args: [at(file), 'cache=writeback'],
    }),
  ).start();
const qemuOf = (name: string, file: string): Promise<Mortal> =>
  new Mortal(name, (socketPath) => startQemuNbd({ socketPath, file: at(file), args: ['--cache=writeback'] })).start();

/** Starts a command, kills the servers each time that its progress has gone on, and starts them again. */
async function killedMeanwhile(words: readonly string[], victims: readonly Mortal[], times = 2): Promise<string> {
  const child = await start([...words, '--progress=1']);
  const exit = exitOf(child);
  const percent = (): number => Number(/(\d+)\/100\n$/.exec(child.said())?.[1] ?? 0);
  for (let time = 1; time <= times; time++) {
    await until(() => percent() >= time * 20 || child.exitCode !== null);
    for (const victim of victims) await victim.kill();
    for (const victim of victims) await victim.start();
  }
  expect([await exit, child.err()]).toEqual([0, expect.anything()]);
  return child.err();
}

describeWith(['nbdkit', 'qemu-nbd'], 'nbd copy --reconnect', () => {
  it('from a server that is killed and comes back', async () => {
    await using source = await nbdkitOf('source', 'from');
    // One that was killed too late lost no connection.
    await atAnyPace(async (pace) => {
      const err = await killedMeanwhile(['copy', rate(pace), '--reconnect=60', source.uri, at('copied')], [source]);
      expect((await readFile(at('copied'))).equals(bytes)).toBe(true);
      expect(err).toMatch(/source: the connection was lost: .*; trying for 60 s to connect again\n/);
      expect(err).toMatch(/source: connected again after \d+\.\d s\n/);
    });
  });

  it.each([
    ['nbdkit with a cache that it loses', writeBack],
    ['qemu-nbd', qemuOf],
  ] as const)('to %s, which was killed, and is killed in the end: everything was flushed', async (_name, open) => {
    await using destination = await open('destination', 'to');
    await killedMeanwhile(['copy', rate(), '--reconnect=60', at('from'), destination.uri], [destination]);
    await destination.kill();
    expect((await readFile(at('to'))).equals(bytes)).toBe(true);
  });

  it('with several connections, both servers, and a checkpoint', async () => {
    await using source = await nbdkitOf('source', 'from');
    await using destination = await writeBack('destination', 'to');
    const words = ['copy', rate(), '--reconnect=60', '--connections=4', `--checkpoint=${at('state')}`];
    await killedMeanwhile([...words, source.uri, destination.uri], [source, destination], 3);
    await destination.kill();
    expect((await readFile(at('to'))).equals(bytes)).toBe(true);
    expect(existsSync(at('state'))).toBe(false);
  });

  it('of a pipe, to a server that stays away for a moment', async () => {
    await using destination = await qemuOf('destination', 'to');
    const child = spawn(process.execPath, [await cliPath(), 'copy', '--reconnect=60', '-', destination.uri]);
    const exit = exitOf(child);
    // A copy that ends with 1, which is right when its first half was lost, does not read the second half.
    child.stdin.on('error', () => undefined);
    child.stdin.write(bytes.subarray(0, SIZE / 2));
    await destination.kill();
    await destination.start();
    child.stdin.end(bytes.subarray(SIZE / 2));
    const code = await exit;
    await destination.kill();
    // What was lost cannot be read from a pipe again: then the exit code has to say so.
    if (code === 0) expect((await readFile(at('to'))).equals(bytes)).toBe(true);
    else expect(code).toBe(1);
  });

  it('without a server that comes back: 1, what was tried, and how to go on', async () => {
    await using source = await nbdkitOf('source', 'from');
    await using destination = await nbdkitOf('destination', 'to');
    const ends = [source.uri, destination.uri];
    const words = ['copy', rate(3), '--reconnect=1', `--checkpoint=${at('state')}`, ...ends];
    const child = await start(words);
    const exit = exitOf(child);
    await until(() => existsSync(at('state')));
    await destination.kill();
    expect(await exit).toBe(1);
    expect(child.err()).toMatch(/nbd copy: the copy is incomplete: .* of 24\.0 MiB were copied\n/);
    expect(child.err()).toMatch(/to go on from the checkpoint, run the same command again/);
    expect(child.err()).toMatch(
      /no connection came back \(\d+ attempts, --reconnect=1\), after \d+ tr(y|ies): connect to .*ENOENT|No such file/i,
    );
    await destination.start();
    // Without --reconnect it is the same copy.
    const on = await nbd(['copy', '--verbose', `--checkpoint=${at('state')}`, ...ends]);
    expect([on.code, existsSync(at('state'))]).toEqual([0, false]);
    expect((await readFile(at('to'))).equals(bytes)).toBe(true);
  });

  it('is refused where another export has come back', async () => {
    await using source = await nbdkitOf('source', 'from');
    const child = await start(['copy', SLOW, '--reconnect=60', '--progress=1', source.uri, at('copied')]);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    await source.kill();
    await writeFile(at('from'), bytes.subarray(0, SIZE / 2));
    await source.start();
    expect(await exit).toBe(1);
    expect(child.err()).toMatch(/not the export that the pool was connected to: its size is 12582912n? and was/);
  });

  it('ends at once on Ctrl-C while no server is there', async () => {
    await using source = await nbdkitOf('source', 'from');
    const child = await start(['copy', SLOW, '--reconnect=1000', '--progress=1', source.uri, at('copied')]);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    await source.kill();
    await printed(child, 'trying for 1000 s');
    child.kill('SIGINT');
    expect(await exit).toBe(130);
    expect(child.err()).toMatch(/the copy is incomplete: .*\nnbd copy: interrupted\n$/);
  });

  it('without it, a lost connection ends the copy', async () => {
    await using source = await nbdkitOf('source', 'from');
    const child = await start(['copy', SLOW, '--progress=1', source.uri, at('copied')]);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    await source.kill();
    await source.start();
    expect(await exit).toBe(1);
  });

  it.each([
    [['--reconnect=x'], /--reconnect: could not parse: x/],
    [['--retry=1.5'], /--retry: /],
  ] as const)('%j is refused', async (words, message) => {
    const { code, stderr } = await nbd(['copy', ...words, 'nbd+unix:///?socket=/nowhere', at('never')]);
    expect([code, existsSync(at('never'))]).toEqual([1, false]);
    expect(stderr).toMatch(message);
  });
});

describeWith(['nbdkit'], 'nbd cache, hash and compare --reconnect', () => {
  /** Half a second for the reads of it all, so that the server dies meanwhile. */
  const slowly = (name: string): Promise<Mortal> =>
    new Mortal(name, (socketPath) =>
      startNbdkit({
        ...{ socketPath, plugin: 'file', filters: ['cow', 'rate'], options: ['-t4'] },
        args: [at('from'), 'rate=128M', 'cow-on-cache=true'],
      }),
    ).start();

  it('go on when the server was killed', async () => {
    await using server = await slowly('server');
    const few = ['--reconnect=60'];
    await killedMeanwhile(['cache', '--read', '--requests=1', '--request-size=1M', ...few, server.uri], [server]);
    await killedMeanwhile(['compare', ...few, server.uri, at('from')], [server]);
    const digest = createHash('sha256').update(bytes).digest('hex');
    const child = await start(['hash', ...few, '--progress=2', server.uri]);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    await server.kill();
    await server.start();
    expect([await exit, child.said().split(' ')[0]]).toEqual([0, digest]);
  });
});

describeWith(['nbdkit'], 'nbd copy --retry', () => {
  it('tries again what the server answered with EIO, and no longer than that', async () => {
    const sometimes = ['error-pread-rate=20%', 'error=EIO'];
    await using server = await startNbdkit({ plugin: 'file', filters: ['error'], args: [at('from'), ...sometimes] });
    const words = ['copy', '--no-extents', '--request-size=256k', server.uri(), at('copied')];
    const { code, stderr } = await nbd([...words, '--retry=50', '--verbose']);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/pread at offset \d+ is tried again \(1 of 50\): /)]);
    expect((await readFile(at('copied'))).equals(bytes)).toBe(true);
    expect((await nbd(words)).code).toBe(1);
    await using always = await startNbdkit({ filters: ['error'], args: ['1M', 'error=EIO', 'error-rate=1'] });
    const failed = await nbd(['copy', '--no-extents', '--retry=2', always.uri(), at('copied')]);
    expect([failed.code, failed.stderr]).toEqual([1, expect.stringMatching(/Input\/output error|EIO/)]);
  });
});
