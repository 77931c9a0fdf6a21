// A fleet as a few lines of text, which stay few however many exports, servers and workers there are.

import type { FleetProgress, FleetServerState, FleetSnapshot } from '../../fleet/index.js';
import { counted, duration, roundSize } from '../output/text.js';

const BAR = 24;
const MOST_SERVERS = 12;

/** The lines of `nbd fleet watch` on a terminal. */
export function progressLines(name: string, progress: FleetProgress): string[] {
  const { bytes, rate, eta, servers, retries, moved } = progress;
  const share = bytes.total === 0n ? Number(progress.settled) : Number((bytes.done * 10_000n) / bytes.total) / 10_000;
  const filled = Math.floor(share * BAR);
  const bar = `[${'='.repeat(filled)}${'-'.repeat(BAR - filled)}]`;
  const left = progress.settled ? 'settled' : `${eta === null ? '-:--' : duration(eta / 1000)} left`;
  return [
    `${name}: ${exportCounts(progress.exports)}${stateOf(progress)}`,
    `${bar} ${Math.floor(share * 100)} %  ${roundSize(bytes.done)} of ${roundSize(bytes.total)}  ${roundSize(rate)}/s  ${left}`,
    `${rangeCounts(progress.ranges)}; ${roundSize(moved)} read; ${retries} tried again; ${workerCounts(progress)}`,
    ...(servers.length === 0 ? [] : ['', ...serverTable(servers)]),
  ];
}

/** The same in one line, for a log. */
export function progressLine(name: string, progress: FleetProgress): string {
  const { bytes, rate, exports, ranges } = progress;
  return (
    `${name}: ${exportCounts(exports)}; ${rangeCounts(ranges)}; ${roundSize(bytes.done)} of ${roundSize(bytes.total)}, ` +
    `${roundSize(rate)}/s; ${workerCounts(progress)}${stateOf(progress)}`
  );
}

const stateOf = ({ away, paused }: FleetProgress): string =>
  away ? ' (Redis does not answer)' : paused ? ' (paused)' : '';

export function exportCounts({ total, done, failed, cancelled, unplanned }: FleetSnapshot['exports']): string {
  const others = [
    failed === 0 ? '' : `, ${failed} failed`,
    cancelled === 0 ? '' : `, ${cancelled} cancelled`,
    unplanned === 0 ? '' : `, ${unplanned} could not be planned`,
  ];
  return `${done} of ${counted(total, 'export')} done${others.join('')}`;
}

const rangeCounts = ({ total, done, failed, running }: FleetSnapshot['ranges']): string =>
  `${done} of ${counted(total, 'range')} done, ${running} running${failed === 0 ? '' : `, ${failed} failed`}`;

function workerCounts({ workers }: FleetSnapshot): string {
  const silent = workers.filter(({ isAlive }) => !isAlive);
  const longest = Math.max(...silent.map(({ seen }) => seen));
  const lost = silent.length === 0 ? '' : `, ${silent.length} silent for up to ${duration(longest / 1000)}`;
  return `${counted(workers.length - silent.length, 'worker')}${lost}`;
}

/** The busiest servers first. */
export function serverTable(servers: readonly FleetServerState[], most = MOST_SERVERS): string[] {
  const shown = [...servers].sort((a, b) => b.running - a.running || Number(b.moved - a.moved)).slice(0, most);
  const rows = shown.map(({ name, running, ranges, bytes, rate, retries, failures }) => [
    name,
    ...[running, ranges].map(String),
    ...[roundSize(bytes), `${roundSize(rate)}/s`],
    ...[retries, failures].map(String),
  ]);
  const more = servers.length - shown.length;
  return [
    ...columns([['SERVER', 'RUNNING', 'DONE', 'DATA', 'PER RANGE', 'RETRIES', 'FAILED'], ...rows]),
    ...(more > 0 ? [`… and ${counted(more, 'more server')}`] : []),
  ];
}

/** Columns as wide as their cells; the first is aligned to the left, the others to the right. */
export function columns(rows: readonly (readonly string[])[], left = 1): string[] {
  const widths = (rows[0] ?? []).map((_cell, at) => Math.max(...rows.map((row) => (row[at] ?? '').length)));
  return rows.map((row) =>
    row
      .map((cell, at) => (at < left ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}
