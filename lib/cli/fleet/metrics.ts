// A fleet in Prometheus' text format, version 0.0.4.

import type { FleetProgress } from '../../fleet/index.js';

/** The media type of the text. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number | bigint];

export function metricsText(fleet: string, progress: FleetProgress): string {
  const { exports, ranges, bytes, workers, servers } = progress;
  const alive = workers.filter(({ isAlive }) => isAlive).length;
  const settled = exports.done + exports.failed + exports.cancelled + exports.unplanned;
  const perServer = (pick: (server: (typeof servers)[number]) => number | bigint): Sample[] =>
    servers.map((server) => [{ server: server.name }, pick(server)]);
  const metric = (name: string, type: 'gauge' | 'counter', help: string, samples: readonly Sample[]): string =>
    [
      `# HELP nbd_fleet_${name} ${help}`,
      `# TYPE nbd_fleet_${name} ${type}`,
      ...samples.map(([labels, value]) => `nbd_fleet_${name}${labelText({ fleet, ...labels })} ${value}`),
      '',
    ].join('\n');
  return [
    metric('up', 'gauge', 'Whether Redis answers.', [[{}, progress.away ? 0 : 1]]),
    metric('paused', 'gauge', 'Whether workers take no ranges.', [[{}, Number(progress.paused)]]),
    metric('exports', 'gauge', 'Exports by state.', [
      [{ state: 'done' }, exports.done],
      [{ state: 'failed' }, exports.failed],
      [{ state: 'cancelled' }, exports.cancelled],
      [{ state: 'unplanned' }, exports.unplanned],
      [{ state: 'unfinished' }, Math.max(exports.total - settled, 0)],
    ]),
    metric('ranges', 'gauge', 'Ranges by state.', [
      [{ state: 'done' }, ranges.done],
      [{ state: 'failed' }, ranges.failed],
      [{ state: 'running' }, ranges.running],
      [{ state: 'waiting' }, Math.max(ranges.total - ranges.done - ranges.failed - ranges.running, 0)],
    ]),
    metric('data_bytes', 'gauge', 'Bytes of data in all ranges.', [[{}, bytes.total]]),
    metric('done_bytes', 'gauge', 'Bytes of data in what is done.', [[{}, bytes.done]]),
    metric('read_bytes_total', 'counter', 'Bytes that were read, or asked for.', [[{}, progress.moved]]),
    metric('retries_total', 'counter', 'Attempts that failed and were put back.', [[{}, progress.retries]]),
    metric('workers', 'gauge', 'Workers by state.', [
      [{ state: 'alive' }, alive],
      [{ state: 'silent' }, workers.length - alive],
    ]),
    metric(
      'server_running',
      'gauge',
      'Ranges that use a server now.',
      perServer(({ running }) => running),
    ),
    metric(
      'server_ranges_total',
      'counter',
      'Ranges that were done on a server.',
      perServer((each) => each.ranges),
    ),
    metric(
      'server_read_bytes_total',
      'counter',
      'Bytes that were read on a server.',
      perServer(({ moved }) => moved),
    ),
    metric(
      'server_retries_total',
      'counter',
      'Attempts that failed on a server.',
      perServer((each) => each.retries),
    ),
    metric(
      'server_failures_total',
      'counter',
      'Ranges that failed on a server.',
      perServer((each) => each.failures),
    ),
  ].join('');
}

const labelText = (labels: Labels): string =>
  `{${Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`))}"`)
    .join(',')}}`;
