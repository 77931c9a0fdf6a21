// Waiting for the end of a program that a connection has started, and what its end says of what was written to it.

import { NbdConnectionError } from '../../errors.js';
import type { Subprocess } from '../../transport/subprocess.js';

/**
 * Resolves when the program has ended. One that may hold data has all the time that it needs: what was written is safe
 * when it has put it away, and not before. Any other is waited for until the deadline.
 *
 * @param deadline As Date.now() counts.
 * @param isNews False when commands have failed with how it ended.
 * @throws NbdConnectionError `EIO` when it was written to and has failed.
 */
export async function endOfProgram(subprocess: Subprocess, deadline: number, isNews: boolean): Promise<void> {
  await subprocess.endedWithin(subprocess.mayHoldData ? Infinity : Math.max(0, deadline - Date.now()));
  if (subprocess.tookData?.() !== true || !isNews) return;
  const failure = await subprocess.failure();
  if (failure === null) return;
  throw new NbdConnectionError(`shutdown: ${failure}; what was written to it may be lost`, {
    code: 'EIO',
    syscall: 'shutdown',
  });
}

/** How long a program may take to end by SIGTERM once nobody waits for it any more. */
const PATIENCE = 1000;

/**
 * A shutdown that can be given up: then the connection is closed, the program is ended, by force if need be, and what
 * it has not put away is lost. Rejects with the signal's reason at once.
 */
export function abortable(
  ended: Promise<void>,
  signal: AbortSignal,
  connection: { close(): void; readonly target: { readonly subprocess?: Subprocess | null } | null },
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
