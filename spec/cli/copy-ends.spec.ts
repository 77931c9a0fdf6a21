// Every kind of source to every kind of destination: all bytes arrive, and the exit code is 0.

import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from '@jest/globals';

import { describeWith, type RealServer, runTool, startNbdkit } from '../support/real-servers.js';
import { cliPath } from './support.js';

const SIZE = 1_500_672;
const contents = Buffer.concat([randomBytes(500_000), Buffer.alloc(600_000), randomBytes(SIZE - 1_100_000)]);

/** What comes before, in the place of, and behind the operand. */
interface Part {
  readonly before?: string;
  readonly operand: string;
  readonly behind?: string;
}

const SOURCES: Readonly<Record<string, Part>> = {
  'a file': { operand: 'source' },
  'standard input, a file': { operand: '-', behind: '< source' },
  'standard input, a pipe': { before: 'cat source |', operand: '-' },
  'a fifo': { before: 'cat source > fifo-in &', operand: 'fifo-in' },
  'a server': { operand: '"$FROM"' },
};

const DESTINATIONS: Readonly<Record<string, Part>> = {
  'a file': { operand: 'copied' },
  'standard output, a file': { operand: '-', behind: '> copied' },
  'standard output, a pipe': { operand: '-', behind: '| cat > copied' },
  'a fifo': { before: 'cat fifo-out > copied &', operand: 'fifo-out' },
  'a server': { operand: '"$TO"' },
};

const PAIRS = Object.keys(SOURCES).flatMap((from) => Object.keys(DESTINATIONS).map((to) => [from, to] as const));

describeWith(['nbdkit', 'nbdcopy'], 'nbd copy', () => {
  let folder: string;
  let from: RealServer;
  let to: RealServer;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-copy-ends-'));
    await writeFile(join(folder, 'source'), contents);
    await runTool('mkfifo', [join(folder, 'fifo-in'), join(folder, 'fifo-out')]);
    from = await startNbdkit({ args: [String(SIZE)] });
    await runTool('nbdcopy', [join(folder, 'source'), from.uri()]);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each(PAIRS)('from %s to %s', async (one, other) => {
    to = await startNbdkit({ args: [String(SIZE)] });
    const [source, destination] = [SOURCES[one] as Part, DESTINATIONS[other] as Part];
    const copying = `{ $NBD copy --flush ${source.operand} ${destination.operand} ${source.behind ?? ''}; echo $? > code; }`;
    const script = `${destination.before ?? ''} ${source.before ?? ''} ${copying} ${destination.behind ?? ''}; wait`;
    const NBD = `${process.execPath} ${await cliPath()}`;
    const env = { ...process.env, NBD, FROM: from.uri(), TO: to.uri() };
    const ran = await runTool('sh', ['-c', script], { cwd: folder, env });
    expect([ran.stderr, await readFile(join(folder, 'code'), 'utf8')]).toEqual(['', '0\n']);
    if (other === 'a server') await runTool('nbdcopy', [to.uri(), join(folder, 'copied')]);
    const copied = await readFile(join(folder, 'copied'));
    expect(copied.equals(contents)).toBe(true);
    await rm(join(folder, 'copied'));
    await to[Symbol.asyncDispose]();
  });
});
