// Timers that also work in test environments that replace them, and in browsers, whose timers are numbers.

import { nodeModule } from './platform.js';

const nodeTimers = nodeModule('node:timers');

/** Waiting callbacks where there is no setImmediate: a message to oneself is the next turn, without a timer's 4 ms. */
const waiting: (() => void)[] = [];
let channel: InstanceType<typeof MessageChannel> | null = null;

function postTurn(callback: () => void): void {
  waiting.push(callback);
  if (channel === null) {
    channel = new MessageChannel();
    channel.port1.addEventListener('message', () => waiting.shift()?.());
    channel.port1.start();
  }
  channel.port2.postMessage(null);
}

/** Calls back in the next turn of the event loop. jsdom removes the global setImmediate. */
export function inNextTurn(callback: () => void): void {
  if (typeof (globalThis.setImmediate as unknown) === 'function') globalThis.setImmediate(callback);
  else if (nodeTimers !== undefined) nodeTimers.setImmediate(callback);
  else postTurn(callback);
}

/**
 * Lets the process exit while the timer is pending. The timers of browsers, jsdom and some mocks have no such method:
 * they never keep a process alive.
 */
export function unrefTimer(timer: unknown): void {
  (timer as { unref?: () => unknown }).unref?.();
}

/** Keeps the process alive while the timer is pending, where {@link unrefTimer} has let it exit. */
export function refTimer(timer: unknown): void {
  (timer as { ref?: () => unknown }).ref?.();
}

// The server's timers are not affected by a test that replaces the global ones.
export const setImmediate: (callback: () => void) => unknown = nodeTimers?.setImmediate ?? inNextTurn;
export const setTimeout = nodeTimers?.setTimeout ?? globalThis.setTimeout.bind(globalThis);
export const clearTimeout = nodeTimers?.clearTimeout ?? globalThis.clearTimeout.bind(globalThis);
export const setInterval = nodeTimers?.setInterval ?? globalThis.setInterval.bind(globalThis);
export const clearInterval = nodeTimers?.clearInterval ?? globalThis.clearInterval.bind(globalThis);
