import { afterEach, describe, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, NbdStateError, NbdStrictError } from '../../lib/index.js';
import { caught } from '../support/caught.js';
import { newConnection, openRaw } from '../support/raw-server.js';

const LONG = 'x'.repeat(4097);
const BOOLEANS = [0, 1, 'true', null, {}, () => true];
const FLAGS = [-1, 1.5, NaN, Infinity, 2 ** 32, 1n, '1', null, {}];
const NAMES = [7, null, {}, ['x'], 'a\0b'];
const COUNTS = [0, -1, 1.5, NaN, -Infinity, 2 ** 53, 1n, '1', null, true];
const TIMES = [-1, NaN, -Infinity, 2 ** 31, 1n, '1', null, true];

// Every option: values that are taken, and values that are not.
const OPTIONS: readonly (readonly [keyof NbdConnectionOptions, good: unknown[], bad: unknown[]])[] = [
  ['exportName', ['', 'disk', 'é'.repeat(2048), undefined], NAMES],
  ['strictMode', [0, 0x7f, 5], [...FLAGS, 0x80]],
  ['optMode', [true, false], BOOLEANS],
  ['metaContexts', [[], ['base:allocation']], ['base:allocation', null, 7, [7], ['a\0b'], new Set(['x'])]],
  ['requestMetaContext', [true, false], BOOLEANS],
  ['requestStructuredReplies', [true, false], BOOLEANS],
  ['requestExtendedHeaders', [true, false], BOOLEANS],
  ['requestBlockSize', [true, false], BOOLEANS],
  ['fullInfo', [true, false], BOOLEANS],
  ['handshakeFlags', [0, 1, 2, 3], [...FLAGS, 4]],
  ['preadInitialize', [true, false], BOOLEANS],
  ['handleName', ['', 'mine'], NAMES],
  ['maxInFlight', [1, 64, Infinity], COUNTS],
  ['maxInFlightBytes', [1, 2 ** 40, Infinity], COUNTS],
  ['maxQueued', [0, 1, Infinity], COUNTS.filter((value) => value !== 0)],
  ['connectTimeout', [0, 0.5, 10_000, 2 ** 31 - 1, Infinity], TIMES],
  ['requestTimeout', [0, 0.5, 10_000, 2 ** 31 - 1, Infinity], TIMES],
  ['busyPoll', [0, 0.5, 100, 1e6], [...TIMES, Infinity, 1e6 + 1]],
  ['closeTimeout', [0, 0.5, 10_000, 2 ** 31 - 1, Infinity], TIMES],
];

describe.each(OPTIONS)('the option %s', (name, good, bad) => {
  it('takes what it should', () => {
    for (const value of good) expect(() => new NbdConnection({ [name]: value })).not.toThrow();
    expect(() => new NbdConnection({ [name]: undefined })).not.toThrow();
  });

  it('refuses everything else with EINVAL, naming itself', () => {
    for (const value of bad) {
      const error = caught(() => new NbdConnection({ [name]: value }));
      expect(error).toBeInstanceOf(NbdStrictError);
      expect(error).toMatchObject({ code: 'EINVAL' });
      expect((error as Error).message).toMatch(new RegExp(`^NbdConnection: ${name}`));
    }
  });
});

describe('options as a whole', () => {
  it.each([null, 7, 'x', true, () => 1])('%p is refused', (options) => {
    expect(caught(() => new NbdConnection(options as never))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
  });

  it.each(['nonsense', 'exportname', 'tlsNonsense', 'constructor', 'toString', 'hasOwnProperty', '', '0'])(
    'an unknown option is refused: %p',
    (name) => {
      const error = caught(() => new NbdConnection({ [name]: 1 }));
      expect(error).toMatchObject({ code: 'EINVAL', message: expect.stringContaining(`unknown option "${name}"`) });
    },
  );

  it('a long unknown name is cut in the message', () => {
    const error = caught(() => new NbdConnection({ [LONG]: 1 })) as Error;
    expect(error.message.length).toBeLessThan(100);
  });

  it('names above 4096 bytes of UTF-8 are ENAMETOOLONG', () => {
    for (const options of [
      { exportName: LONG },
      { exportName: 'é'.repeat(2049) },
      { metaContexts: [LONG] },
      { handleName: LONG },
    ]) {
      expect(caught(() => new NbdConnection(options))).toMatchObject({ code: 'ENAMETOOLONG', errno: 36 });
    }
  });

  it('are all optional', () => {
    const connection = new NbdConnection();
    expect(new NbdConnection({}).getStrictMode()).toBe(connection.getStrictMode());
  });
});

describe('prototypes', () => {
  const polluted = Object.prototype as Record<string, unknown>;
  afterEach(() => {
    delete polluted['exportName'];
    delete polluted['maxQueued'];
  });

  it('a key __proto__ out of JSON is refused and changes nothing', () => {
    const options = JSON.parse('{"__proto__": {"exportName": "evil"}}') as object;
    expect(caught(() => new NbdConnection(options))).toMatchObject({ code: 'EINVAL' });
    expect(new NbdConnection().getExportName()).toBe('');
    expect(({} as Record<string, unknown>)['exportName']).toBeUndefined();
  });

  it('properties of a polluted Object.prototype are not taken for options', () => {
    polluted['exportName'] = 'evil';
    polluted['maxQueued'] = 'evil';
    expect(new NbdConnection({}).getExportName()).toBe('');
    expect(new NbdConnection().getExportName()).toBe('');
  });

  it('inherited options are not taken either', () => {
    expect(new NbdConnection(Object.create({ exportName: 'inherited' }) as object).getExportName()).toBe('');
  });
});

describe('defaults', () => {
  it('are those of libnbd', () => {
    const c = newConnection();
    expect([
      ...[c.getExportName(), c.getStrictMode(), c.getOptMode(), c.getFullInfo(), c.getRequestBlockSize()],
      ...[c.getRequestMetaContext(), c.getRequestStructuredReplies(), c.getRequestExtendedHeaders()],
      ...[c.getHandshakeFlags(), c.getPreadInitialize(), c.getNrMetaContexts()],
    ]).toEqual(['', 0x7f, false, false, true, true, true, true, 3, true, 0]);
  });

  it('handles are numbered', () => {
    const number = (connection: NbdConnection): number => Number(/^nbd(\d+)$/.exec(connection.getHandleName())?.[1]);
    const first = number(newConnection());
    expect(number(newConnection())).toBe(first + 1);
  });
});

type Setter = readonly [
  name: string,
  set: (c: NbdConnection, value: never) => void,
  get: (c: NbdConnection) => unknown,
  good: unknown,
  bad: unknown,
];

describe('setters', () => {
  const CREATED: readonly Setter[] = [
    ['setOptMode', (c, v) => c.setOptMode(v), (c) => c.getOptMode(), true, 1],
    [
      'setRequestStructuredReplies',
      (c, v) => c.setRequestStructuredReplies(v),
      (c) => c.getRequestStructuredReplies(),
      false,
      'no',
    ],
    [
      'setRequestExtendedHeaders',
      (c, v) => c.setRequestExtendedHeaders(v),
      (c) => c.getRequestExtendedHeaders(),
      false,
      null,
    ],
    ['setHandshakeFlags', (c, v) => c.setHandshakeFlags(v), (c) => c.getHandshakeFlags(), 1, 4],
    ['setExportName', (c, v) => c.setExportName(v), (c) => c.getExportName(), 'x', 7],
    ['setFullInfo', (c, v) => c.setFullInfo(v), (c) => c.getFullInfo(), true, 1],
    ['setRequestBlockSize', (c, v) => c.setRequestBlockSize(v), (c) => c.getRequestBlockSize(), false, 0],
    ['setRequestMetaContext', (c, v) => c.setRequestMetaContext(v), (c) => c.getRequestMetaContext(), false, 0],
    ['addMetaContext', (c, v) => c.addMetaContext(v), (c) => c.getNrMetaContexts(), 'a:b', 7],
  ];
  const ANY: readonly Setter[] = [
    ['setStrictMode', (c, v) => c.setStrictMode(v), (c) => c.getStrictMode(), 0, 0x80],
    ['setPreadInitialize', (c, v) => c.setPreadInitialize(v), (c) => c.getPreadInitialize(), false, 0],
    ['setHandleName', (c, v) => c.setHandleName(v), (c) => c.getHandleName(), 'mine', 7],
  ];

  it.each([...CREATED, ...ANY])('%s sets, refuses and keeps the old value', (name, set, get, good, bad) => {
    const connection = newConnection();
    const before = get(connection);
    const error = caught(() => set(connection, bad as never));
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL', syscall: name });
    expect((error as Error).message).toMatch(new RegExp(`^${name}: `));
    expect(get(connection)).toBe(before);
    set(connection, good as never);
    expect(get(connection)).toBe(name === 'addMetaContext' ? 1 : good);
  });

  it.each(CREATED)('%s is refused once connected', async (name, set, get, good) => {
    const { connection } = await openRaw();
    const before = get(connection);
    const error = caught(() => set(connection, good as never));
    expect(error).toBeInstanceOf(NbdStateError);
    expect(error).toMatchObject({ code: 'EINVAL', syscall: name });
    expect(get(connection)).toBe(before);
  });

  it.each(ANY)('%s is possible in every state', async (_name, set, get, good) => {
    const { connection } = await openRaw();
    set(connection, good as never);
    expect(get(connection)).toBe(good);
    connection.close();
    set(connection, good as never);
  });

  it('contexts are added, listed and cleared', () => {
    const connection = newConnection({ metaContexts: ['a:b'] });
    connection.addMetaContext('c:d');
    expect([connection.getNrMetaContexts(), connection.getMetaContext(0), connection.getMetaContext(1)]).toEqual([
      2,
      'a:b',
      'c:d',
    ]);
    for (const i of [2, -1, 0.5]) expect(caught(() => connection.getMetaContext(i))).toMatchObject({ code: 'EINVAL' });
    connection.clearMetaContexts();
    expect(connection.getNrMetaContexts()).toBe(0);
  });

  it('the list that was passed is not kept', () => {
    const contexts = ['a:b'];
    const connection = newConnection({ metaContexts: contexts });
    contexts.push('c:d');
    expect(connection.getNrMetaContexts()).toBe(1);
  });
});
