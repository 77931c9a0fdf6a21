// Waits for the exit of a program that a connection has started, and judges by it whether written data is safe.

import { NbdConnectionError } from '../../errors.js';
import { nodeModule } from '../../util/platform.js';
import { refuse, shown } from '../options/checks.js';

/** What a connection knows of the program that it has started. */
export interface StartedProgram {
  readonly pid: number;
  readonly isRunning: boolean;
  readonly mayHoldData: boolean;
  /** Set by the connection: whether it has written. */
  tookData: (() => boolean) | null;
  endedWithin(delay: number): Promise<unknown>;
  failure(): Promise<string | null>;
  endNow(patience: number): void;
  kill(signal: number): boolean;
}

/**
 * Resolves when the program has exited. A program that may hold data may take as long as it needs: what was written is
 * not safe before it has been stored. Any other program is waited for until the deadline.
 *
 * @param deadline In milliseconds, on the clock of Date.now().
 * @param isNews False if commands have already failed because of this exit.
 * @throws NbdConnectionError `EIO` if the program took writes and failed.
 */
export async function endOfProgram(subprocess: StartedProgram, deadline: number, isNews: boolean): Promise<void> {
  await subprocess.endedWithin(subprocess.mayHoldData ? Infinity : Math.max(0, deadline - Date.now()));
  if (subprocess.tookData?.() !== true || !isNews) return;
  const failure = await subprocess.failure();
  if (failure === null) return;
  throw new NbdConnectionError(`shutdown: ${failure}; what was written to it may be lost`, {
    code: 'EIO',
    syscall: 'shutdown',
  });
}

/** Milliseconds between SIGTERM and SIGKILL after the caller has stopped waiting. */
const PATIENCE = 1000;

/**
 * Makes a shutdown abortable. An abort rejects with the signal's reason at once, closes the connection and ends the
 * program, by force if need be; data that the program has not stored is lost.
 */
export function abortable(
  ended: Promise<void>,
  signal: AbortSignal,
  connection: { close(): void; readonly target: { readonly subprocess?: StartedProgram | null } | null },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      reject(signal.reason as Error);
      connection.close();
      connection.target?.subprocess?.endNow(PATIENCE);
    };
    const settled = (): void => {
      signal.removeEventListener('abort', onAbort);
    };
    ended.finally(settled).then(resolve, reject);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
}

/** The running program of a target. */
export function programOf(
  method: string,
  target: { readonly subprocess?: StartedProgram | null } | null,
): StartedProgram {
  const program = target?.subprocess;
  if (program?.isRunning === true) return program;
  throw refuse(method, 'this connection has no running subprocess', 'ESRCH');
}

export function killProgram(method: string, target: Parameters<typeof programOf>[1], signal: unknown): void {
  const program = programOf(method, target);
  const signals: Readonly<Record<string, number | undefined>> = nodeModule('node:os')?.constants.signals ?? {};
  const number = typeof signal === 'string' ? signals[signal] : signal === 0 ? signals['SIGTERM'] : signal;
  if (typeof number !== 'number' || !Object.values(signals).includes(number)) {
    throw refuse(method, `must be the number or the name of a signal, not ${shown(signal)}`);
  }
  if (!program.kill(number)) throw refuse(method, 'this connection has no running subprocess', 'ESRCH');
}
