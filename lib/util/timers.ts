// Timers that also work in test environments that replace them.

import { setImmediate as nodeImmediate } from 'node:timers';

/** Calls back in the next turn of the event loop. jsdom removes the global setImmediate. */
export function inNextTurn(callback: () => void): void {
  if (typeof (setImmediate as unknown) === 'function') setImmediate(callback);
  else nodeImmediate(callback);
}

/**
 * Lets the process exit while the timer is pending. The timers of jsdom and of some mocks are numbers without this
 * method: they never keep the process alive.
 */
export function unrefTimer(timer: unknown): void {
  (timer as { unref?: () => unknown }).unref?.();
}
