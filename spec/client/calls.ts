// Every data command by both of its routes, called alike: what the specs of the client run their tables over.

import { type NbdConnection } from '../../lib/index.js';
import type { CompletionCallback } from '../../lib/client/transmission/command.js';
import { CMD } from '../support/golden.js';

export interface Arguments {
  readonly count?: number | bigint;
  readonly offset?: number | bigint;
  readonly flags?: number;
  readonly signal?: AbortSignal;
}

export interface CallKind {
  /** The promise method. */
  readonly name: string;
  readonly raw: string;
  /** NBD_CMD_* on the wire. */
  readonly type: number;
  readonly hasRange: boolean;
  readonly promise: (connection: NbdConnection, args?: Arguments) => Promise<unknown>;
  readonly aio: (connection: NbdConnection, args?: Arguments, completion?: CompletionCallback) => bigint;
}

const bytes = ({ count = 512 }: Arguments): Buffer => Buffer.alloc(Number(count), 0x61);
const nothing = (): void => undefined;

export const CALLS: readonly CallKind[] = [
  {
    ...{ name: 'pread', raw: 'aioPread', type: CMD.READ, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) => c.pread(count as number, offset, flags, signal),
    aio: (c, args = {}, completion) => c.aioPread(bytes(args), args.offset ?? 0, completion, args.flags),
  },
  {
    ...{ name: 'preadInto', raw: 'aioPread', type: CMD.READ, hasRange: true },
    promise: (c, args = {}) => c.preadInto(bytes(args), args.offset ?? 0, args.flags, args.signal),
    aio: (c, args = {}, completion) => c.aioPread(bytes(args), args.offset ?? 0, completion, args.flags),
  },
  {
    ...{ name: 'preadStructured', raw: 'aioPreadStructured', type: CMD.READ, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) =>
      c.preadStructured(count as number, offset, nothing, flags, signal),
    aio: (c, args = {}, completion) =>
      c.aioPreadStructured(bytes(args), args.offset ?? 0, nothing, completion, args.flags),
  },
  {
    ...{ name: 'pwrite', raw: 'aioPwrite', type: CMD.WRITE, hasRange: true },
    promise: (c, args = {}) => c.pwrite(bytes(args), args.offset ?? 0, args.flags, args.signal),
    aio: (c, args = {}, completion) => c.aioPwrite(bytes(args), args.offset ?? 0, completion, args.flags),
  },
  {
    ...{ name: 'flush', raw: 'aioFlush', type: CMD.FLUSH, hasRange: false },
    promise: (c, { flags, signal } = {}) => c.flush(flags, signal),
    aio: (c, { flags } = {}, completion) => c.aioFlush(completion, flags),
  },
  {
    ...{ name: 'trim', raw: 'aioTrim', type: CMD.TRIM, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) => c.trim(count, offset, flags, signal),
    aio: (c, { count = 512, offset = 0, flags } = {}, completion) => c.aioTrim(count, offset, completion, flags),
  },
  {
    ...{ name: 'cache', raw: 'aioCache', type: CMD.CACHE, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) => c.cache(count, offset, flags, signal),
    aio: (c, { count = 512, offset = 0, flags } = {}, completion) => c.aioCache(count, offset, completion, flags),
  },
  {
    ...{ name: 'zero', raw: 'aioZero', type: CMD.ZERO, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) => c.zero(count, offset, flags, signal),
    aio: (c, { count = 512, offset = 0, flags } = {}, completion) => c.aioZero(count, offset, completion, flags),
  },
  {
    ...{ name: 'blockStatus', raw: 'aioBlockStatus', type: CMD.STATUS, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) => c.blockStatus(count, offset, flags, signal),
    aio: (c, { count = 512, offset = 0, flags } = {}, completion) =>
      c.aioBlockStatus(count, offset, nothing, completion, flags),
  },
  {
    ...{ name: 'blockStatus64', raw: 'aioBlockStatus64', type: CMD.STATUS, hasRange: true },
    promise: (c, { count = 512, offset = 0, flags, signal } = {}) => c.blockStatus64(count, offset, flags, signal),
    aio: (c, { count = 512, offset = 0, flags } = {}, completion) =>
      c.aioBlockStatus64(count, offset, nothing, completion, flags),
  },
];

/** Rows for it.each and describe.each. */
export const EACH_CALL = CALLS.map((call) => [call.name, call] as const);
