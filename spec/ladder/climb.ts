// Tries rungs with a server, and draws the matrix of what came out.

import { type NbdConnection, type NbdConnectionOptions, NbdConnection as Connection } from '../../lib/index.js';
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

/** Longer than any rung takes on a busy machine, shorter than a test's limit. */
const RUNG_DEADLINE = 30_000;

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
    ([{ number, title }, error]) => `rung ${number}, ${title}:\n${error instanceof Error ? error.stack : String(error)}`,
  );
  return new Error(texts.join('\n\n'));
}

/** One line of marks per server, a mark per rung; then why a server has not what it has not. */
export function drawMatrix(groups: readonly NumberedGroup[], columns: ReadonlyMap<string, readonly Cell[]>): string {
  const names = [...columns.keys()];
  const width = Math.max(...names.map((name) => name.length));
  const total = groups.reduce((sum, { rungs }) => sum + rungs.length, 0);
  const tens = Array.from({ length: Math.floor(total / 10) }, (_, i) => String(10 * (i + 1)).padStart(10)).join('');
  const lines = [`${' '.repeat(width)} ${tens}`];
  const reasons: string[] = [];
  for (const [name, cells] of columns) {
    const has = cells.filter((cell) => cell === 'ok').length;
    const failed = cells.filter((cell) => typeof cell === 'object' && 'failed' in cell).length;
    const count = `${has}/${total}${failed === 0 ? '' : `, ${failed} failed`}`;
    lines.push(`${name.padEnd(width)} ${cells.map(markOf).join('')} ${count}`);
    const without = new Map<string, number[]>();
    cells.forEach((cell, i) => {
      if (typeof cell === 'object' && 'no' in cell) without.set(cell.no, [...(without.get(cell.no) ?? []), i + 1]);
    });
    for (const [why, numbers] of without) reasons.push(`${name.padEnd(width)} ${numbers.join(' ')}: ${why}`);
  }
  return [`ladder: ${total} rungs; + it has it, - it says it has not, X failed`, ...lines, ...reasons].join('\n');
}

const markOf = (cell: Cell): string => (cell === 'ok' ? '+' : 'no' in cell ? '-' : 'X');
