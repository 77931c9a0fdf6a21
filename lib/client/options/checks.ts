// Checks of options and arguments. Each check returns the value with its type, or throws an NbdStrictError (EINVAL by
// default) that names the method and never quotes more than 40 characters of a value.

import { Buffer } from '../../util/buffer.js';
import { NbdStrictError } from '../../errors.js';
import { MAX_STRING } from '../../protocol/constants.js';
import type { WebSocketClass } from '../../transport/web/types.js';
import { MAX_U32 } from '../../util/u64.js';
import { quoted } from '../../util/visible.js';

/** Longest delay that Node's timers support; with a longer one they fire at once. */
const MAX_DELAY = 2 ** 31 - 1;
/** One second: beyond that, the time to wake up from sleep no longer matters. */
const MAX_BUSY_POLL = 1_000_000;
/** libnbd's limit. */
const MAX_SOCKET_NAME = 32;

export const refuse = (method: string, why: string, code = 'EINVAL'): NbdStrictError =>
  new NbdStrictError(`${method}: ${why}`, { code, syscall: method });

/** A value as it appears in a message. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return quoted(value.slice(0, 40));
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') return String(value);
  return value === null ? 'null' : typeof value;
}

export function checkBoolean(method: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw refuse(method, `must be true or false, not ${shown(value)}`);
}

/** A set of flags within `mask`. */
export function checkBits(method: string, value: unknown, mask: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > MAX_U32) {
    throw refuse(method, `must be an integer bit mask, not ${shown(value)}`);
  }
  if ((value & ~mask) !== 0) throw refuse(method, `unknown flags 0x${((value & ~mask) >>> 0).toString(16)}`);
  return value;
}

/** An export or context name: at most 4096 bytes, no NUL. */
export function checkName(method: string, value: unknown): string {
  if (typeof value !== 'string') throw refuse(method, `must be a string, not ${shown(value)}`);
  if (value.includes('\0')) throw refuse(method, 'a name cannot contain a NUL');
  const length = Buffer.byteLength(value);
  if (length > MAX_STRING)
    throw refuse(method, `name too long: ${length} bytes, the limit is ${MAX_STRING}`, 'ENAMETOOLONG');
  return value;
}

/** A list of export or context names. */
export function checkNames(method: string, value: unknown): string[] {
  if (!Array.isArray(value)) throw refuse(method, `must be an array of strings, not ${shown(value)}`);
  return value.map((name) => checkName(method, name));
}

/** An AbortSignal or undefined; throws its reason if it is already aborted. */
export function checkSignal(method: string, value: unknown): void {
  if (value === undefined) return;
  const signal = value as AbortSignal | null;
  if (typeof signal?.throwIfAborted !== 'function' || typeof signal.addEventListener !== 'function') {
    throw refuse(method, `signal must be an AbortSignal, not ${shown(value)}`);
  }
  signal.throwIfAborted();
}

/** A positive integer, or Infinity. */
export function checkCount(method: string, value: unknown): number {
  if (value === Infinity) return Infinity;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1) return value;
  throw refuse(method, `must be a positive integer or Infinity, not ${shown(value)}`);
}

/** A non-negative integer, or Infinity. */
export function checkQueued(method: string, value: unknown): number {
  return value === 0 ? 0 : checkCount(method, value);
}

/** Milliseconds; 0 and Infinity mean no limit, and both return 0. */
export function checkTimeout(method: string, value: unknown): number {
  if (value === Infinity || value === 0) return 0;
  if (typeof value === 'number' && value > 0 && value <= MAX_DELAY) return value;
  throw refuse(method, `must be from 0 to ${MAX_DELAY} milliseconds, or Infinity, not ${shown(value)}`);
}

/** Microseconds; 0 means never. */
export function checkBusyPoll(method: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= MAX_BUSY_POLL) return value;
  throw refuse(method, `must be from 0 to ${MAX_BUSY_POLL} microseconds, not ${shown(value)}`);
}

/** A class of WebSockets, or null for the global one. */
export function checkWebSocket(method: string, value: unknown): WebSocketClass | null {
  if (value === null || typeof value === 'function') return value as WebSocketClass | null;
  throw refuse(method, `must be a class of WebSockets, not ${shown(value)}`);
}

/** A socket name for LISTEN_FDNAMES, or `''`. */
export function checkSocketName(method: string, value: unknown): string {
  const name = checkName(method, value);
  if (name.length > MAX_SOCKET_NAME)
    throw refuse(method, `the socket name is limited to ${MAX_SOCKET_NAME} characters`, 'ENAMETOOLONG');
  if (!/^[a-z0-9]*$/i.test(name)) throw refuse(method, 'the socket name may contain ASCII letters and digits only');
  return name;
}
