// The figures as text, as Markdown and as JSON.

import { type Pair, ratios, type Spread, spread, summarize, type Summary } from './measure.js';
import { SEED } from '../programs/work.js';
import { type WholeResult, wholeText } from './whole.js';
import { KIB, MIB, type PeerName, type Row } from './rows.js';

/** A row against one peer: its pairs, or the reason why there are no pairs. */
export interface Comparison {
  readonly row: Row;
  readonly peer: PeerName;
  readonly goal: number;
  readonly server: string;
  /** What was compared with the peer. */
  readonly program: 'nbd-sdk' | 'ceiling';
  readonly pairs: readonly Pair[];
  readonly gap?: string;
}

/** One of the figures that are not ratios. */
export interface Check {
  readonly name: string;
  readonly figure: string;
  readonly goal: string;
  readonly values: Readonly<Record<string, unknown>>;
}

const HEADERS = [
  'operation',
  'size',
  'depth',
  'server',
  'program',
  'op/s',
  'MB/s',
  'CPU µs/op',
  'p50 µs',
  'p99 µs',
  'peak MiB',
  'CPU ratio',
  'ratio (min–max)',
  'goal',
];

/** The peer's CPU time of an operation by ours, as the median of pairs: less noisy than the rates. */
function cpuRatio(pairs: readonly Pair[]): number {
  return spread(pairs.map(({ ours, peer }) => peer.cpuUs / peer.ops / (ours.cpuUs / ours.ops))).median;
}

/** Columns of words; the others are numbers, to the right. */
const WORDS = new Set([0, 3, 4]);

function bytesName(bytes: number): string {
  return bytes >= MIB ? `${bytes / MIB} MiB` : `${bytes / KIB} KiB`;
}

function serverName(comparison: Comparison): string {
  const { row, server } = comparison;
  const kinds = {
    pattern: 'memory',
    scratch: 'memory',
    null: 'null',
    extents: 'extentlist',
    burst: 'extents',
  } as const;
  const notes = [row.transport, ...(row.tls ? ['TLS'] : []), ...(row.replies === 'structured' ? [] : [row.replies])];
  return `${server === 'nbdkit' ? '' : `${server} `}${kinds[row.server]}, ${notes.join(', ')}`;
}

function number(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toPrecision(3);
}

export function ratioText({ median, min, max }: Spread): string {
  return `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`;
}

/** Bytes of data that an operation moves. */
function bytesPerOp({ op, size }: Row): number {
  return op.startsWith('p') ? size : 0;
}

function figures(summary: Summary): string[] {
  return [
    number(summary.opsPerSecond),
    summary.megabytesPerSecond === 0 ? '' : number(summary.megabytesPerSecond),
    number(summary.cpuUsPerOp),
    summary.p50 === 0 ? '–' : number(summary.p50),
    summary.p99 === 0 ? '–' : number(summary.p99),
    summary.peakMib === 0 ? '–' : number(summary.peakMib),
  ];
}

const LABELS: Record<PeerName, string> = {
  libnbd: 'libnbd, C',
  python: 'libnbd, Python',
  vates: '@vates/nbd-client',
  fio: 'fio',
  floor: 'floor',
  ceiling: 'ceiling',
  baseline: 'earlier build',
  connection: 'one connection',
};

function lines(comparison: Comparison): string[][] {
  const { row, peer, goal, program, pairs, gap } = comparison;
  const depth = row.window === undefined ? String(row.depth) : `${row.depth}, ${row.window} on the wire`;
  const name = row.ops === undefined ? row.op : `${row.op} × ${row.ops.toLocaleString('en-US')}`;
  const what = [
    row.pool === undefined ? name : `${name}, pool of ${row.pool}`,
    row.extents === undefined ? bytesName(row.size) : `${row.extents.toLocaleString('en-US')} extents`,
    depth,
  ];
  const where = serverName(comparison);
  if (gap !== undefined)
    return [[...what, where, LABELS[peer], `not measured: ${gap}`, '', '', '', '', '', '', '', '']];
  const bytes = bytesPerOp(row);
  const ours = summarize(
    pairs.map((pair) => pair.ours),
    bytes,
  );
  const theirs = summarize(
    pairs.map((pair) => pair.peer),
    bytes,
  );
  const cpu = cpuRatio(pairs);
  return [
    [
      ...what,
      where,
      program,
      ...figures(ours),
      cpu.toFixed(2),
      ratioText(ratios(pairs)),
      goal === 0 ? '' : `≥ ${goal}`,
    ],
    ['', '', '', '', LABELS[peer], ...figures(theirs), '', '', ''],
  ];
}

function textTable(headers: readonly string[], rows: readonly string[][], words: ReadonlySet<number>): string {
  // A cell with the reason why nothing was measured may run over the empty cells behind it.
  const isLong = (cell: string): boolean => cell.startsWith('not measured');
  const widths = headers.map((header, i) =>
    Math.max(header.length, ...rows.map((row) => (isLong(row[i] ?? '') ? 0 : (row[i] ?? '').length))),
  );
  const line = (row: readonly string[]): string => {
    const gap = row.findIndex(isLong);
    const cells = gap === -1 ? row : row.slice(0, gap + 1);
    return cells
      .map((cell, i) => (words.has(i) || isLong(cell) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  };
  return [line(headers), line(widths.map((width) => '─'.repeat(width))), ...rows.map(line), ''].join('\n');
}

function markdownTable(headers: readonly string[], rows: readonly string[][], words: ReadonlySet<number>): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const rule = headers.map((_, i) => (words.has(i) ? '---' : '--:'));
  return [line(headers), line(rule), ...rows.map(line), ''].join('\n');
}

export function renderComparisons(comparisons: readonly Comparison[], markdown: boolean): string {
  return (markdown ? markdownTable : textTable)(HEADERS, comparisons.flatMap(lines), WORDS);
}

export function renderWhole(whole: readonly WholeResult[], markdown: boolean): string {
  const headers = ['whole command', 'peer', 'time, ours / peer (min–max)', 'goal'];
  const rows = whole.map((each) => [each.id, each.peer, wholeText(each), each.goal === 0 ? '' : `≤ ${each.goal}`]);
  return (markdown ? markdownTable : textTable)(headers, rows, new Set([0, 1, 2]));
}

export function renderChecks(checks: readonly Check[], markdown: boolean): string {
  const rows = checks.map(({ name, figure, goal }) => [name, figure, goal]);
  return (markdown ? markdownTable : textTable)(['check', 'figure', 'goal'], rows, new Set([0, 1, 2]));
}

/** One line about a comparison that has just ended. */
export function renderProgress(comparison: Comparison): string {
  const { row, peer, pairs, gap } = comparison;
  const result =
    gap === undefined
      ? `${ratioText(ratios(pairs))}  ${number(spread(pairs.map(({ ours }) => ours.ops / ours.seconds)).median)} op/s`
      : `not measured: ${gap}`;
  return `${row.id.padEnd(24)} ${LABELS[peer].padEnd(18)} ${result}\n`;
}

/** Flat runs: how much the slowest tenth fell behind, and the memory between the second tenth and the last. */
export function renderEvenness(comparisons: readonly Comparison[]): Check[] {
  return comparisons.flatMap(({ row, pairs }) => {
    const run = pairs[0]?.ours;
    const { partSeconds = [], partRssKib = [] } = run ?? {};
    if (row.ops === undefined || partSeconds.length === 0) return [];
    const rates = partSeconds.map((seconds) => (row.ops ?? 0) / partSeconds.length / seconds);
    const { median, min } = spread(rates);
    const [second = 0, last = 0] = [partRssKib[1], partRssKib.at(-1)];
    const figure =
      `slowest tenth ${((100 * min) / median).toFixed(0)} % of the median; ` +
      `memory ${(second / KIB).toFixed(0)} MiB after two tenths, ${(last / KIB).toFixed(0)} MiB at the end`;
    return [{ name: `${row.id}: even`, figure, goal: 'flat', values: { rates, partRssKib } }];
  });
}

export function toJson(
  system: object,
  comparisons: readonly Comparison[],
  whole: readonly WholeResult[],
  checks: readonly Check[],
): string {
  const rows = comparisons.map((comparison) => {
    const { row, peer, goal, server, program, pairs, gap } = comparison;
    if (gap !== undefined) return { ...row, peers: undefined, peer, server, program, gap };
    const bytes = bytesPerOp(row);
    const ours = pairs.map((pair) => pair.ours);
    const theirs = pairs.map((pair) => pair.peer);
    return {
      ...row,
      peers: undefined,
      peer,
      server,
      program,
      goal: goal === 0 ? undefined : goal,
      ratio: ratios(pairs),
      cpuRatio: cpuRatio(pairs),
      ours: summarize(ours, bytes),
      theirs: summarize(theirs, bytes),
      pairs,
    };
  });
  return `${JSON.stringify({ system, seed: SEED, rows, whole, checks }, null, 2)}\n`;
}
