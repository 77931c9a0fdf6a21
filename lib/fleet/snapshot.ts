// The state of a fleet at one moment, as Redis has it.

import type { FleetKind } from './job.js';
import { makeMask, type Mask } from './mask.js';
import type { FleetFailure, FleetReason } from './reason.js';
import type { Phase } from './redis/keys.js';
import type { Store } from './redis/store.js';

/** Numbers of exports. */
export interface FleetExportCounts {
  /** All exports, settled or not. */
  readonly total: number;
  /** Those of which every range is done. */
  readonly done: number;
  /** Those of which a range failed for good. */
  readonly failed: number;
  /** Those that were cancelled. */
  readonly cancelled: number;
  /** Those that could not be planned. */
  readonly unplanned: number;
}

/** Numbers of ranges. The verification of a range is a range too. */
export interface FleetRangeCounts {
  /** All ranges. */
  readonly total: number;
  /** Those that are done. */
  readonly done: number;
  /** Those that failed for good. */
  readonly failed: number;
  /** Those that live workers are working on. */
  readonly running: number;
}

/** A worker that has reported. */
export interface FleetWorkerState {
  /** The name of the worker: host name and process id, unless it was given one. */
  readonly name: string;
  /** Ranges that it is working on. */
  readonly ranges: number;
  /** Milliseconds since it reported last. */
  readonly seen: number;
  /** Whether it has reported within the time of a lease. */
  readonly isAlive: boolean;
}

/** What was done on a server. A range between two servers counts for both. */
export interface FleetServerState {
  /** `host:port`, or the path of a socket. */
  readonly name: string;
  /** Ranges that use it now. */
  readonly running: number;
  /** Ranges that are done. */
  readonly ranges: number;
  /** Bytes of data in them. */
  readonly bytes: bigint;
  /** Bytes that were read, or asked for. */
  readonly moved: bigint;
  /** Bytes per second of one range, on average. */
  readonly rate: number;
  /** Attempts that failed, and were put back. */
  readonly retries: number;
  /** Ranges that failed for good. */
  readonly failures: number;
}

/** A fleet at one moment. */
export interface FleetSnapshot {
  /** The identity of the fleet's state in Redis; empty where nothing was planned. */
  readonly id: string;
  /** Whether workers take no ranges: {@link pause}. */
  readonly paused: boolean;
  /** Whether every export is done, failed, cancelled, or could not be planned. */
  readonly settled: boolean;
  /** Exports, by their state. */
  readonly exports: FleetExportCounts;
  /** Ranges, by their state. */
  readonly ranges: FleetRangeCounts;
  /** Bytes of data in ranges. What was copied and is verified counts twice. */
  readonly bytes: {
    /** In all ranges. */
    readonly total: bigint;
    /** In what is done of them. */
    readonly done: bigint;
  };
  /** Bytes that were read, or asked for. */
  readonly moved: bigint;
  /** Attempts that failed, and were put back. */
  readonly retries: number;
  /** Workers that have reported, sorted by their names. */
  readonly workers: readonly FleetWorkerState[];
  /** Servers, sorted by their names. */
  readonly servers: readonly FleetServerState[];
}

/** What became of an export. */
export interface FleetExport {
  /** The identity: what {@link cancel} and {@link retry} take. */
  readonly id: string;
  /** What is done with it. */
  readonly kind: FleetKind;
  /** The URI of its source, or its name where `resolve` makes URIs of names. */
  readonly source: string;
  /** The same of the destination; null for a job without a destination. */
  readonly destination: string | null;
  /** `planning`: a planner is at it, or was interrupted. `planned`: there are ranges left. */
  readonly state: 'planning' | 'planned' | 'done' | 'failed' | 'cancelled' | 'unplanned';
  /** Bytes of the source; 0 before it was planned. */
  readonly size: bigint;
  /** Ranges of its work. */
  readonly ranges: {
    /** All of them. */
    readonly total: number;
    /** Those that are done. */
    readonly done: number;
    /** Those that failed for good. */
    readonly failed: number;
  };
  /** Bytes of data in them. */
  readonly bytes: {
    /** In all ranges. */
    readonly total: bigint;
    /** In those that are done. */
    readonly done: bigint;
  };
  /** Ranges that are compared after copying; null where none are. */
  readonly verified: {
    /** All of them. */
    readonly total: number;
    /** Those that were compared, and are equal. */
    readonly done: number;
  } | null;
  /** Bytes that were read, or asked for. */
  readonly moved: bigint;
  /** Attempts that failed, and were put back. */
  readonly retries: number;
  /** Milliseconds since 1970; null before. */
  readonly startedAt: number | null;
  /** Milliseconds since 1970; null before. */
  readonly endedAt: number | null;
  /** The block hash of a `hash`, in hexadecimal. */
  readonly hash: string | null;
  /** Why it could not be planned, or why a range was tried again last. */
  readonly reason: FleetReason | null;
}

const count = (value: string | null | undefined): number => Number(value ?? 0);
const big = (value: string | null | undefined): bigint => BigInt(value ?? 0);

/** The identity of the fleet's state; empty where nothing was planned. */
export async function identityIn(store: Store): Promise<string> {
  return (await store.client.hget(store.keys.info, 'id')) ?? '';
}

export async function takeSnapshot(store: Store, isMasked: boolean): Promise<FleetSnapshot> {
  const { client, keys, queue } = store;
  const [id, totals, running, workers, names, time, paused] = await Promise.all([
    identityIn(store),
    client.hgetall(keys.totals),
    client.hgetall(keys.running),
    client.hgetall(keys.workers),
    client.smembers(keys.servers),
    client.time(),
    queue.isPaused(),
  ]);
  const mask = makeMask(isMasked, id);
  const now = Number(time[0]) * 1000 + Math.floor(Number(time[1]) / 1000);
  const states = new Map(Object.entries(workers).map(([worker, text]) => [worker, workerOf(text, now, mask)]));
  const active = Object.values(running).map((text) => text.split(' ', 2) as [done: string, worker: string]);
  const alive = active.filter(([, worker]) => states.get(worker)?.isAlive === true);
  const exports = {
    total: count(totals['exports']),
    done: count(totals['done']),
    failed: count(totals['failed']),
    cancelled: count(totals['cancelled']),
    unplanned: count(totals['unplanned']),
  };
  const bytesDone = alive.reduce((sum, [done]) => sum + big(done), big(totals['bytesDone']));
  const total = big(totals['bytes']);
  return {
    id,
    paused,
    settled: exports.done + exports.failed + exports.cancelled + exports.unplanned >= exports.total,
    exports,
    ranges: {
      total: count(totals['ranges']),
      done: count(totals['rangesDone']),
      failed: count(totals['rangesFailed']),
      running: alive.length,
    },
    // The zeroes of a range count while it runs, and not in the total.
    bytes: { total, done: bytesDone < total ? bytesDone : total },
    moved: big(totals['moved']),
    retries: count(totals['retries']),
    workers: [...states.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),
    servers: await Promise.all(names.sort().map((name) => serverIn(store, name, mask, now))),
  };
}

function workerOf(text: string, now: number, mask: Mask): FleetWorkerState {
  const space = text.indexOf(' ');
  const seen = now - Number(text.slice(0, space));
  const { name, lease, ranges } = JSON.parse(text.slice(space + 1)) as { name: string; lease: number; ranges: number };
  return { name: mask.name(name), ranges, seen, isAlive: seen <= lease };
}

async function serverIn({ client, keys }: Store, name: string, mask: Mask, now: number): Promise<FleetServerState> {
  const [fields, running] = await Promise.all([
    client.hgetall(keys.server(name)),
    client.zcount(keys.slots(name), now, '+inf'),
  ]);
  const moved = big(fields['moved']);
  const time = count(fields['milliseconds']);
  return {
    name: mask.name(name),
    running,
    ranges: count(fields['ranges']),
    bytes: big(fields['bytes']),
    moved,
    rate: time === 0 ? 0 : (Number(moved) * 1000) / time,
    retries: count(fields['retries']),
    failures: count(fields['failures']),
  };
}

/** Exports that are asked for at a time. */
const BATCH = 200;

/** All exports in the order of their planning, and what failed of them. */
export async function* exportsIn(
  store: Store,
  mask: Mask,
): AsyncGenerator<{ readonly found: FleetExport; readonly failures: FleetFailure[] }, void, undefined> {
  for (let start = 0; ; start += BATCH) {
    const ids = await store.client.zrange(store.keys.exports, start, start + BATCH - 1);
    yield* await Promise.all(ids.map((id) => exportIn(store, id, mask)));
    if (ids.length < BATCH) return;
  }
}

async function exportIn(
  store: Store,
  id: string,
  mask: Mask,
): Promise<{ found: FleetExport; failures: FleetFailure[] }> {
  const { client, keys } = store;
  const fields = await client.hgetall(keys.export(id));
  const { kind, source, destination } = JSON.parse(fields['job'] ?? '{}') as {
    kind: FleetKind;
    source: string;
    destination: string | null;
  };
  const failed = count(fields['failed']);
  const done = count(fields['workDone']);
  const total = count(fields['ranges']);
  const shown = {
    ...{ id, kind },
    source: mask.name(source),
    destination: destination === null ? null : mask.name(destination),
  };
  const reason = fields['reason'] ?? fields['lastError'];
  const found: FleetExport = {
    ...shown,
    state: fields['state'] as FleetExport['state'],
    size: big(fields['size']),
    ranges: { total, done, failed },
    bytes: { total: big(fields['bytes']), done: big(fields['workBytes']) },
    verified: fields['verify'] === '1' ? { total, done: count(fields['verifyDone']) } : null,
    moved: big(fields['moved']),
    retries: count(fields['retries']),
    startedAt: fields['startedAt'] === undefined ? null : count(fields['startedAt']),
    endedAt: fields['endedAt'] === undefined ? null : count(fields['endedAt']),
    hash: fields['result'] ?? null,
    reason: reason === undefined ? null : mask.reason(JSON.parse(reason) as FleetReason),
  };
  if (found.state === 'unplanned' && found.reason !== null) return { found, failures: [{ ...shown, ...found.reason }] };
  if (failed === 0) return { found, failures: [] };
  const letters = await client.hvals(keys.failed(id));
  return { found, failures: letters.map((letter) => ({ ...shown, ...mask.reason(letterOf(letter)) })) };
}

function letterOf(text: string): Omit<FleetFailure, 'id' | 'kind' | 'source' | 'destination'> {
  const letter = JSON.parse(text) as FleetReason & {
    phase: Phase;
    start: string;
    length: string;
    attempts: number;
    at: number;
  };
  const { code, name, message, syscall, offset, phase, start, length, attempts, at } = letter;
  return {
    ...{ code, name, message, syscall, offset, phase, attempts, at },
    start: BigInt(start),
    length: BigInt(length),
  };
}
