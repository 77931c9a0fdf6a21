// Runs one row of a table: a scripted peer, our client, the scenario; then the outcome and the invariants that hold
// whatever the outcome is. An unhandled rejection fails the test by jest's own handler.

import { setTimeout as delay } from 'node:timers/promises';

import { NbdConnection, type NbdConnectionOptions } from '../../lib/index.js';
import { type PeerScript, ScriptedPeer } from '../../lib/testing/index.js';
import { leftovers, resources } from '../support/leftovers.js';
import { type OperationResult, type WireCase } from './notation.js';
import { describe, mismatch, type Observation, outcomeName, PROMPTLY } from './outcomes.js';
import { Scenario, WrongData } from './scenario.js';

/** Every promise of a case has settled by then. */
const DEADLINE = 120_000;
const CLOSE_TIMEOUT = 500;
/** CPU time, in milliseconds, that one turn of the event loop may take in a case with large replies. */
const MAX_BLOCKED = 2000;

/** Lines of the printed table. */
export interface Verdict {
  readonly id: string;
  readonly expected: string;
  readonly seen: string;
  readonly passed: boolean;
}

/** Every verdict of this test file, in order. */
export const verdicts: Verdict[] = [];

export interface RunOptions {
  /** Added to every row's script, such as a certificate. */
  readonly script?: PeerScript;
  readonly client?: NbdConnectionOptions;
}

/** Runs a row; throws with the whole story when it does not pass. */
export async function runCase(row: WireCase, more: RunOptions = {}): Promise<void> {
  const before = resources();
  const played = await play(row, more);
  report(row, played.seen, [...played.problems, ...(await leftovers(before))]);
}

const AT_ONCE = 8;

/**
 * Runs many rows, some at once, in a fraction of the time. What they leave behind is known for all of them together.
 */
export async function runTogether(
  rows: readonly WireCase[],
  more: RunOptions = {},
): Promise<{ readonly failures: ReadonlyMap<string, unknown>; readonly left: readonly string[] }> {
  const before = resources();
  const failures = new Map<string, unknown>();
  const queue = [...rows];
  const worker = async (): Promise<void> => {
    for (let row = queue.shift(); row !== undefined; row = queue.shift()) {
      try {
        const { seen, problems } = await play(row, more);
        report(row, seen, problems);
      } catch (error) {
        failures.set(row.id, error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return { failures, left: await leftovers(before) };
}

/** A row up to the end of its connection and its peer. */
async function play(row: WireCase, more: RunOptions): Promise<{ seen: Observation; problems: string[] }> {
  const watch = row.memory === undefined ? undefined : new Watch();
  const peer = await ScriptedPeer.listen({ ...more.script, ...row.script }, { transport: row.transport ?? 'unix' });
  const client = new NbdConnection({
    connectTimeout: row.timeout ?? 0,
    requestTimeout: row.timeout ?? 0,
    closeTimeout: CLOSE_TIMEOUT,
    ...more.client,
    ...row.client,
  });
  const scenario = new Scenario(client, row.zeroes === true);
  try {
    await settled(act(client, peer, scenario, row.user ?? 'R'));
    const grown = watch?.stop();
    const seen = await observe(row, client, peer, scenario);
    const problems = judge(row, seen, scenario);
    if (grown !== undefined) problems.push(...grown.problems(row.memory ?? 0, row.heavy === true));
    problems.push(...(await probe(client)));
    client.close();
    client.close();
    await peer.stop();
    return { seen, problems };
  } finally {
    watch?.stop();
    client.close();
    await peer.stop();
  }
}

async function act(client: NbdConnection, peer: ScriptedPeer, scenario: Scenario, user: string): Promise<void> {
  const { socketPath, host = '', port = 0 } = peer;
  const connected = await scenario.record('connect', () =>
    socketPath === undefined ? client.connectTcp(host, port) : client.connectUnix(socketPath),
  );
  if (connected.status === 'resolved') await scenario.run(user);
}

/** I1: waits for the scenario, but not for ever. */
async function settled(scenario: Promise<void>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([scenario, delay(DEADLINE, undefined, { signal: timer.signal }).catch(() => undefined)]);
  timer.abort();
}

async function observe(
  row: WireCase,
  client: NbdConnection,
  peer: ScriptedPeer,
  scenario: Scenario,
): Promise<Observation> {
  const record = peer.connection;
  const closes = row.expected.map(({ kind }) => !['OK', 'F', 'L', 'E', 'local'].includes(kind));
  const isOpen = (): boolean => ['ready', 'processing', 'negotiating'].includes(client.connectionState());
  const start = performance.now();
  // One that may live on and does is not waited for.
  const isEnding = (): boolean => closes.every(Boolean) || (closes.some(Boolean) && !isOpen());
  while (!record.isOver && performance.now() - start < (isEnding() ? PROMPTLY : 50)) await delay(5);
  const closedAfter = record.isOver ? performance.now() - start : undefined;
  const state = client.connectionState();
  const later: OperationResult = { name: 'later pread', status: 'pending', took: 0 };
  if (!isOpen()) {
    const begin = performance.now();
    await settled(
      client.pread(512, 0).then(
        () => void (later.status = 'resolved'),
        (error: unknown) => {
          later.status = 'rejected';
          later.error = error;
        },
      ),
    );
    later.took = performance.now() - begin;
  }
  return { row, results: scenario.results, record, closedAfter, later, state };
}

/** A connection that reports to be alive is usable: one more read, at a place that no row touches. */
async function probe(client: NbdConnection): Promise<string[]> {
  const count = 512;
  const offset = 65536;
  if (client.connectionState() !== 'ready' || client.getSize() < BigInt(offset + count)) return [];
  const scenario = new Scenario(client, false);
  await settled(scenario.run(`pread ${count} ${offset}`));
  const complaints = scenario.results
    .filter(({ status }) => status !== 'resolved')
    .map((result) => `the connection does not live: ${describe(result)}`);
  return [...complaints, ...attempt(() => scenario.checkBuffers())];
}

function judge(row: WireCase, seen: Observation, scenario: Scenario): string[] {
  const problems: string[] = [];
  for (const result of seen.results) {
    if (result.status === 'pending') problems.push(`${result.name} never settled`);
    if (result.error instanceof WrongData) problems.push(result.error.message);
  }
  const reasons = row.expected.map((outcome) => ({ outcome, reason: mismatch(outcome, seen) }));
  if (reasons.every(({ reason }) => reason !== undefined)) {
    problems.push(...reasons.map(({ outcome, reason }) => `not ${outcomeName(outcome)}: ${reason}`));
  }
  problems.push(...attempt(() => row.check?.(seen.results, seen.record)), ...attempt(() => scenario.checkBuffers()));
  const violations = seen.record.violations.filter((text) => !(row.mayViolate?.test(text) ?? false));
  problems.push(...violations.map((text) => `the client sent what is forbidden: ${text}`));
  return problems;
}

function attempt(check: () => void): string[] {
  try {
    check();
    return [];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}

function report(row: WireCase, seen: Observation, problems: readonly string[]): void {
  const { ending, options, commands, violations } = seen.record;
  const closing = seen.closedAfter === undefined ? 'open' : ending;
  const story = `${seen.results.map(describe).join('; ')}; ${seen.state}, ${closing}`;
  verdicts.push({
    id: row.id,
    expected: row.expected.map(outcomeName).join('|'),
    seen: story,
    passed: problems.length === 0,
  });
  if (problems.length === 0) return;
  const sent = `options ${options.map(({ option }) => option).join(' ')}; commands ${commands.map(({ type }) => type).join(' ')}`;
  throw new Error(
    [`${row.id}, ${row.what}`, ...problems, `seen: ${story}`, `sent: ${sent}`, ...violations].join('\n  '),
  );
}

/** I5 and I6: memory and the event loop, watched while a case runs. */
class Watch {
  readonly #start = process.memoryUsage.rss();
  readonly #timer: NodeJS.Timeout;
  #peak = 0;
  #blocked = 0;

  constructor() {
    let last = process.cpuUsage();
    let then = performance.now();
    this.#timer = setInterval(() => {
      // On a busy machine the clock goes on while this process waits for its turn: the smaller one counts.
      const { user, system } = process.cpuUsage(last);
      const now = performance.now();
      this.#blocked = Math.max(this.#blocked, Math.min((user + system) / 1000, now - then));
      last = process.cpuUsage();
      then = now;
      this.#peak = Math.max(this.#peak, process.memoryUsage.rss());
    }, 10);
  }

  stop(): { problems: (limit: number, isHeavy: boolean) => string[] } {
    clearInterval(this.#timer);
    const grown = Math.round((Math.max(this.#peak, process.memoryUsage.rss()) - this.#start) / 2 ** 20);
    const blocked = Math.round(this.#blocked);
    return {
      problems: (limit, isHeavy) => [
        ...(grown > limit ? [`RSS grew by ${grown} MiB`] : []),
        ...(blocked > MAX_BLOCKED && !isHeavy ? [`one turn of the event loop took ${blocked} ms`] : []),
      ],
    };
  }
}

/** Prints what was seen: everything with WIRE_TABLE=1, else only what failed. */
export function printVerdicts(): void {
  const lines = verdicts
    .filter(({ passed }) => !passed || process.env['WIRE_TABLE'] === '1')
    .map(({ id, expected, seen, passed }) => `${passed ? ' ' : '!'} ${id.padEnd(12)} ${expected.padEnd(24)} ${seen}`);
  if (lines.length > 0) process.stdout.write(`${lines.join('\n')}\n`);
}
