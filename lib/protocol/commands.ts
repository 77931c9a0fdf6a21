// One record per command of the transmission phase, read by strict checks, the encoder, error messages, the server's
// validation, the CLI's help and the README's tables; a command is defined nowhere else.

import type { U64 } from '../util/u64.js';
import * as c from './constants.js';

/** The direction of a command's payload. */
export type PayloadDirection = 'none' | 'to-server' | 'from-server';

export interface CommandSpec {
  /** The libnbd function without `nbd_` in camelCase; the raw twin is `aio` + the same, capitalised. */
  readonly method: string;
  /** NBD_CMD_* on the wire. */
  readonly type: number;
  /** NBD_CMD_FLAG_* bits that a caller may pass. */
  readonly allowedFlags: number;
  /** The transmission flag that advertises it; 0 for commands that every server has. */
  readonly advertisedBy: number;
  /** The message for a server without it, and the method that shows whether it has it. */
  readonly lacking: string;
  /** True when it changes the export, so that a read-only one refuses it with EPERM. */
  readonly writes: boolean;
  /** True when it has an offset and a count. */
  readonly hasRange: boolean;
  /** The errno of a range that leaves the export. */
  readonly boundsError: 'EINVAL' | 'ENOSPC';
  readonly payload: PayloadDirection;
  /** True where extents are reported with 64-bit lengths and flags. */
  readonly wideExtents: boolean;
}

const define = (spec: CommandSpec): CommandSpec => Object.freeze(spec);

export const PREAD = define({
  method: 'pread',
  type: c.NBD_CMD_READ,
  allowedFlags: 0,
  advertisedBy: 0,
  lacking: '',
  writes: false,
  hasRange: true,
  boundsError: 'EINVAL',
  payload: 'from-server',
  wideExtents: false,
});

export const PREAD_STRUCTURED = define({
  ...PREAD,
  method: 'preadStructured',
  allowedFlags: c.NBD_CMD_FLAG_DF,
});

export const PWRITE = define({
  method: 'pwrite',
  type: c.NBD_CMD_WRITE,
  allowedFlags: c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_PAYLOAD_LEN,
  advertisedBy: 0,
  lacking: '',
  writes: true,
  hasRange: true,
  boundsError: 'ENOSPC',
  payload: 'to-server',
  wideExtents: false,
});

export const FLUSH = define({
  method: 'flush',
  type: c.NBD_CMD_FLUSH,
  allowedFlags: 0,
  advertisedBy: c.NBD_FLAG_SEND_FLUSH,
  lacking: 'the server does not support flush operations (see canFlush)',
  writes: false,
  hasRange: false,
  boundsError: 'EINVAL',
  payload: 'none',
  wideExtents: false,
});

export const TRIM = define({
  method: 'trim',
  type: c.NBD_CMD_TRIM,
  allowedFlags: c.NBD_CMD_FLAG_FUA,
  advertisedBy: c.NBD_FLAG_SEND_TRIM,
  lacking: 'the server does not support trim operations (see canTrim)',
  writes: true,
  hasRange: true,
  boundsError: 'ENOSPC',
  payload: 'none',
  wideExtents: false,
});

export const CACHE = define({
  method: 'cache',
  type: c.NBD_CMD_CACHE,
  allowedFlags: 0,
  advertisedBy: c.NBD_FLAG_SEND_CACHE,
  lacking: 'the server does not support cache operations (see canCache)',
  writes: false,
  hasRange: true,
  boundsError: 'EINVAL',
  payload: 'none',
  wideExtents: false,
});

export const ZERO = define({
  method: 'zero',
  type: c.NBD_CMD_WRITE_ZEROES,
  allowedFlags: c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_NO_HOLE | c.NBD_CMD_FLAG_FAST_ZERO,
  advertisedBy: c.NBD_FLAG_SEND_WRITE_ZEROES,
  lacking: 'the server does not support zero operations (see canZero)',
  writes: true,
  hasRange: true,
  boundsError: 'ENOSPC',
  payload: 'none',
  wideExtents: false,
});

export const BLOCK_STATUS = define({
  method: 'blockStatus',
  type: c.NBD_CMD_BLOCK_STATUS,
  allowedFlags: c.NBD_CMD_FLAG_REQ_ONE,
  advertisedBy: 0,
  lacking: '',
  writes: false,
  hasRange: true,
  boundsError: 'EINVAL',
  payload: 'none',
  wideExtents: false,
});

export const BLOCK_STATUS_64 = define({ ...BLOCK_STATUS, method: 'blockStatus64', wideExtents: true });

export const BLOCK_STATUS_FILTER = define({
  ...BLOCK_STATUS,
  method: 'blockStatusFilter',
  allowedFlags: c.NBD_CMD_FLAG_REQ_ONE | c.NBD_CMD_FLAG_PAYLOAD_LEN,
  payload: 'to-server',
  wideExtents: true,
});

export const DISCONNECT = define({
  method: 'disconnect',
  type: c.NBD_CMD_DISC,
  allowedFlags: 0,
  advertisedBy: 0,
  lacking: '',
  writes: false,
  hasRange: false,
  boundsError: 'EINVAL',
  payload: 'none',
  wideExtents: false,
});

/** Every command that a user can issue, by method name. */
export const COMMANDS: readonly CommandSpec[] = Object.freeze([
  PREAD,
  PREAD_STRUCTURED,
  PWRITE,
  FLUSH,
  TRIM,
  CACHE,
  ZERO,
  BLOCK_STATUS,
  BLOCK_STATUS_64,
  BLOCK_STATUS_FILTER,
  DISCONNECT,
]);

/** What a command flag needs: the transmission flag that advertises it. */
export const FLAG_NEEDS: readonly { readonly flag: number; readonly needs: number; readonly lacking: string }[] =
  Object.freeze([
    {
      flag: c.NBD_CMD_FLAG_FUA,
      needs: c.NBD_FLAG_SEND_FUA,
      lacking: 'the server does not support the FUA flag (see canFua)',
    },
    {
      flag: c.NBD_CMD_FLAG_DF,
      needs: c.NBD_FLAG_SEND_DF,
      lacking: 'the server does not support the DF flag (see canDf)',
    },
    {
      flag: c.NBD_CMD_FLAG_FAST_ZERO,
      needs: c.NBD_FLAG_SEND_FAST_ZERO,
      lacking: 'the server does not support the FAST_ZERO flag (see canFastZero)',
    },
  ]);

/** The call and its range, as messages begin. */
export function describeCall(spec: CommandSpec, count: U64, offset: U64): string {
  return spec.hasRange ? `${spec.method} of ${count} bytes at offset ${offset}` : spec.method;
}

/** The call and its range, as fields of an error. */
export function callDetails(
  spec: CommandSpec,
  count: U64,
  offset: U64,
): { syscall: string; count?: bigint; offset?: bigint } {
  return spec.hasRange
    ? { syscall: spec.method, count: BigInt(count), offset: BigInt(offset) }
    : { syscall: spec.method };
}
