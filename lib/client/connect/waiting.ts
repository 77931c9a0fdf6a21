// waitFor: trying to connect again while no server is there yet.

import { NbdConnectionError, NbdOptionError } from '../../errors.js';
import { addAbortListener, removeAbortListener } from '../../util/abort.js';
import { milliseconds, type OptionCheck } from '../../util/option-checks.js';

const FIRST_DELAY = 25;
const LONGEST_DELAY = 1000;

/** Names may come to resolve, as those of containers do. */
const NAME_CODES = ['ENOTFOUND', 'EAI_AGAIN'];

/** Milliseconds; Infinity for no limit, 0 for one attempt. */
export const waitForCheck: OptionCheck<number> = (where, value) =>
  value === Infinity ? Infinity : milliseconds(where, value);

/** Whether a failure to connect may mean that the server is not up yet; one that refuses an export is. */
export function isAbsence(error: unknown): boolean {
  if (error instanceof NbdConnectionError) return error.transient || NAME_CODES.includes(error.code);
  return error instanceof NbdOptionError && error.code === 'ESHUTDOWN';
}

/**
 * Calls `attempt` until it succeeds, fails with anything but the absence of a server, or `waitFor` milliseconds have
 * passed: none begins later. Rejects with the last failure, or the signal's reason.
 */
export async function keepTrying<Result>(
  waitFor: number,
  signal: AbortSignal | undefined,
  attempt: () => Promise<Result>,
): Promise<Result> {
  const deadline = performance.now() + waitFor;
  for (let delay = FIRST_DELAY; ; delay = Math.min(2 * delay, LONGEST_DELAY)) {
    try {
      return await attempt();
    } catch (error) {
      const left = deadline - performance.now();
      if (signal?.aborted === true || left <= 0 || !isAbsence(error)) throw error;
      await pause(Math.min(delay, left), signal);
    }
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      if (signal !== undefined) removeAbortListener(signal, onAbort);
      resolve();
    }, ms);
    if (signal?.aborted === true) onAbort();
    else if (signal !== undefined) addAbortListener(signal, onAbort);
  });
}
