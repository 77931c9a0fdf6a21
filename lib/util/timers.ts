// Timers under test environments that replace them.

import { setImmediate as nodeImmediate } from 'node:timers';

/** Calls back in the next turn of the event loop. jsdom takes setImmediate away. */
export function inNextTurn(callback: () => void): void {
  if (typeof (setImmediate as unknown) === 'function') setImmediate(callback);
  else nodeImmediate(callback);
}

/**
 * Lets the process end although the timer is still due. The timers of jsdom, and of some mocks, are numbers and have
 * no such method: they never keep the process alive by themselves.
 */
export function unrefTimer(timer: unknown): void {
  (timer as { unref?: () => unknown }).unref?.();
}
