// Checks before anything is queued: argument types, then libnbd's strict checks in libnbd's order (lib/rw.c). A refused
// command sends nothing, uses no cookie and never calls its completion callback.

import { NbdStrictError } from '../errors.js';
import { add, fromBigInt, isWithin, lowHalf, MAX_U32, MAX_U64, type U64 } from '../util/u64.js';
import { isPlain, isUint8Array, kindOfView, memoryOf } from '../util/views.js';
import * as s from './client-constants.js';
import { callDetails, type CommandSpec, describeCall, FLAG_NEEDS } from './commands.js';
import * as c from './constants.js';
import { type ExportInfo, payloadLimit } from './export-info.js';
import { commandFlagNames } from './names.js';
import { quoted } from '../util/visible.js';

/** The state that commands are checked against. */
export interface StrictContext {
  readonly strictMode: number;
  readonly info: ExportInfo;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  /** Whether block status can report anything: structured replies and at least one negotiated context. */
  readonly hasContexts: boolean;
}

const refuse = (method: string, name: string, why: string): NbdStrictError =>
  new NbdStrictError(`${method}: ${name} ${why}`, { code: 'EINVAL', syscall: method });

const shown = (value: unknown): string =>
  typeof value === 'string' ? quoted(value.slice(0, 40)) : typeof value === 'bigint' ? `${value}n` : String(value);

/** A user's count or offset in canonical form; NaN, fractions, unsafe integers and strings are EINVAL. */
export function toU64(value: unknown, method: string, name: string): U64 {
  if (typeof value === 'number') {
    if (Number.isSafeInteger(value) && value >= 0) return value;
    const why = Number.isInteger(value)
      ? value < 0
        ? 'is negative'
        : 'is above Number.MAX_SAFE_INTEGER: pass a bigint'
      : 'is not an integer';
    throw refuse(method, name, `${value} ${why}`);
  }
  if (typeof value === 'bigint') {
    if (value >= 0n && value <= MAX_U64) return fromBigInt(value);
    throw refuse(method, name, `${value}n ${value < 0n ? 'is negative' : 'needs more than 64 bits'}`);
  }
  throw refuse(method, name, `must be a number or a bigint, not ${value === null ? 'null' : typeof value}`);
}

/** Command flags: an unsigned 32-bit integer. */
export function toFlags(value: unknown, method: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_U32) return value;
  throw refuse(method, 'flags', `must be an unsigned 32-bit number, not ${shown(value)}`);
}

/** Up to this length a plain view is used as it is: creating another one costs as much as copying the bytes. */
const SMALL = 8 * 1024;

/** The memory of a caller's buffer, for reading or writing: see util/views.ts. */
export function toBytes(value: unknown, method: string): Uint8Array {
  if (isUint8Array(value)) return isPlain(value, SMALL) ? value : memoryOf(value);
  const kind = value === null ? 'null' : ArrayBuffer.isView(value) ? kindOfView(value) : typeof value;
  throw refuse(method, 'buffer', `must be a Uint8Array, not ${kind}`);
}

/** An optional callback. */
export function toCallback<F extends (...args: never[]) => unknown>(
  value: F | null | undefined,
  method: string,
  name: string,
): F | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== 'function') throw refuse(method, name, `must be a function, not ${typeof value}`);
  return value;
}

/**
 * Returns the flags to send, or throws: libnbd's steps 1 to 9 in order (flags, PAYLOAD_LEN, what the server supports,
 * zero size, bounds, alignment, payload length, and the limits that cannot be switched off).
 */
export function checkStrict(spec: CommandSpec, count: U64, offset: U64, flags: number, context: StrictContext): number {
  const { strictMode: strict, info } = context;
  const fail = (code: string, why: string): NbdStrictError =>
    new NbdStrictError(`${describeCall(spec, count, offset)}: ${why}`, {
      code,
      ...callDetails(spec, count, offset),
    });

  if ((flags & ~spec.allowedFlags) !== 0 && ((strict & s.STRICT_FLAGS) !== 0 || flags > 0xffff)) {
    throw fail('EINVAL', `invalid flag ${commandFlagNames(flags & ~spec.allowedFlags)}`);
  }

  if (spec.type === c.NBD_CMD_BLOCK_STATUS && (strict & s.STRICT_COMMANDS) !== 0) {
    if (!context.structuredReplies) throw fail('ENOTSUP', 'the server does not support structured replies');
    if (!context.hasContexts) {
      throw fail('ENOTSUP', 'no metadata context was negotiated: call addMetaContext before connecting');
    }
  }
  let wireFlags = flags;
  if (spec.payload === 'to-server' && (strict & s.STRICT_AUTO_FLAG) !== 0) {
    if (spec.type === c.NBD_CMD_BLOCK_STATUS && !context.extendedHeaders) {
      throw fail('ENOTSUP', 'the server does not support extended headers');
    }
    wireFlags = context.extendedHeaders ? flags | c.NBD_CMD_FLAG_PAYLOAD_LEN : flags & ~c.NBD_CMD_FLAG_PAYLOAD_LEN;
  }
  if ((strict & s.STRICT_COMMANDS) !== 0) checkSupport(spec, wireFlags, context, fail);

  if (spec.hasRange) {
    if (count === 0 && (strict & s.STRICT_ZERO_SIZE) !== 0) throw fail('EINVAL', 'count cannot be 0');
    if ((strict & s.STRICT_BOUNDS) !== 0 && !isWithin(offset, count, info.size)) {
      throw fail(
        spec.boundsError,
        `the range ends ${BigInt(add(offset, count)) - BigInt(info.size)} bytes beyond the export of ${info.size} bytes`,
      );
    }
    if ((strict & s.STRICT_ALIGN) !== 0 && info.blockSizes !== null) {
      checkAlignment(count, offset, info, fail);
    }
    checkLength(spec, count, context, fail);
  }
  return wireFlags;
}

type Fail = (code: string, why: string) => NbdStrictError;

function checkSupport(spec: CommandSpec, flags: number, context: StrictContext, fail: Fail): void {
  const has = context.info.flags;
  if (spec.advertisedBy !== 0 && (has & spec.advertisedBy) === 0) throw fail('EINVAL', spec.lacking);
  if (spec.writes && (has & c.NBD_FLAG_READ_ONLY) !== 0) throw fail('EPERM', 'the export is read-only');
  const knownFlags = flags & spec.allowedFlags;
  if (knownFlags !== 0) {
    for (const { flag, needs, lacking } of FLAG_NEEDS) {
      if ((knownFlags & flag) !== 0 && (has & needs) === 0) throw fail('EINVAL', lacking);
    }
  }
  if (spec.payload === 'to-server') {
    if (((flags & c.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0) !== context.extendedHeaders) {
      throw fail('EINVAL', 'the PAYLOAD_LEN flag must be set if, and only if, extended headers were negotiated');
    }
    if (spec.type === c.NBD_CMD_BLOCK_STATUS && (has & c.NBD_FLAG_BLOCK_STATUS_PAYLOAD) === 0) {
      throw fail('EINVAL', 'the server does not support the block status payload flag (see canBlockStatusPayload)');
    }
  }
}

function checkAlignment(count: U64, offset: U64, info: ExportInfo, fail: Fail): void {
  const minimum = info.blockSizes?.minimum ?? 1;
  const mask = minimum - 1;
  const offsetOff = (lowHalf(offset) & mask) !== 0;
  // As in libnbd 1.24, a range may end at the end of an export whose size is not a multiple of the block size.
  const countOff = (lowHalf(count) & mask) !== 0 && add(offset, count) !== info.size;
  if (offsetOff || countOff) {
    throw fail('EINVAL', `${offsetOff ? 'offset' : 'count'} is not a multiple of the minimum block size ${minimum}`);
  }
}

function checkLength(spec: CommandSpec, count: U64, context: StrictContext, fail: Fail): void {
  if (spec.payload === 'none' || spec.type === c.NBD_CMD_BLOCK_STATUS) {
    if (count > MAX_U32 && !context.extendedHeaders) {
      throw fail('ERANGE', 'more than 4 GiB - 1 in one command requires extended headers: split it');
    }
    return;
  }
  if (spec.payload === 'to-server' && (context.strictMode & s.STRICT_PAYLOAD) !== 0) {
    const limit = payloadLimit(context.info.blockSizes);
    if (count > limit) throw fail('ERANGE', `the server accepts at most ${limit} bytes in one write`);
  }
  if (count > c.MAX_PAYLOAD) throw fail('ERANGE', `at most ${c.MAX_PAYLOAD} bytes in one command`);
}
