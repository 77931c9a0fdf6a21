// Finds other processes that have a file open: a server on this machine may serve the very file that is copied to. Works
// only on Linux, and only for processes of this user (for root, all processes); elsewhere none are found.

import { readdirSync, readFileSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { isSameFile } from '../../bulk/ends/same-file.js';

export interface Holder {
  readonly pid: number;
  readonly name: string;
  /** Whether the process has the file open for writing. */
  readonly writes: boolean;
}

const PROC = '/proc';

/**
 * The processes that have the file open and may be the server: the process `server` and its descendants, or, if `server`
 * is null, every process that has a socket.
 */
export function holdersOf(stats: Stats, server: number | null): Holder[] {
  const holders: Holder[] = [];
  for (const pid of server === null ? allProcesses() : withDescendants(server)) {
    if (pid === process.pid) continue;
    const descriptors = list(`${PROC}/${pid}/fd`);
    const held = descriptors.find((descriptor) => isHeld(`${PROC}/${pid}/fd/${descriptor}`, stats));
    if (held === undefined) continue;
    if (server === null && !descriptors.some((descriptor) => isSocket(`${PROC}/${pid}/fd/${descriptor}`))) continue;
    holders.push({ pid, name: nameOf(pid), writes: mayWrite(pid, descriptors, stats) });
  }
  return holders;
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    // The process has ended or belongs to another user, or there is no /proc.
    return [];
  }
}

const allProcesses = (): number[] =>
  list(PROC)
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

function withDescendants(root: number): number[] {
  const parents = new Map(allProcesses().map((pid) => [pid, parentOf(pid)]));
  const isWithin = (pid: number | undefined): boolean =>
    pid !== undefined && pid > 1 && (pid === root || isWithin(parents.get(pid)));
  return [...parents.keys()].filter(isWithin);
}

/** Parses `PID (NAME) STATE PPID …` from behind the name, which may contain any character. */
function parentOf(pid: number): number {
  const text = readText(`${PROC}/${pid}/stat`);
  return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1] ?? 0);
}

const nameOf = (pid: number): string => readText(`${PROC}/${pid}/comm`).trim();

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function isHeld(path: string, stats: Stats): boolean {
  try {
    return isSameFile(statSync(path), stats);
  } catch {
    return false;
  }
}

function isSocket(path: string): boolean {
  try {
    return readlinkSync(path).startsWith('socket:');
  } catch {
    return false;
  }
}

function mayWrite(pid: number, descriptors: readonly string[], stats: Stats): boolean {
  return descriptors.some((descriptor) => {
    if (!isHeld(`${PROC}/${pid}/fd/${descriptor}`, stats)) return false;
    const flags = /^flags:\s*(\d+)/m.exec(readText(`${PROC}/${pid}/fdinfo/${descriptor}`))?.[1];
    return flags !== undefined && (parseInt(flags, 8) & 3) !== 0;
  });
}
