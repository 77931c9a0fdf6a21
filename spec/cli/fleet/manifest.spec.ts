// The manifest of `nbd fleet plan`: what is a job, which defaults apply, and how bad lines are reported.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type JobDefaults, openManifest } from '../../../lib/cli/fleet/manifest.js';
import type { FleetJob } from '../../../lib/fleet/index.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-manifest-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(
  text: string | Buffer,
  defaults: JobDefaults = {},
): Promise<{ jobs: FleetJob[]; problems: readonly string[]; bad: number }> {
  const path = join(folder, 'manifest');
  await writeFile(path, text);
  const { problems, bad, jobs: count, read: again } = await openManifest(path, defaults);
  const jobs: FleetJob[] = [];
  for await (const job of again()) jobs.push(job);
  expect(jobs).toHaveLength(count);
  return { jobs, problems, bad };
}

const HASH = '{"kind":"hash","source":"nbd://a"}';

describe('a manifest', () => {
  it.each<[string, string, number]>([
    ['blank lines and comments', `\n  \n# ${HASH}\n${HASH}\n`, 1],
    ['no newline at the end', HASH, 1],
    ['a byte order mark, and lines that end with CR LF', `\uFEFF${HASH}\r\n${HASH}\r\n`, 2],
    ['spaces around a line', `   ${HASH}   `, 1],
    ['nothing at all', '', 0],
    ['a line of 100,000 characters', `{"kind":"hash","source":"nbd://${'a'.repeat(100_000)}"}`, 1],
  ])('may have %s', async (_, text, count) => {
    expect(await read(text)).toMatchObject({ bad: 0, problems: [] });
    expect((await read(text)).jobs).toHaveLength(count);
  });

  it.each<[string, string, RegExp]>([
    ['text', 'nbd://a nbd://b', /^line 2: not JSON: /],
    ['half of an object', '{"kind":"hash",', /^line 2: not JSON: /],
    ['an array', '["nbd://a"]', /^line 2: not a JSON object/],
    ['null', 'null', /^line 2: not a JSON object/],
    ['an unknown key', '{"kind":"hash","source":"nbd://a","dest":"b"}', /^line 2: job: unknown option "dest"/],
    ['an unknown kind', '{"kind":"move","source":"nbd://a"}', /^line 2: job: kind: .*move/],
    ['no kind', '{"source":"nbd://a"}', /^line 2: job: kind is missing/],
    ['no source', '{"kind":"hash"}', /^line 2: job: source is missing/],
    ['no destination', '{"kind":"copy","source":"nbd://a"}', /^line 2: job: destination is missing/],
    ['one end', '{"kind":"copy","source":"nbd://a","destination":"nbd://a"}', /^line 2: .*the same/],
    ['a bad range size', '{"kind":"hash","source":"a","rangeSize":1000}', /^line 2: job: rangeSize/],
    ['invalid limits', '{"kind":"hash","source":"a","limits":7}', /^line 2: job: limits/],
    ['control characters', '{"kind":"\\u001b[2J","source":"a"}', /^line 2: [ -~]*$/],
  ])('is refused with %s in a line', async (_, line, problem) => {
    const { bad, problems, jobs } = await read(`${HASH}\n${line}\n${HASH}\n`);
    expect({ bad, count: jobs.length }).toEqual({ bad: 1, count: 2 });
    expect(problems).toEqual([expect.stringMatching(problem)]);
  });

  it('reports the first 100 of many bad lines', async () => {
    const { bad, problems } = await read('x\n'.repeat(5000));
    expect([bad, problems.length, problems[99]?.slice(0, 9)]).toEqual([5000, 100, 'line 100:']);
  });

  it.each<[string, object, JobDefaults, object]>([
    ['a kind', { source: 'a' }, { kind: 'hash' }, { kind: 'hash', source: 'a' }],
    ['not the kind of a line', { kind: 'prefetch', source: 'a' }, { kind: 'hash' }, { kind: 'prefetch', source: 'a' }],
    [
      'limits, of which the line has one',
      { kind: 'copy', source: 'a', destination: 'b', limits: { source: 1 } },
      { sourceLimit: 2, destinationLimit: 3, rate: 4, rangeSize: 65_536 },
      {
        ...{ kind: 'copy', source: 'a', destination: 'b', rangeSize: 65_536 },
        limits: { source: 1, destination: 3, rate: 4 },
      },
    ],
    [
      'nothing that has no meaning for the kind',
      { kind: 'hash', source: 'a' },
      { destinationLimit: 3, rate: 4, verify: false },
      { kind: 'hash', source: 'a' },
    ],
    [
      'no verification',
      { kind: 'backup', source: 'a', destination: 'b', bitmap: 'b0' },
      { verify: false },
      { kind: 'backup', source: 'a', destination: 'b', bitmap: 'b0', verify: false },
    ],
  ])('takes from the command line %s', async (_, line, defaults, job) => {
    expect((await read(JSON.stringify(line), defaults)).jobs).toEqual([job]);
  });

  it.each(['', '/', 'missing'])('that cannot be read is an error: %j', async (name) => {
    await expect(openManifest(join(folder, 'missing', name), {})).rejects.toThrow('the manifest cannot be read: ');
  });
});
