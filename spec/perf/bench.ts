// `npm run bench`: ours and its peers in turn against the same servers, and a table of the ratios. See README.md.

import { writeFile } from 'node:fs/promises';
import { setPriority } from 'node:os';
import { CHECK_NAMES, runChecks } from './harness/checks.js';
import { Gap, measurePairs } from './harness/measure.js';
import { type BenchOptions, readOptions } from './harness/options.js';
import { Peers } from './harness/peers.js';
import { type PeerName, ROWS, type Row } from './harness/rows.js';
import { Servers } from './harness/servers.js';
import { describeSystem, renderSystem } from './harness/system.js';
import {
  type Comparison,
  renderChecks,
  renderComparisons,
  renderEvenness,
  renderProgress,
  renderWhole,
  toJson,
} from './harness/table.js';
import { measureWhole, WHOLE_ROWS } from './harness/whole.js';
import { makeWorkshop } from './harness/workshop.js';

/** The whole name of a row means that row, anything else all that have it in their names. */
function isMeant(row: Row, part: string): boolean {
  return ROWS.some(({ id }) => id === part) ? row.id === part : row.id.includes(part);
}

function selectRows(options: BenchOptions): Row[] {
  return ROWS.filter((row) => {
    if (options.only.length > 0) return options.only.some((part) => isMeant(row, part));
    return options.mode === 'full' || (options.mode === 'quick' ? row.quick : row.smoke);
  });
}

function selectPeers(row: Row, options: BenchOptions): PeerName[] {
  if (options.against !== undefined) return ['baseline'];
  const names = Object.keys(row.peers) as PeerName[];
  if (options.peers.length > 0) return names.filter((name) => options.peers.includes(name));
  if (options.mode === 'full') return names;
  return names.filter((name) => name === 'libnbd' || (name === 'floor' && row.peers.floor !== 0));
}

/** A run that has to end in time leaves out what it has no time for, by name. */
function checkTime(options: BenchOptions): void {
  if (performance.now() > options.budget * 1000) throw new Gap('no time left in this run');
}

async function compare(
  row: Row,
  peer: PeerName,
  servers: Servers,
  peers: Peers,
  options: BenchOptions,
): Promise<Comparison> {
  const program = options.ceiling ? ('ceiling' as const) : ('nbd-sdk' as const);
  const about = { row, peer, program, goal: row.peers[peer] ?? 0 };
  let server = 'nbdkit';
  try {
    checkTime(options);
    const { name, uri } = await servers.get(row);
    server = name;
    const pairs = await measurePairs(
      await peers.ours(row, uri),
      await peers.command(peer, row, uri),
      // A run of a given number of commands is long enough to be even by itself.
      row.ops === undefined ? options.pairs : Math.min(options.pairs, 2),
    );
    if (!options.ceiling && !row.op.toLowerCase().includes('cache') && pairs.some(({ ours }) => ours.verified === 0)) {
      throw new Error('nothing of what was moved has been verified');
    }
    return { ...about, server, pairs };
  } catch (error) {
    if (!(error instanceof Gap)) {
      process.stderr.write(`${row.id}, ${peer}: ${(error as Error).message}\n`);
      process.exitCode = 1;
    }
    return { ...about, server, pairs: [], gap: (error as Error).message.split('\n')[0] ?? '' };
  }
}

async function main(options: BenchOptions): Promise<void> {
  if (options.priority !== 0) setPriority(options.priority);
  const workshop = await makeWorkshop(options.against);
  const servers = new Servers(workshop);
  const peers = new Peers(workshop, options);
  const interrupted = (): void => {
    void servers
      .stop()
      .then(() => workshop.remove())
      .finally(() => process.exit(130));
  };
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    const system = await describeSystem();
    process.stdout.write(`${renderSystem(system)}\n`);
    const comparisons: Comparison[] = [];
    for (const row of selectRows(options)) {
      for (const peer of selectPeers(row, options)) {
        const comparison = await compare(row, peer, servers, peers, options);
        comparisons.push(comparison);
        process.stderr.write(renderProgress(comparison));
      }
    }
    const whole = await measureWhole(workshop, options);
    const checks = [...renderEvenness(comparisons), ...(await runChecks({ servers, peers, workshop, options }))];
    if (comparisons.length > 0) process.stdout.write(`\n${renderComparisons(comparisons, options.markdown)}`);
    if (whole.length > 0) process.stdout.write(`\n${renderWhole(whole, options.markdown)}`);
    if (checks.length > 0) process.stdout.write(`\n${renderChecks(checks, options.markdown)}`);
    await writeFile(options.json, toJson(system, comparisons, whole, checks));
    process.stdout.write(`\n${options.json}\n`);
  } finally {
    await servers.stop();
    await workshop.remove();
  }
}

function readCommandLine(): BenchOptions | undefined {
  try {
    return readOptions(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 2;
    return undefined;
  }
}

const options = readCommandLine();
if (options?.list === true)
  process.stdout.write(
    [...ROWS, ...WHOLE_ROWS]
      .map(({ id }) => id)
      .concat(CHECK_NAMES)
      .join('\n') + '\n',
  );
else if (options !== undefined) await main(options);
