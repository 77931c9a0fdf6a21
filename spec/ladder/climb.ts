// Tries rungs with a server, and draws the matrix of what came out.

import { type NbdConnection, NbdConnection as Connection, type NbdConnectionOptions } from '../../lib/index.js';
import { EXPORT, SCRATCH, SCRATCHES } from './image.js';
import { type Group, type Rung, type Stage, type Verdict } from './rung.js';
import { type LadderServer } from './servers.js';

/** A rung with its place on the ladder. */
export interface NumberedRung {
  readonly number: number;
  readonly title: string;
  readonly run: Rung;
}

export interface NumberedGroup {
  readonly name: string;
  readonly rungs: readonly NumberedRung[];
}

/** Numbers the rungs from 1, through all groups. */
export function numbered(groups: readonly Group[]): readonly NumberedGroup[] {
  let number = 0;
  return groups.map(({ name, rungs }) => ({
    name,
    rungs: Object.entries(rungs).map(([title, run]) => ({ number: ++number, title, run })),
  }));
}

/** What came of a rung: a verdict, or what it failed with. */
export type Cell = Verdict | { readonly failed: unknown };

export const isFailed = (cell: Cell): cell is { readonly failed: unknown } =>
  typeof cell === 'object' && 'failed' in cell;

/** Longer than any rung takes on a busy machine, shorter than a test's limit. */
const RUNG_DEADLINE = 240_000;

/** Tries one rung; whatever it opened is ended afterwards. */
export async function climb(server: LadderServer, rung: NumberedRung): Promise<Cell> {
  const opened: NbdConnection[] = [];
  const create = (options: NbdConnectionOptions = {}): NbdConnection => {
    const connection = new Connection({ exportName: EXPORT, ...options });
    opened.push(connection);
    return connection;
  };
  const connect = async (options?: NbdConnectionOptions): Promise<NbdConnection> => {
    const connection = create(options);
    await connection.connectUnix(server.path);
    return connection;
  };
  const stage: Stage = {
    server,
    create,
    connect,
    negotiate: (options) => connect({ ...options, optMode: true }),
    connectReadOnly: async (options) => {
      const connection = create(options);
      await connection.connectTcp(server.readOnly.host, server.readOnly.port);
      return connection;
    },
    scratch: SCRATCHES + rung.number * SCRATCH,
  };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Cell>((resolve) => {
    timer = setTimeout(() => {
      resolve({ failed: new Error(`no end within ${RUNG_DEADLINE} ms`) });
    }, RUNG_DEADLINE);
  });
  try {
    return await Promise.race([rung.run(stage), late]);
  } catch (failed) {
    return { failed };
  } finally {
    clearTimeout(timer);
    for (const connection of opened) connection.close();
  }
}

/** Thrown by a group's test: it names every rung that failed. */
export function failureOf(failures: readonly (readonly [NumberedRung, unknown])[]): Error {
  const texts = failures.map(
    ([{ number, title }, error]) =>
      `rung ${number}, ${title}:\n${error instanceof Error ? error.stack : String(error)}`,
  );
  return new Error(texts.join('\n\n'));
}

/** One row per group, a mark per rung for each server; then why a server has not what it has not. */
export function drawMatrix(groups: readonly NumberedGroup[], columns: ReadonlyMap<string, readonly Cell[]>): string {
  const total = groups.reduce((sum, { rungs }) => sum + rungs.length, 0);
  const longest = Math.max(...groups.map(({ rungs }) => rungs.length));
  const row = (first: number | string, name: string, cells: readonly string[]): string =>
    `${String(first).padStart(4)} ${name.padEnd(16)}${cells.map((cell) => cell.padEnd(longest + 1)).join('')}`.trimEnd();
  const servers = [...columns.values()];
  const reasons = [...columns].flatMap(([name, cells]) =>
    [...reasonsOf(cells)].map(([why, numbers]) => `${name.padEnd(12)} ${numbers.join(' ')}: ${why}`),
  );
  return [
    `ladder of ${total} rungs: + works, - the server has it not, X failed`,
    row('', '', [...columns.keys()]),
    ...groups.map(({ name, rungs }) =>
      row(
        rungs[0]?.number ?? '',
        name,
        servers.map((cells) => rungs.map(({ number }) => markOf(cells[number - 1])).join('')),
      ),
    ),
    row('', 'work', [...servers.map((cells) => String(cells.filter((cell) => cell === 'ok').length))]),
    ...reasons,
  ].join('\n');
}

/** The rungs that a server has not, by the reason that it gives. */
function reasonsOf(cells: readonly Cell[]): Map<string, number[]> {
  const reasons = new Map<string, number[]>();
  cells.forEach((cell, i) => {
    if (cell !== 'ok' && 'no' in cell) reasons.set(cell.no, [...(reasons.get(cell.no) ?? []), i + 1]);
  });
  return reasons;
}

/** A rung that was not tried, for example with `-t`, has no cell. */
function markOf(cell: Cell | undefined): string {
  if (cell === undefined) return ' ';
  return cell === 'ok' ? '+' : 'no' in cell ? '-' : 'X';
}
