// Every command has its two forms, and what one refuses the other refuses with the same errno, before anything is
// queued: no byte sent, no cookie used.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { inspect } from 'node:util';
import * as api from 'nbd-sdk';
import { CONTEXT_BASE_ALLOCATION, NbdConnection, type NbdConnectionOptions, type NbdError } from 'nbd-sdk';
import { MemoryBackend, type NbdExportOptions, NbdServer } from 'nbd-sdk/server';

import { COMMANDS, type CommandSpec, DISCONNECT } from '../../lib/protocol/commands.js';
import { caught, rejection } from '../support/caught.js';

interface Input {
  count?: unknown;
  offset?: unknown;
  flags?: unknown;
  contexts?: unknown;
  signal?: unknown;
  completion?: unknown;
}

interface Pair {
  readonly promise: (connection: NbdConnection, input: Required<Input>) => Promise<unknown>;
  readonly raw: (connection: NbdConnection, input: Required<Input>) => bigint;
}

const MIB = 1024 * 1024;
const SIZE = 2 ** 40;
const BUFFER = Buffer.alloc(64 * MIB + 512);
const bytes = (count: unknown): Buffer => BUFFER.subarray(0, count as number);
const nothing = (): void => undefined;

/** Some wrong arguments are of a wrong type. */
const ok = (value: unknown): never => value as never;

/** A command whose count is a number in both forms. */
const ranged = (method: 'trim' | 'cache' | 'zero', raw: 'aioTrim' | 'aioCache' | 'aioZero'): Pair => ({
  promise: (connection, { count, offset, flags, signal }) =>
    connection[method](ok(count), ok(offset), ok(flags), ok(signal)),
  raw: (connection, { count, offset, flags, completion }) =>
    connection[raw](ok(count), ok(offset), ok(completion), ok(flags)),
});

const PAIRS: Readonly<Record<string, Pair>> = {
  pread: {
    promise: (connection, { count, offset, flags, signal }) =>
      connection.pread(ok(count), ok(offset), ok(flags), ok(signal)),
    raw: (connection, { count, offset, flags, completion }) =>
      connection.aioPread(bytes(count), ok(offset), ok(completion), ok(flags)),
  },
  preadStructured: {
    promise: (connection, { count, offset, flags, signal }) =>
      connection.preadStructured(ok(count), ok(offset), nothing, ok(flags), ok(signal)),
    raw: (connection, { count, offset, flags, completion }) =>
      connection.aioPreadStructured(bytes(count), ok(offset), nothing, ok(completion), ok(flags)),
  },
  pwrite: {
    promise: (connection, { count, offset, flags, signal }) =>
      connection.pwrite(bytes(count), ok(offset), ok(flags), ok(signal)),
    raw: (connection, { count, offset, flags, completion }) =>
      connection.aioPwrite(bytes(count), ok(offset), ok(completion), ok(flags)),
  },
  flush: {
    promise: (connection, { flags, signal }) => connection.flush(ok(flags), ok(signal)),
    raw: (connection, { flags, completion }) => connection.aioFlush(ok(completion), ok(flags)),
  },
  trim: ranged('trim', 'aioTrim'),
  cache: ranged('cache', 'aioCache'),
  zero: ranged('zero', 'aioZero'),
  blockStatus: {
    promise: (connection, { count, offset, flags, signal }) =>
      connection.blockStatus(ok(count), ok(offset), ok(flags), ok(signal)),
    raw: (connection, { count, offset, flags, completion }) =>
      connection.aioBlockStatus(ok(count), ok(offset), nothing, ok(completion), ok(flags)),
  },
  blockStatus64: {
    promise: (connection, { count, offset, flags, signal }) =>
      connection.blockStatus64(ok(count), ok(offset), ok(flags), ok(signal)),
    raw: (connection, { count, offset, flags, completion }) =>
      connection.aioBlockStatus64(ok(count), ok(offset), nothing, ok(completion), ok(flags)),
  },
  blockStatusFilter: {
    promise: (connection, { count, offset, contexts, flags, signal }) =>
      connection.blockStatusFilter(ok(count), ok(offset), ok(contexts), ok(flags), ok(signal)),
    raw: (connection, { count, offset, contexts, flags, completion }) =>
      connection.aioBlockStatusFilter(ok(count), ok(offset), ok(contexts), nothing, ok(completion), ok(flags)),
  },
};

const READS = ['pread', 'preadStructured'];
const WRITES = ['pwrite', 'trim', 'zero'];
const STATUS = ['blockStatus', 'blockStatus64', 'blockStatusFilter'];
const COUNTED = ['trim', 'cache', 'zero', ...STATUS];
const RANGED = [...READS, 'pwrite', ...COUNTED];
const ALL = [...RANGED, 'flush'];

type Where = 'rich' | 'poor' | 'readOnly';

/** What is refused: by which methods, on which connection, with which errno. */
interface Refusal {
  readonly what: string;
  readonly methods: readonly string[];
  readonly code: string | ((method: string) => string);
  readonly input: Input;
  readonly where?: Where;
  readonly strictMode?: number;
}

const REFUSALS: readonly Refusal[] = [
  ...[1.5, NaN, -1, '512', null, undefined, {}, 2 ** 53, 1n << 64n, -1n].map((count) => ({
    what: `count ${inspect(count)}`,
    methods: COUNTED,
    code: 'EINVAL',
    input: { count },
  })),
  ...[1.5, NaN, -512, '0', null, undefined, {}, 2 ** 53, 1n << 64n, -1n].map((offset) => ({
    what: `offset ${inspect(offset)}`,
    methods: RANGED,
    code: 'EINVAL',
    input: { offset },
  })),
  ...[1.5, NaN, -1, '1', null, true, 2 ** 32, 1n].map((flags) => ({
    what: `flags ${inspect(flags)}`,
    methods: ALL,
    code: 'EINVAL',
    input: { flags },
  })),
  { what: 'an unknown flag', methods: ALL, code: 'EINVAL', input: { flags: 0x8000 } },
  { what: 'a flag above 16 bits', methods: ALL, code: 'EINVAL', input: { flags: 0x10000 }, strictMode: 0 },
  { what: 'count 0', methods: RANGED, code: 'EINVAL', input: { count: 0 } },
  {
    what: 'a range beyond the end',
    methods: RANGED,
    code: (method) => (WRITES.includes(method) ? 'ENOSPC' : 'EINVAL'),
    input: { offset: SIZE },
  },
  { what: 'an unaligned offset', methods: RANGED, code: 'EINVAL', input: { offset: 1 } },
  { what: 'an unaligned count', methods: RANGED, code: 'EINVAL', input: { count: 513 } },
  { what: 'more than 64 MiB', methods: [...READS, 'pwrite'], code: 'ERANGE', input: { count: 64 * MIB + 512 } },
  {
    what: 'more than 64 MiB in relaxed mode',
    methods: [...READS, 'pwrite'],
    code: 'ERANGE',
    input: { count: 64 * MIB + 512 },
    strictMode: 0,
  },
  {
    what: '4 GiB without extended headers',
    methods: COUNTED.filter((method) => method !== 'blockStatusFilter'),
    code: 'ERANGE',
    input: { count: 2 ** 32 },
    where: 'poor',
    strictMode: 0,
  },
  {
    what: 'what the server does not support',
    methods: ['flush', 'trim', 'cache', 'zero', ...STATUS],
    code: (method) => (STATUS.includes(method) ? 'ENOTSUP' : 'EINVAL'),
    input: {},
    where: 'poor',
  },
  { what: 'FUA without support', methods: ['pwrite'], code: 'EINVAL', input: { flags: 1 }, where: 'poor' },
  { what: 'DF without support', methods: ['preadStructured'], code: 'EINVAL', input: { flags: 4 }, where: 'poor' },
  { what: 'a read-only export', methods: WRITES, code: 'EPERM', input: {}, where: 'readOnly' },
  {
    what: 'a context that was not negotiated',
    methods: ['blockStatusFilter'],
    code: 'EINVAL',
    input: { contexts: ['x:y'] },
  },
];

const OFF = { flush: false, fua: false, trim: false, zero: false, cache: false, df: false };
const blockSize = { minimum: 512, preferred: 4096, maximum: 64 * MIB };

const EXPORTS: Readonly<Record<Where, NbdExportOptions>> = {
  rich: { backend: new MemoryBackend(SIZE), blockSize },
  poor: { backend: new MemoryBackend(SIZE), blockSize, flags: OFF },
  readOnly: { backend: new MemoryBackend(SIZE), blockSize, readOnly: true, flags: { trim: true, zero: true } },
};

const OPTIONS: Readonly<Record<Where, NbdConnectionOptions>> = {
  rich: { metaContexts: [CONTEXT_BASE_ALLOCATION] },
  poor: { requestExtendedHeaders: false, requestStructuredReplies: false },
  readOnly: {},
};

const server = new NbdServer({ exports: EXPORTS, maxPayload: 64 * MIB });
const connections = new Map<Where, NbdConnection>();

beforeAll(async () => {
  for (const where of Object.keys(EXPORTS) as Where[]) {
    const options = { ...OPTIONS[where], exportName: where };
    connections.set(where, await NbdConnection.connect(server.connectMemory(), options));
  }
});

afterAll(async () => {
  for (const connection of connections.values()) await connection.shutdown();
  await server.close();
});

/** What no connection that can do it all refuses. */
const VALID: Required<Input> = {
  count: 512,
  offset: 0,
  flags: 0,
  contexts: [CONTEXT_BASE_ALLOCATION],
  signal: undefined,
  completion: null,
};

/** Makes both calls and returns the errors: of the promise, which must not throw, and of the raw one, which must. */
async function refusedBy(connection: NbdConnection, method: string, input: Input): Promise<readonly NbdError[]> {
  const pair = PAIRS[method]!;
  const complete = { ...VALID, ...input };
  const promise = pair.promise(connection, complete);
  return [(await rejection(promise)) as NbdError, caught(() => pair.raw(connection, complete)) as NbdError];
}

const factsOf = ({ name, code, errno, syscall }: NbdError): object => ({ name, code, errno, syscall });
const capitalised = (method: string): string => `aio${method[0]?.toUpperCase()}${method.slice(1)}`;
const spoken = COMMANDS.filter((spec) => spec !== DISCONNECT);

describe('every command', () => {
  it('is tried here', () => {
    expect(Object.keys(PAIRS).sort()).toEqual(spoken.map(({ method }) => method).sort());
    const tried = (method: string): boolean => REFUSALS.some(({ methods }) => methods.includes(method));
    expect(ALL.filter((method) => !tried(method))).toEqual([]);
  });

  it.each(spoken)('$method has a promise and a raw form', ({ method }: CommandSpec) => {
    const prototype = NbdConnection.prototype as unknown as Record<string, unknown>;
    expect(typeof prototype[method]).toBe('function');
    expect(typeof prototype[capitalised(method)]).toBe('function');
  });

  it.each(spoken)('$method resolves, and its raw form returns a cookie that completes', async ({ method }) => {
    const connection = connections.get('rich')!;
    const pair = PAIRS[method]!;
    await pair.promise(connection, VALID);
    const cookie = pair.raw(connection, VALID);
    expect(typeof cookie).toBe('bigint');
    while (connection.aioInFlight() > 0) await new Promise((resolve) => setImmediate(resolve));
    expect(connection.aioPeekCommandCompleted()).toBe(cookie);
    expect(connection.aioCommandCompleted(cookie)).toBe(true);
  });
});

describe('both forms of a command', () => {
  for (const { what, methods, code, input, where = 'rich', strictMode = api.STRICT_MASK } of REFUSALS) {
    it.each(methods)(`refuse ${what} alike: %s`, async (method) => {
      const connection = connections.get(where)!;
      const sent = connection.statsBytesSent();
      connection.setStrictMode(strictMode);
      const [promised, thrown] = await refusedBy(connection, method, input);
      connection.setStrictMode(api.STRICT_MASK);
      const expected = typeof code === 'function' ? code(method) : code;
      expect(factsOf(promised!)).toMatchObject({ name: 'NbdStrictError', code: expected, syscall: method });
      expect(factsOf(thrown!)).toEqual(factsOf(promised!));
      expect(thrown!.message).toBe(promised!.message);
      expect(promised).toBeInstanceOf(api.NbdStrictError);
      expect(connection.statsBytesSent()).toBe(sent);
      expect(connection.aioInFlight()).toBe(0);
    });
  }

  it('use no cookie for what they refuse', async () => {
    const connection = connections.get('rich')!;
    const before = connection.aioFlush();
    for (const method of ALL) await refusedBy(connection, method, { flags: 0x8000 });
    const after = connection.aioFlush();
    expect(after).toBe(before + 1n);
    await connection.flush();
    expect([connection.aioCommandCompleted(before), connection.aioCommandCompleted(after)]).toEqual([true, true]);
  });

  it.each(ALL)('refuse the wrong state alike: %s', async (method) => {
    const connection = new NbdConnection();
    const state = { name: 'NbdStateError', syscall: method };
    for (const error of await refusedBy(connection, method, {})) {
      expect(error).toMatchObject({ ...state, code: 'ENOTCONN' });
    }
    connection.close();
    for (const error of await refusedBy(connection, method, {})) {
      expect(error).toMatchObject({ ...state, code: 'EINVAL' });
    }
  });

  it.each(ALL)('refuse a command after a disconnect alike: %s', async (method) => {
    const options = { metaContexts: [CONTEXT_BASE_ALLOCATION], exportName: 'rich' };
    const connection = await NbdConnection.connect(server.connectMemory(), options);
    connection.aioDisconnect();
    for (const error of await refusedBy(connection, method, {})) {
      expect(error).toMatchObject({ name: 'NbdStateError', code: 'EINVAL', syscall: method });
    }
    await connection.shutdown();
  });

  it.each(ALL)('refuse what only one of them takes: %s', async (method) => {
    const input = { signal: 'soon', completion: 'soon' };
    for (const error of await refusedBy(connections.get('rich')!, method, input)) {
      expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL', syscall: method });
    }
  });
});

describe('disconnect', () => {
  it('has a raw form only: shutdown() is what is awaited', () => {
    expect('disconnect' in NbdConnection.prototype).toBe(false);
    expect(typeof NbdConnection.prototype.aioDisconnect).toBe('function');
    expect(typeof NbdConnection.prototype.shutdown).toBe('function');
  });

  it('is refused before connecting, with flags, and the second time', async () => {
    const connection = new NbdConnection({ exportName: 'rich' });
    expect(caught(() => connection.aioDisconnect())).toMatchObject({ name: 'NbdStateError', code: 'ENOTCONN' });
    await connection.connectSocket(server.connectMemory());
    for (const flags of [1, 0x10000, -1, 1.5, '0']) {
      const error = caught(() => connection.aioDisconnect(flags as number));
      expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL', syscall: 'aioDisconnect' });
    }
    const closed = new Promise((resolve) => connection.once('close', resolve));
    connection.aioDisconnect();
    expect(caught(() => connection.aioDisconnect())).toMatchObject({ name: 'NbdStateError', code: 'EINVAL' });
    expect(await closed).toBeUndefined();
    expect(caught(() => connection.aioDisconnect())).toMatchObject({ name: 'NbdStateError', code: 'EINVAL' });
  });
});
