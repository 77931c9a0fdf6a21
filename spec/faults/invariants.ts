// What must hold whatever goes wrong (I1 to I4 in spec/README.md), and the table of what was seen. An
// unhandled rejection, and an exception in a callback of a socket, fail the test by jest's own handlers.

import { setTimeout as delay } from 'node:timers/promises';

/** Every promise of a case has settled by then, on a slow machine too. */
const BOUND = 240_000;

/** The promise's end as one word: `ok`, or the error's code; `pending` when there was none within the bound. */
export async function outcome(promise: Promise<unknown>): Promise<{ readonly word: string; readonly error?: unknown }> {
  const timer = new AbortController();
  const late = delay(BOUND, { word: 'pending' }, { signal: timer.signal });
  late.catch(() => undefined);
  const settled = promise.then(
    () => ({ word: 'ok' }),
    (error: unknown) => ({ word: (error as { code?: string } | null)?.code ?? `no code: ${String(error)}`, error }),
  );
  try {
    return await Promise.race([settled, late]);
  } finally {
    timer.abort();
  }
}

/** A buffer inside a larger one: nothing around it may change, and nothing of it once it was sealed (I3). */
export class GuardedBuffer {
  static readonly #MARGIN = 4096;
  static readonly #GUARD = 0xa5;
  readonly #all: Buffer;
  readonly bytes: Buffer;
  #sealed: Buffer | undefined;

  constructor(length: number, fill = 0) {
    const margin = GuardedBuffer.#MARGIN;
    this.#all = Buffer.alloc(length + 2 * margin, GuardedBuffer.#GUARD);
    this.bytes = this.#all.subarray(margin, margin + length).fill(fill);
  }

  /** From now on the bytes are the caller's again; they are overwritten, as a caller may. */
  seal(fill?: number): void {
    if (fill !== undefined) this.bytes.fill(fill);
    this.#sealed = Buffer.from(this.bytes);
  }

  problems(): string[] {
    const margin = GuardedBuffer.#MARGIN;
    const isGuard = (part: Buffer): boolean => part.equals(Buffer.alloc(part.length, GuardedBuffer.#GUARD));
    const around = [this.#all.subarray(0, margin), this.#all.subarray(margin + this.bytes.length)];
    return [
      ...(around.every(isGuard) ? [] : ['bytes outside the buffer changed']),
      ...(this.#sealed?.equals(this.bytes) === false ? ['bytes of the buffer changed after its call had settled'] : []),
    ];
  }
}

/** One line of the printed table. */
export interface Row {
  readonly title: string;
  readonly expected: string;
  readonly seen: string;
  readonly problems: readonly string[];
}

const rows: Row[] = [];

/** Keeps the rows for the table, and fails when one is not as expected. */
export function judge(found: readonly Row[]): void {
  rows.push(...found);
  const bad = found.filter(isBad);
  if (bad.length === 0) return;
  const told = bad.map(({ title, expected, seen, problems }) =>
    [title, `expected ${expected}`, `seen     ${seen}`, ...problems].join('\n    '),
  );
  throw new Error(`${bad.length} of ${found.length} rows:\n  ${told.join('\n  ')}`);
}

const isBad = ({ expected, seen, problems }: Row): boolean => expected !== seen || problems.length > 0;

/** Prints what was seen: everything with FAULT_TABLE=1, else only what failed. */
export function printRows(): void {
  const lines = rows
    .filter((row) => process.env['FAULT_TABLE'] === '1' || isBad(row))
    .map((row) => `${isBad(row) ? '!' : ' '} ${row.title.padEnd(64)} ${row.expected.padEnd(40)} ${row.seen}`);
  if (lines.length > 0) process.stdout.write(`${lines.join('\n')}\n`);
}
