// `nbd fleet` as a user runs it, on a real Redis and real servers.

import { expect, it, jest } from '@jest/globals';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { MIB, Site } from '../../fleet/site.js';
import { describeWith } from '../../support/tools.js';
import { startRedis } from '../../support/redis-server.js';
import { exitOf, nbd, out, printed, start } from '../support.js';

jest.setTimeout(600_000);

/** Waits for an answer that fulfils this. */
async function fetched(url: string, isExpected: (status: number, text: string) => boolean): Promise<void> {
  for (;;) {
    const response = await fetch(url);
    if (isExpected(response.status, await response.text())) return;
    await sleep(50);
  }
}

describeWith(['redis-server', 'nbdkit'], 'nbd fleet', () => {
  it('plans a manifest, works until it is done, and reports', async () => {
    await using redis = await startRedis();
    await using site = await Site.make({ seed: 1 });
    const manifest = join(site.folder, 'exports.jsonl');
    const { source, destination } = site.job();
    await writeFile(manifest, `# one export\n${JSON.stringify({ source, destination })}\n`);
    const words = ['--redis', redis.url, '--fleet', 'weekend'];

    const planned = await nbd(['fleet', 'plan', '--kind', 'copy', '--range-size', '1M', ...words, manifest]);
    expect(planned).toMatchObject({ code: 0, stderr: '' });
    expect(planned.stdout).toMatch(/^planned 1 export: 4 ranges, .* of data\n$/);
    expect(await out(['fleet', 'plan', '-k', 'copy', '--json', ...words, manifest])).toContain('"already":1');
    expect((await nbd(['fleet', 'report', ...words])).stdout).toMatch(/^0 of 1 export done\n0 of 8 ranges, /);
    // Nothing is begun while the fleet is paused.
    await out(['fleet', 'pause', ...words]);
    const worker = await start(['fleet', 'work', '--lease=2', '--until-settled', '--verbose', ...words]);
    const ended = exitOf(worker);
    await printed(worker, 'is ready');
    await out(['fleet', 'resume', ...words]);

    const watched = await nbd(['fleet', 'watch', '--every', '0.2', '--json', ...words]);
    expect(watched.code).toBe(0);
    const looks = watched.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(looks.at(-1)).toMatchObject({ settled: true, exports: { total: 1, done: 1, failed: 0 } });
    expect(await ended).toBe(0);
    expect(worker.err()).toMatch(/: copy: .*: begun\n/);
    expect(worker.err()).toMatch(/: copy, verifying: .*: done in 0:\d\d\n/);
    expect(worker.err()).toMatch(/ended: 8 ranges done, .* read, 0 tried again, 0 failed, 0 given up\n$/);
    expect(await site.isEqual()).toBe(true);

    const report = JSON.parse(await out(['fleet', 'report', '--json', ...words])) as object;
    expect(report).toMatchObject({ counts: { total: 1, done: 1 }, failures: [], exports: [{ source, state: 'done' }] });
    const listed = await out(['fleet', 'report', '--exports', ...words]);
    expect(listed).toMatch(/^1 of 1 export done\n8 of 8 ranges/);
    expect(listed).toMatch(/\n[0-9a-f]{20} {2}copy {2}done +nbd/);
    const masked = await out(['fleet', 'report', '--exports', '--mask', ...words]);
    expect(masked).not.toMatch(/127\.0\.0\.1|nbd:|socket/);

    await out(['fleet', 'remove', ...words]);
    const gone = await nbd(['fleet', 'report', ...words]);
    expect(gone).toMatchObject({ code: 1, stdout: '' });
    expect(gone.stderr).toContain('nothing is planned in the fleet weekend\n');
  });

  it('hands its ranges back at SIGTERM, for another worker', async () => {
    await using redis = await startRedis();
    await using site = await Site.make({ seed: 2, filters: ['rate'], args: ['rate=8M'] });
    const manifest = join(site.folder, 'exports.jsonl');
    await writeFile(manifest, JSON.stringify(site.job({ rangeSize: 4 * MIB })));
    const words = ['--redis', redis.url];
    await out(['fleet', 'plan', ...words, manifest]);
    const worker = await start(['fleet', 'work', '--lease=2', '--json', '--within', '0', ...words]);
    const ended = exitOf(worker);
    await printed(worker, '"event":"begin"');
    worker.kill('SIGTERM');
    expect(await ended).toBe(0);
    expect(worker.err()).toMatch(/ended: \d ranges? done, .*, 1 given up\n$/);
    expect(worker.said()).toContain('"event":"lost"');
    expect(worker.said()).toContain('"why":"shutdown"');
    expect((await nbd(['fleet', 'work', '--lease=2', '--until-settled', ...words])).code).toBe(0);
    expect(await out(['fleet', 'report', ...words])).toMatch(/^1 of 1 export done\n/);
    expect((await readFile(site.destinationFile)).equals(site.data)).toBe(true);
  });

  it('cancels, retries, and exits with 1 where something failed', async () => {
    await using redis = await startRedis();
    await using site = await Site.make({
      seed: 3,
      filters: ['error'],
      args: ['error-pwrite=ENOSPC', 'error-pwrite-rate=100%'],
    });
    const words = ['--redis', redis.url];
    const manifest = join(site.folder, 'exports.jsonl');
    await writeFile(
      manifest,
      `${JSON.stringify(site.job())}\n{"kind":"hash","source":"nbd+unix:///?socket=/nothere"}\n`,
    );
    const planned = await nbd(['fleet', 'plan', ...words, manifest]);
    expect(planned.code).toBe(1);
    expect(planned.stderr).toMatch(/ENOENT \(NbdConnectionError\): 1 export, 1 failure\n.*\/nothere/);
    expect((await nbd(['fleet', 'work', '--lease=2', '--until-settled', ...words])).code).toBe(1);
    const report = await nbd(['fleet', 'report', ...words]);
    expect(report.code).toBe(1);
    expect(report.stdout).toMatch(/^0 of 2 exports done, 1 failed, 1 could not be planned\n/);
    expect(report.stdout).toMatch(/ENOSPC \(NbdCommandError\): 1 export, /);
    expect((await nbd(['fleet', 'watch', ...words])).code).toBe(1);
    expect(await out(['fleet', 'retry', '--all', ...words])).toMatch(
      /^put back \d ranges? of 1 export, of which \d had failed\n$/,
    );
    expect(await out(['fleet', 'cancel', '--all', ...words])).toBe('cancelled 2 exports\n');
    expect(await out(['fleet', 'report', ...words], 1)).toMatch(/^0 of 2 exports done, 2 cancelled\n/);
  });

  it('serves metrics on the loopback interface', async () => {
    await using redis = await startRedis();
    const watcher = await start(['fleet', 'watch', '--forever', '--every=0.1', '--metrics=0', '--redis', redis.url]);
    const ended = exitOf(watcher);
    await printed(watcher, /metrics on http:\/\/127\.0\.0\.1:\d+\/metrics\n/);
    const url = /http:\S+/.exec(watcher.err())?.[0] ?? '';
    await fetched(url, (status) => status === 200);
    const response = await fetch(url);
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await response.text()).toContain('nbd_fleet_up{fleet="fleet"} 1\n');
    expect((await fetch(url.replace('/metrics', '/'))).status).toBe(404);
    expect((await fetch(url, { method: 'POST' })).status).toBe(405);
    await redis.stop();
    await fetched(url, (_status, text) => text.includes('nbd_fleet_up{fleet="fleet"} 0\n'));
    watcher.kill('SIGTERM');
    expect(await ended).toBe(1);
  });

  it.each<[string, string[], RegExp]>([
    ['no manifest', ['plan'], /expected one manifest/],
    ['a manifest that is not there', ['plan', '/nonexistent'], /the manifest cannot be read: no such file/i],
    ['a server that only this process could reach', ['plan', '[', 'nbdkit', ']'], /every worker can reach/],
    ['an operand too many', ['watch', 'x'], /takes no operands/],
    ['neither an identity nor --all', ['cancel'], /expected identities of exports, or --all/],
    ['both', ['retry', '--all', 'x'], /expected identities of exports, or --all/],
    ['a URL of something else', ['report', '--redis', 'http://localhost'], /must be a URL that starts with redis:/],
    ['a fleet with a bad name', ['report', '--fleet', 'a/b'], /fleet/],
    ['a bad address for metrics', ['watch', '--metrics', 'x'], /--metrics: could not parse: x/],
    ['an unknown command', ['nonsense'], /unknown command 'fleet nonsense'; 'nbd fleet --help' lists the commands/],
    ['no command', [], /^SYNOPSIS\n {4}nbd fleet COMMAND/],
  ])('is an error with %s', async (_, words, message) => {
    const { code, stdout, stderr } = await nbd(['fleet', ...words]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
  });
});
