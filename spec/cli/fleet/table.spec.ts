// The lines of `nbd fleet watch` and `report`, and the metrics: few and whole, whatever a fleet looks like.

import { describe, expect, it } from '@jest/globals';

import { failureLines } from '../../../lib/cli/fleet/failures.js';
import { metricsText } from '../../../lib/cli/fleet/metrics.js';
import { columns, progressLine, progressLines } from '../../../lib/cli/fleet/table.js';
import type { FleetFailure, FleetProgress, FleetServerState } from '../../../lib/fleet/index.js';

const server = (name: string, running = 0): FleetServerState => ({
  ...{ name, running, ranges: 3, bytes: 2n ** 30n, moved: 2n ** 31n, rate: 2 ** 20, retries: 1, failures: 0 },
});

const progress = (changes: Partial<FleetProgress> = {}): FleetProgress => ({
  ...{ id: 'x', paused: false, settled: false, away: false, rate: 2 ** 30, eta: 61_000, moved: 2n ** 40n, retries: 4 },
  exports: { total: 1000, done: 400, failed: 2, cancelled: 1, unplanned: 1 },
  ranges: { total: 6000, done: 2500, failed: 3, running: 24 },
  bytes: { total: 2n ** 42n, done: 2n ** 41n },
  workers: [
    { name: 'a', ranges: 12, seen: 100, isAlive: true },
    { name: 'b', ranges: 12, seen: 65_000, isAlive: false },
  ],
  servers: [server('nas1:10809', 3), server('nas2:10809', 9)],
  toJSON: () => ({}),
  ...changes,
});

describe('the table', () => {
  it('has totals, workers that are silent, and the busiest servers first', () => {
    expect(progressLines('weekend', progress())).toEqual([
      'weekend: 400 of 1000 exports done, 2 failed, 1 cancelled, 1 could not be planned',
      '[============------------] 50 %  2.00 TiB of 4.00 TiB  1.00 GiB/s  1:01 left',
      '2500 of 6000 ranges done, 24 running, 3 failed; 1.00 TiB read; 4 tried again; 1 worker, 1 silent for up to 1:05',
      '',
      'SERVER      RUNNING  DONE      DATA   PER RANGE  RETRIES  FAILED',
      'nas2:10809        9     3  1.00 GiB  1.00 MiB/s        1       0',
      'nas1:10809        3     3  1.00 GiB  1.00 MiB/s        1       0',
    ]);
  });

  it('stays readable with a thousand servers and exports beyond all numbers', () => {
    const servers = Array.from({ length: 1000 }, (_, at) => server(`nas${at}:10809`, at));
    const lines = progressLines('f', progress({ servers, bytes: { total: 2n ** 62n, done: 2n ** 62n - 1n } }));
    expect(lines.length).toBeLessThanOrEqual(24 - 1);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(120);
    expect(lines[1]).toContain(' 99 % ');
    expect(lines.at(-1)).toBe('… and 988 more servers');
  });

  it.each<[string, Partial<FleetProgress>, RegExp]>([
    ['nothing to do', { bytes: { total: 0n, done: 0n }, settled: true }, /100 %.*settled/],
    ['nothing to estimate from', { eta: null, rate: 0 }, /-:-- left/],
    ['Redis away', { away: true }, /\(Redis does not answer\)/],
    ['paused', { paused: true }, /\(paused\)/],
  ])('shows %s', (_, changes, pattern) => {
    expect(progressLines('f', progress(changes)).join('\n')).toMatch(pattern);
    expect(progressLine('f', progress(changes))).not.toContain('\n');
  });

  it('aligns the first columns to the left and the others to the right', () => {
    expect(
      columns(
        [
          ['A', 'B', 'C'],
          ['long', 'x', '1'],
          ['s', 'long', '1000'],
        ],
        2,
      ),
    ).toEqual(['A     B        C', 'long  x        1', 's     long  1000']);
  });
});

describe('failures', () => {
  const failure = (id: number, code = 'ENOSPC', name = 'NbdCommandError'): FleetFailure => ({
    ...{ id: `id${id}`, kind: 'copy', source: `nbd://a/${id}`, destination: 'nbd://b', phase: 'work', attempts: 10 },
    ...{
      code,
      name,
      syscall: 'copy',
      offset: null,
      message: 'the server is full',
      start: 0n,
      length: 2n ** 20n,
      at: 1,
    },
  });

  it('are grouped by reason, and few of each are shown', () => {
    const many = [failure(0, 'EIO'), ...Array.from({ length: 1000 }, (_, at) => failure(at))];
    expect(failureLines(many, { most: 1 })).toEqual([
      'ENOSPC (NbdCommandError): 1000 exports, 1000 failures',
      '  id0 nbd://a/0 -> nbd://b, 1.00 MiB at 0, tried 10 times: the server is full',
      '  … and 999 more',
      'EIO (NbdCommandError): 1 export, 1 failure',
      '  id0 nbd://a/0 -> nbd://b, 1.00 MiB at 0, tried 10 times: the server is full',
    ]);
  });

  it('are masked where that was asked for', () => {
    const text = failureLines([failure(1)], { isMasked: true, id: 'fleet' }).join('\n');
    expect(text).toMatch(/ x[0-9a-f]{8} -> x[0-9a-f]{8}, /);
    expect(text).not.toMatch(/nbd:|full/);
  });
});

describe('metrics', () => {
  /** What the format allows, version 0.0.4. */
  const LINE =
    /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{([a-z]+="([^"\\\n]|\\["\\n])*")(,[a-z]+="([^"\\\n]|\\["\\n])*")*\} \d+)$/;

  it('are lines of the format, with a type for each, whatever servers are called', () => {
    const servers = [server('plain:10809'), server('a "quoted"\\\nname', 2)];
    const text = metricsText('f', progress({ servers }));
    expect(text.endsWith('\n')).toBe(true);
    const lines = text.trimEnd().split('\n');
    expect(lines.filter((line) => !LINE.test(line))).toEqual([]);
    const typed = new Set(lines.flatMap((line) => /^# TYPE (\S+)/.exec(line)?.[1] ?? []));
    const used = new Set(lines.flatMap((line) => /^([a-z_]+)\{/.exec(line)?.[1] ?? []));
    expect([...typed].sort()).toEqual([...used].sort());
    expect(lines).toContain('nbd_fleet_exports{fleet="f",state="done"} 400');
    expect(lines).toContain('nbd_fleet_exports{fleet="f",state="unfinished"} 596');
    expect(lines).toContain('nbd_fleet_ranges{fleet="f",state="waiting"} 3473');
    expect(lines).toContain('nbd_fleet_server_running{fleet="f",server="a \\"quoted\\"\\\\\\nname"} 2');
    expect(lines).toContain('nbd_fleet_workers{fleet="f",state="silent"} 1');
  });

  it('report that Redis does not answer', () => {
    expect(metricsText('f', progress({ away: true }))).toContain('nbd_fleet_up{fleet="f"} 0\n');
  });
});
