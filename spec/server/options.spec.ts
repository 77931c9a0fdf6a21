// Wrong options are refused by name before anything is served: a misspelled one never means that it is off.

import { describe, expect, it } from '@jest/globals';
import {
  type Fault,
  FaultPlan,
  MemoryBackend,
  type NbdBackend,
  NbdServer,
  type NbdServerOptions,
  PatternBackend,
} from '../../lib/server/index.js';
import { newServer, RawClient } from '../support/raw-client.js';

const backend = new MemoryBackend(4096);
const read = (): void => undefined;
const refusedWith = (message: RegExp): unknown =>
  expect.objectContaining({
    name: 'NbdStrictError',
    code: 'EINVAL',
    message: expect.stringMatching(message) as unknown,
  });

const COUNTS = [0, -1, NaN, 1.5, '10', null, true, 5n];

describe('options of NbdServer', () => {
  it.each<[string, readonly unknown[]]>([
    ['maxConnections', COUNTS],
    ['maxOptions', COUNTS],
    ['maxInFlight', COUNTS],
    ['maxInFlightBytes', COUNTS],
    ['maxTotalBytes', COUNTS],
    ['maxPayload', [...COUNTS, Infinity]],
    ['maxReplyBytes', COUNTS.slice(1)],
    ['handshakeTimeout', [-1, NaN, '10', null, 2 ** 31]],
    ['closeTimeout', [-1, NaN, 1.5, '10', null, Infinity]],
    ['tls', ['required', 'ON', true, 1, null, '']],
    ['style', ['old', true]],
    ['fixedNewstyle', [0, 'yes', null]],
    ['noZeroes', [0, 'no']],
    ['defaultExport', [1, null]],
    ['exports', [3, 'disk', null, []]],
    ['features', [3, { lists: true }, { list: 'UNSUPPORTED' }, { list: 1 }, { nameInfo: 'UNSUP' }]],
    ['tlsOptions', [3, {}, { certificate: 'x' }, { cert: 'x' }, { key: 'x' }, { psk: {} }, { psk: { alice: 'key' } }]],
    [
      'tlsOptions',
      [
        { cert: 'x', key: 'y' },
        { psk: { a: Buffer.of(1) }, verifyPeer: true },
      ],
    ],
    [
      'tlsOptions',
      [
        { psk: { a: Buffer.of(1) }, minVersion: 'TLSv1.1' },
        { psk: { a: Buffer.of(1) }, crl: 'x' },
      ],
    ],
    ['onRequest', [3, {}]],
    ['onConnectionError', ['log']],
  ])('%s refuses what it is not', (key, values) => {
    for (const value of values) {
      const make = (): unknown => new NbdServer({ [key]: value });
      expect(make).toThrow(refusedWith(new RegExp(`^NbdServer: ${key}\\b`)));
    }
  });

  it.each([
    { maxConnection: 1 },
    { TLS: 'require' },
    { readOnly: true },
    { verifyPeer: true },
    Object.create({ tlsOption: 1 }) as object,
  ])('refuses the unknown %j', (options) => {
    expect(() => new NbdServer(options as NbdServerOptions)).toThrow(refusedWith(/unknown option/));
  });

  it.each<[NbdServerOptions, RegExp]>([
    [{ tls: 'require' }, /requires tlsOptions/],
    [{ tls: 'on' }, /requires tlsOptions/],
    [{ tlsOptions: { psk: { alice: Buffer.of(1) } } }, /tlsOptions without tls/],
    [{ tls: 'on', tlsOptions: { cert: 'x', key: 'y', verifyPeer: true } }, /verifyPeer needs ca/],
  ])('%j: what belongs together', (options, message) => {
    expect(() => new NbdServer(options)).toThrow(refusedWith(message));
  });

  it('takes all that is right, and undefined for the default', async () => {
    const server = newServer({
      exports: { '': backend },
      maxConnections: Infinity,
      maxOptions: 3,
      handshakeTimeout: Infinity,
      maxInFlight: 1,
      maxInFlightBytes: Infinity,
      maxTotalBytes: Infinity,
      maxReplyBytes: 0,
      features: { list: 'POLICY', nameInfo: false },
      ...({ tls: undefined, onRequest: undefined } as object),
    });
    const client = await RawClient.of(server).handshake();
    expect((await client.read(0, 4096)).length).toBe(4096);
  });

  it.each([-1, 65536, 1.5, NaN, '80', null])('listenTcp refuses port %p', async (port) => {
    await expect(newServer({}).listenTcp(port as number)).rejects.toEqual(refusedWith(/port must be/));
  });

  it.each(['', ' ', null, 0])('listenTcp does not take host %p for all addresses', async (host) => {
    await expect(newServer({}).listenTcp(0, host as string)).rejects.toEqual(refusedWith(/host must be/));
  });

  it.each([
    ['', 'EINVAL'],
    [null, 'EINVAL'],
    [3, 'EINVAL'],
    ['/tmp/\0x', 'EINVAL'],
    [`/tmp/${'x'.repeat(103)}`, 'ENAMETOOLONG'],
  ])('listenUnix refuses %j', async (path, code) => {
    await expect(newServer({}).listenUnix(path as string)).rejects.toMatchObject({ name: 'NbdStrictError', code });
  });
});

describe('an export', () => {
  it.each<[unknown, RegExp]>([
    [{ backend, readonly: true }, /export "x": unknown option "readonly"/],
    [{ backend, readOnly: 1 }, /readOnly: must be true or false/],
    [{ backend, flags: { fuaa: true } }, /flags: unknown option "fuaa"/],
    [{ backend, flags: { fua: 'no' } }, /flags: fua: must be true or false/],
    [{ backend, blockSize: { minimum: 3, preferred: 4096, maximum: 4096 } }, /minimum: must be a power of 2/],
    [{ backend, blockSize: { minimum: 4096, preferred: 512, maximum: 4096 } }, /preferred \(512\) is less/],
    [{ backend, blockSize: { minimum: 512, preferred: 4096, maximum: 5000 } }, /not a multiple/],
    [{ backend, metaContexts: { 'a:b': {} } }, /extents: must be a function/],
    [{ backend, metaContexts: { 'a:b': 3 } }, /must be an object/],
    [{ backend, description: 'x'.repeat(4097) }, /the limit is 4096/],
    [{ backend, description: 'a\0b' }, /NUL/],
    [{ readOnly: true }, /backend is missing/],
    [{}, /backend is missing/],
    [null, /must be an object/],
    [undefined, /backend is missing/],
    [7, /must be an object/],
    [{ size: 4096, read: 'no' }, /read: must be a function/],
    [{ size: '4096', read }, /size: must be an integer/],
    [{ size: 4096, read, write: true }, /write: must be a function/],
    [{ size: 4096, read, readOnly: 'yes' }, /readOnly: must be true or false/],
    [{ size: 4096, read, readonly: true }, /unknown property "readonly": did you mean readOnly\?/],
    [{ size: 4096, read, multiconn: false }, /did you mean multiConn/],
  ])('%j is refused', (entry, message) => {
    const server = newServer({});
    expect(() => {
      server.addExport('x', entry as NbdBackend);
    }).toThrow(refusedWith(message));
    expect(() => newServer({ exports: { x: entry as NbdBackend } })).toThrow(refusedWith(message));
  });

  it('may be of any class, with properties of its own', async () => {
    class Mine implements NbdBackend {
      readonly size = 512;
      readonly path = '/my/own';
      read(buffer: Buffer): void {
        buffer.fill(7);
      }
    }
    const client = await RawClient.of(newServer({ exports: { '': new Mine() } })).handshake();
    expect((await client.read(0, 512)).equals(Buffer.alloc(512, 7))).toBe(true);
  });

  it.each<[string, () => unknown]>([
    ['MemoryBackend', () => new MemoryBackend(4096, { readonly: true } as object)],
    ['MemoryBackend', () => new MemoryBackend(-1)],
    ['MemoryBackend', () => new MemoryBackend('4096' as unknown as number)],
    ['PatternBackend', () => new PatternBackend(4096, { writeable: true } as object)],
    ['PatternBackend', () => new PatternBackend(NaN)],
  ])('%s refuses what it does not know', (name, make) => {
    expect(make).toThrow(refusedWith(new RegExp(`^${name}`)));
  });
});

describe('FaultPlan.push', () => {
  it.each<[unknown, RegExp]>([
    [{ command: 'preadd', error: 'EIO' }, /command: must be one of "pread", "pwrite", .*not "preadd"/],
    [{ command: 'NBD_CMD_READ', error: 'EIO' }, /command: must be one of/],
    [
      { command: 'read', eror: 'EIO' },
      /exactly one of error, stall, delay, hold, corrupt, cut, afterBytes; this has .*"eror"/,
    ],
    [{ command: 'read' }, /exactly one of/],
    [{}, /exactly one of .* has none/],
    [{ error: 'EIO', cut: 'reset' }, /exactly one of/],
    [{ error: 'EIO', nths: 1 }, /unknown option "nths"/],
    [{ error: 'EI0' }, /error: must be one of "EPERM"/],
    [{ error: 5 }, /error: must be one of/],
    [{ error: 'EIO', message: 5 }, /message: must be a string/],
    [{ error: 'EIO', nth: 0 }, /nth: must be a whole number from 1/],
    [{ error: 'EIO', times: NaN }, /times: must be a whole number/],
    [{ error: 'EIO', when: true }, /when: must be a function/],
    [{ stall: false }, /stall: must be one of true/],
    [{ delay: '5' }, /delay: must be a whole number/],
    [{ delay: -1 }, /delay: must be a whole number/],
    [{ cut: 'off' }, /cut: must be one of/],
    [{ afterBytes: 5 }, /afterBytes requires then/],
    [{ afterBytes: -5, then: 'close' }, /afterBytes: must be a whole number/],
    [{ afterBytes: 5, then: 'cut' }, /then: must be one of/],
    [{ afterBytes: 5, then: 'close', command: 'read' }, /unknown option "command"/],
    ['EIO', /not a fault/],
    [null, /not a fault/],
  ])('refuses %j and adds no fault', (fault, message) => {
    const plan = new FaultPlan();
    expect(() => {
      plan.push({ error: 'EIO' }, fault as Fault);
    }).toThrow(refusedWith(message));
    expect(plan.isEmpty).toBe(true);
  });

  it.each([
    ['pread', 'pread'],
    ['pwrite', 'pwrite'],
    ['read', 'pread'],
    ['write', 'pwrite'],
    ['blockStatus', 'blockStatus'],
  ] as const)('takes %s for the command %s', (name, command) => {
    const plan = new FaultPlan();
    plan.push({ command: name, error: 'EIO' });
    const request = { flags: 0, offset: 0, count: 1, exportName: '', connection: 1 };
    expect(plan.match({ ...request, command })).not.toBeNull();
    expect(plan.match({ ...request, command: 'flush' })).toBeNull();
  });
});
