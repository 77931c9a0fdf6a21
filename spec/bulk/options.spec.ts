// Every option of every whole-export function: what is not a value of its kind is refused before a byte is sent, and
// what is unknown too.

import { once } from 'node:events';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import {
  blockHash,
  compare,
  copy,
  type CopyDestination,
  type CopySource,
  createReadStream,
  createWriteStream,
  exportDestination,
  exportSource,
  extents,
  hash,
  NbdConnection,
  nullDestination,
  prefetch,
} from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { inRange } from '../../lib/bulk/prefetch.js';

const COUNTS = [0, -1, 1.5, NaN, Infinity, 'x', '1', null, true, 1n, {}];
const AUTOS = [...COUNTS, '', 'Auto'];
const BYTES = [-1, -1n, 1.5, NaN, Infinity, 2 ** 53, 2n ** 63n, '1', null, {}];
const FLAGS = [0, 1, 'true', null, {}];
const CALLBACKS = [null, 'x', {}, 1];
const SIGNALS = [null, true, {}, new AbortController(), new EventTarget()];
const POWERS = [0, 1, 100, 1000, 513, -512, NaN, Infinity, '512', null];
const STRINGS = [1, null, {}, ['x']];
const WORDS = ['', 'Data', 'read', null, 1, true];
const HASHERS = [null, {}, 'sha256', { update: () => undefined }];
const STATUS = { step: [0, 0n, ...BYTES], onStatusError: WORDS };
const RANGE = { offset: BYTES, length: BYTES };
const DEPTH = { requestSize: COUNTS, requests: AUTOS, queueSize: AUTOS };
const RANGES = [
  null,
  1,
  'x',
  {},
  [null],
  [1],
  [{ offset: 0 }],
  [{ offset: -1, length: 1 }],
  [{ offset: 0, length: 65_537 }],
];
const STORES = [null, 'x', {}, { load: () => null }, { load: 1, save: () => undefined }];
const BAD_EVERY = { load: () => null, save: () => undefined, every: 0 };

type Values = Readonly<Record<string, readonly unknown[]>>;
type Call = (connection: NbdConnection, options: never) => Promise<unknown>;

const drain = async (stream: AsyncIterable<unknown>): Promise<void> => {
  for await (const _ of stream);
};

const FUNCTIONS: readonly (readonly [name: string, call: Call, values: Values])[] = [
  [
    'copy',
    (connection, options) => copy(connection, nullDestination(), options),
    {
      ...{ requestSize: POWERS, requests: AUTOS, queueSize: AUTOS, sparse: POWERS.filter((value) => value !== 0) },
      ...{ ...RANGE, destinationOffset: BYTES, ranges: RANGES, bitmap: STRINGS, rate: COUNTS },
      ...{ onReadError: WORDS, checkpoint: [...STORES, BAD_EVERY] },
      ...{ allocated: FLAGS, destinationIsZero: FLAGS, extents: FLAGS, flush: FLAGS, hash: HASHERS },
      ...{ onProgress: CALLBACKS, signal: SIGNALS, ...STATUS },
    },
  ],
  [
    'compare',
    (connection, options) => compare(connection, connection, options),
    {
      ...{ ...DEPTH, ...RANGE, ranges: RANGES, trailingZeroes: WORDS, extents: FLAGS, stopAtFirst: FLAGS },
      ...{ onProgress: CALLBACKS, signal: SIGNALS, ...STATUS },
    },
  ],
  [
    'hash',
    (connection, options) => hash(connection, options),
    { algorithm: [...STRINGS, 'no-such'], extents: FLAGS, onProgress: CALLBACKS, signal: SIGNALS, ...STATUS, ...RANGE },
  ],
  [
    'blockHash',
    (connection, options) => blockHash(connection, options),
    {
      ...{ algorithm: [...STRINGS, 'no-such'], blockSize: [0, 3, 1.5, NaN, 2 ** 31, '512'], extents: FLAGS },
      ...{ onProgress: CALLBACKS, signal: SIGNALS, ...STATUS, ...RANGE },
    },
  ],
  [
    'prefetch',
    (connection, options) => prefetch(connection, options),
    {
      ...{ ...DEPTH, dataOnly: FLAGS, read: FLAGS, onProgress: CALLBACKS },
      ...{ signal: SIGNALS, ...RANGE, ...STATUS },
    },
  ],
  [
    'extents',
    (connection, options) => drain(extents(connection, options)),
    { context: STRINGS, merge: FLAGS, step: STATUS.step, signal: SIGNALS, ...RANGE },
  ],
  [
    'createReadStream',
    async (connection, options) => drain(createReadStream(connection, options)),
    { ...DEPTH, extents: FLAGS, signal: SIGNALS, ...RANGE, ...STATUS },
  ],
  [
    'createWriteStream',
    async (connection, options) => once(createWriteStream(connection, options).end('x'), 'finish'),
    {
      ...{ offset: BYTES, ...DEPTH, sparse: POWERS.filter((value) => value !== 0) },
      ...{ flush: FLAGS, signal: SIGNALS },
    },
  ],
  [
    'inRange',
    (connection, options) =>
      inRange(connection, { requestSize: 512, requests: 1, ...(options as object) }, async () => undefined),
    { requestSize: COUNTS, requests: COUNTS, signal: SIGNALS, ...RANGE },
  ],
];

let server: NbdServer;
let connection: NbdConnection;

beforeAll(async () => {
  server = await new NbdServer({ exports: { '': new MemoryBackend(65_536) } }).listenTcp();
  connection = await NbdConnection.connect(server.uri(), { metaContexts: ['base:allocation'] });
});
afterAll(async () => {
  await connection.shutdown();
  await server.close();
});

const sent = (): number => Object.values(server.statistics.requests).reduce((sum, count) => sum + count, 0);

/** The call is refused with an error that names the function and the key, and the server has heard nothing. */
async function expectRefusal(call: () => Promise<unknown>, pattern: RegExp): Promise<void> {
  const before = sent();
  await expect((async () => call())()).rejects.toMatchObject({
    name: 'NbdStrictError',
    code: 'EINVAL',
    message: expect.stringMatching(pattern),
  });
  expect(sent()).toBe(before);
}

describe.each(FUNCTIONS)('%s', (name, call, values) => {
  it.each(Object.keys(values))('refuses wrong values of %s', async (key) => {
    for (const value of values[key]!) {
      await expectRefusal(
        () => call(connection, { [key]: value } as never),
        new RegExp(`^${name}: .*${key}|algorithm`),
      );
    }
  });

  it.each(['sparce', 'start', 'end', 'metaContext', 'Signal', 'toString', '__proto'])(
    'refuses the unknown option %s',
    async (key) => {
      for (const value of [1, undefined, null]) {
        await expectRefusal(() => call(connection, { [key]: value } as never), new RegExp(`^${name}: unknown option`));
      }
    },
  );

  it('takes undefined for what is not there', async () => {
    const options = Object.fromEntries(Object.keys(values).map((key) => [key, undefined]));
    if (name === 'inRange') Object.assign(options, { requestSize: 512, requests: 1 });
    await expect(call(connection, options as never)).resolves.not.toThrow();
  });

  it('refuses options that are not an object', async () => {
    if (name === 'inRange') return;
    for (const options of [null, [], 'x', 1, () => 1]) {
      await expectRefusal(() => call(connection, options as never), new RegExp(`^${name}: options must be an object`));
    }
  });
});

describe('ends', () => {
  const source = (fields: object): CopySource => ({ size: 512, read: async () => undefined, ...fields });
  const destination = (fields: object): CopyDestination => ({ size: 512, write: async () => undefined, ...fields });
  const SIZES = [-1, 1.5, NaN, '512', null, -1n, 2n ** 63n, undefined];
  const BLOCKS = {
    minimumBlock: [0, 3, NaN, '1'],
    preferredBlock: [0, -1, 1.5, NaN, '1'],
    maximumRequest: [0, NaN, 'x'],
  };
  const functions = (name: string): Values => ({ [name]: [null, 1, {}, 'x'] });

  it.each(Object.entries({ size: [...SIZES, Infinity], ...BLOCKS, ...functions('read'), ...functions('zeroRuns') }))(
    'refuses a source with a wrong %s',
    async (key, values) => {
      for (const value of values as unknown[]) {
        const bad = source({ [key]: value });
        await expectRefusal(() => copy(bad, nullDestination()), new RegExp(`^copy: source.${key}`));
        await expectRefusal(() => compare(source({}), bad), new RegExp(`^compare: second.${key}`));
      }
    },
  );

  it.each(
    Object.entries({
      size: SIZES,
      ...BLOCKS,
      ...functions('write'),
      ...functions('read'),
      ...functions('zero'),
      ...functions('flush'),
    }),
  )('refuses a destination with a wrong %s', async (key, values) => {
    for (const value of values as unknown[]) {
      await expectRefusal(() => copy(source({}), destination({ [key]: value })), /^copy: destination/);
    }
  });

  it('refuses what is neither a connection nor an end', async () => {
    for (const value of [null, undefined, 1, 'nbd://host', {}, [], [null], [{}], () => 1]) {
      await expectRefusal(() => copy(value as never, nullDestination()), /^copy: /);
      await expectRefusal(() => copy(source({}), value as never), /^copy: /);
      await expectRefusal(() => compare(connection, value as never), /^compare: /);
      await expectRefusal(async () => exportSource(value as never), /^exportSource: /);
      await expectRefusal(async () => exportDestination(value as never), /^exportDestination: /);
      if (Array.isArray(value)) continue;
      await expectRefusal(() => hash(value as never), /^hash: /);
      await expectRefusal(() => prefetch(value as never), /^prefetch: /);
      await expectRefusal(() => drain(extents(value as never)), /^extents: /);
      await expectRefusal(async () => createReadStream(value as never), /^createReadStream: /);
      await expectRefusal(async () => createWriteStream(value as never), /^createWriteStream: /);
      if (typeof value === 'function') continue;
      const range = { requestSize: 512, requests: 1 };
      await expectRefusal(() => inRange(connection, range, value as never), /^inRange: command: /);
    }
  });

  it.each([
    [
      'overlaps',
      [
        [0, 300, true],
        [200, 312, false],
      ],
    ],
    [
      'runs that go back',
      [
        [256, 128, true],
        [0, 128, true],
      ],
    ],
    ['a length that is not a number', [[0, NaN, true]]],
    ['a negative offset', [[-1, 512, true]]],
    ['a fraction', [[0, 0.5, true]]],
  ] as [string, [number, number, boolean][]][])('refuses zeroRuns with %s', async (_what, runs) => {
    const zeroRuns = async function* () {
      for (const [offset, length, isZero] of runs) yield { offset, length, isZero };
    };
    await expect(copy(source({ zeroRuns }), destination({}))).rejects.toMatchObject({ code: 'EINVAL' });
  });

  it('reads what zeroRuns leaves out, and cuts what is beyond the range', async () => {
    const read = async (buffer: Buffer): Promise<void> => void buffer.fill(1);
    const written = Buffer.alloc(2048, 0xee);
    const write = async (buffer: Buffer, offset: number): Promise<void> => void buffer.copy(written, offset);
    const zeroRuns = async function* () {
      yield { offset: 512, length: 512, isZero: true };
      yield { offset: 1536, length: 4096, isZero: false };
    };
    await copy(source({ size: 2048, read, zeroRuns }), destination({ size: 2048, write }), {
      requestSize: 512,
      sparse: 0,
    });
    const expected = Buffer.alloc(2048, 1).fill(0, 512, 1024);
    expect(written.equals(expected)).toBe(true);
  });
});
