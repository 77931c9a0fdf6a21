// What options and arguments are checked with. Each check returns the value as its own type, or throws an
// NbdStrictError (EINVAL unless told) that names the method and never quotes more than 40 characters of a value.

import { NbdStrictError } from '../../errors.js';
import { MAX_STRING } from '../../protocol/constants.js';
import { MAX_U32 } from '../../util/u64.js';
import { quoted } from '../../util/visible.js';

/** Longest delay that Node's timers take; above, they fire at once. */
const MAX_DELAY = 2 ** 31 - 1;
/** A second: nobody who waits longer does so for want of a wake-up. */
const MAX_BUSY_POLL = 1_000_000;
/** libnbd's limit. */
const MAX_SOCKET_NAME = 32;

export const refuse = (method: string, why: string, code = 'EINVAL'): NbdStrictError =>
  new NbdStrictError(`${method}: ${why}`, { code, syscall: method });

/** A value as a message shows it. */
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
    throw refuse(method, `must be a number of flags, not ${shown(value)}`);
  }
  if ((value & ~mask) !== 0) throw refuse(method, `unknown flags 0x${((value & ~mask) >>> 0).toString(16)}`);
  return value;
}

/** An export or context name: at most 4096 bytes, no NUL. */
export function checkName(method: string, value: unknown): string {
  if (typeof value !== 'string') throw refuse(method, `must be a string, not ${shown(value)}`);
  if (value.includes('\0')) throw refuse(method, 'a name cannot hold a NUL');
  const length = Buffer.byteLength(value);
  if (length > MAX_STRING)
    throw refuse(method, `a name has at most ${MAX_STRING} bytes, this one ${length}`, 'ENAMETOOLONG');
  return value;
}

/** A list of such names. */
export function checkNames(method: string, value: unknown): string[] {
  if (!Array.isArray(value)) throw refuse(method, `must be an array of strings, not ${shown(value)}`);
  return value.map((name) => checkName(method, name));
}

/** An AbortSignal or nothing; throws its reason when it is aborted already. */
export function checkSignal(method: string, value: unknown): void {
  if (value === undefined) return;
  const signal = value as AbortSignal | null;
  if (typeof signal?.throwIfAborted !== 'function' || typeof signal.addEventListener !== 'function') {
    throw refuse(method, `signal must be an AbortSignal, not ${shown(value)}`);
  }
  signal.throwIfAborted();
}

/** A whole number from 1, or Infinity. */
export function checkCount(method: string, value: unknown): number {
  if (value === Infinity) return Infinity;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1) return value;
  throw refuse(method, `must be a whole number from 1, or Infinity, not ${shown(value)}`);
}

/** The same, or 0. */
export function checkQueued(method: string, value: unknown): number {
  return value === 0 ? 0 : checkCount(method, value);
}

/** Milliseconds; 0 stands for no limit. */
export function checkTimeout(method: string, value: unknown): number {
  if (value === Infinity || value === 0) return 0;
  if (typeof value === 'number' && value > 0 && value <= MAX_DELAY) return value;
  throw refuse(method, `must be from 0 to ${MAX_DELAY} milliseconds, or Infinity, not ${shown(value)}`);
}

/** Microseconds; 0 stands for never. */
export function checkBusyPoll(method: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= MAX_BUSY_POLL) return value;
  throw refuse(method, `must be from 0 to ${MAX_BUSY_POLL} microseconds, not ${shown(value)}`);
}

/** What LISTEN_FDNAMES may say of a socket, or `''`. */
export function checkSocketName(method: string, value: unknown): string {
  const name = checkName(method, value);
  if (name.length > MAX_SOCKET_NAME)
    throw refuse(method, `a name has at most ${MAX_SOCKET_NAME} characters`, 'ENAMETOOLONG');
  if (!/^[a-z0-9]*$/i.test(name)) throw refuse(method, 'a name has ASCII letters and digits only');
  return name;
}
