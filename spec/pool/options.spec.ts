import { Duplex } from 'node:stream';

import { describe, expect, it } from '@jest/globals';

import { NbdPool, type NbdPoolOptions, NbdStrictError } from '../../lib/index.js';
import { makePoolSettings } from '../../lib/pool/options.js';
import { rejection } from '../support/caught.js';

const refused = (target: unknown, options?: unknown): Promise<unknown> =>
  rejection(NbdPool.connect(target as string, options as NbdPoolOptions));

describe('options of a pool', () => {
  it.each<[string, unknown]>([
    ['conections', { conections: 2 }],
    ['options', null],
    ['options', 5],
    ['options', []],
    ['connections', { connections: 0 }],
    ['connections', { connections: 1.5 }],
    ['connections', { connections: NaN }],
    ['connections', { connections: Infinity }],
    ['connections', { connections: '2' }],
    ['growTimeout', { growTimeout: 0 }],
    ['growTimeout', { growTimeout: -1 }],
    ['growTimeout', { growTimeout: NaN }],
    ['waitFor', { waitFor: -1 }],
    ['waitFor', { waitFor: NaN }],
    ['waitFor', { waitFor: '5' }],
    ['reconnect', { reconnect: true }],
    ['reconnect', { reconnect: null }],
    ['within', { reconnect: { within: 0 } }],
    ['within', { reconnect: { within: NaN } }],
    ['minDelay', { reconnect: { minDelay: -5 } }],
    ['minDelay', { reconnect: { minDelay: Infinity } }],
    ['minDelay', { reconnect: { minDelay: 100, maxDelay: 50 } }],
    ['maxDelay', { reconnect: { maxDelay: 'long' } }],
    ['forever', { reconnect: { forever: true } }],
    ['retry', { retry: true }],
    ['retry', { retry: 3 }],
    ['attempts', { retry: { attempts: 0 } }],
    ['attempts', { retry: { attempts: 1.5 } }],
    ['codes', { retry: { codes: 'EIO' } }],
    ['codes', { retry: { codes: [5] } }],
    ['codes', { retry: { codes: ['eio'] } }],
    ['EPERM', { retry: { codes: ['EIO', 'EPERM'] } }],
    ['EINVAL', { retry: { codes: ['EINVAL'] } }],
    ['ENOSPC', { retry: { codes: ['ENOSPC'] } }],
    ['delay', { retry: { delay: NaN } }],
    ['times', { retry: { times: 3 } }],
    ['rewrite', { rewrite: {} }],
    ['signal', { signal: {} }],
    ['optMode', { optMode: true }],
    ['exportName', { exportName: 5 }],
    ['requestTimeout', { requestTimeout: -1 }],
    ['maxInFlight', { maxInFlight: 0 }],
    ['__proto__', JSON.parse('{"__proto__": 1}')],
  ])('%s: %j is refused, and nothing is opened', async (name, options) => {
    const error = await refused({ path: '/nowhere/at/all' }, options);
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL' });
    expect((error as Error).message).toContain(name);
  });

  it('have defaults', () => {
    expect(makePoolSettings(undefined)).toMatchObject({
      ...{ connections: 4, growTimeout: 2000, waitFor: 0, retry: null, rewrite: null },
      reconnect: { within: 60_000, minDelay: 50, maxDelay: 2000 },
      connection: { requestTimeout: 30_000, maxQueued: Infinity },
    });
    expect(makePoolSettings({ retry: {}, reconnect: { maxDelay: 10 }, requestTimeout: 0 })).toMatchObject({
      reconnect: { within: 60_000, minDelay: 10, maxDelay: 10 },
      retry: { attempts: 3, codes: ['EIO'], delay: 100 },
      connection: { requestTimeout: 0 },
    });
    expect(makePoolSettings({ reconnect: { minDelay: 5000 } }).reconnect).toMatchObject({ maxDelay: 5000 });
  });
});

describe('targets of a pool', () => {
  const stream = (): Duplex => new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });

  it.each<[string, unknown, unknown]>([
    ['no target', [], {}],
    ['none of several', [{ path: '/nowhere' }, 'http://localhost'], {}],
    ['what is not a target', 5, {}],
    ['an empty path', { path: '' }, {}],
    ['a port that is none', [{ host: 'localhost', port: 0 }], {}],
    ['a stream', stream(), {}],
    ['a stream, with one connection', stream(), { connections: 1 }],
    ['a stream, without a way back', stream(), { reconnect: false }],
    ['a stream among others', [stream(), { path: '/nowhere' }], { connections: 1, reconnect: false }],
  ])('%s is refused', async (_title, target, options) => {
    const error = await refused(target, options);
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({ code: 'EINVAL' });
  });

  it('that may not be used are refused as a connection refuses them', async () => {
    expect(await refused('nbds://localhost?tls-certificates=/etc')).toMatchObject({ code: 'EPERM' });
    expect(await refused('nbd://localhost', { uriAllowTransports: 2 })).toMatchObject({ code: 'EPERM' });
  });

  it('none of which answers: every failure is named', async () => {
    const error = await refused([{ path: '/nowhere/a' }, { path: '/nowhere/b' }]);
    expect(error).toMatchObject({ code: 'ENOENT', name: 'NbdConnectionError', cause: { errors: [{}, {}] } });
    expect((error as Error).message).toMatch(/none of 2 targets.*\/nowhere\/a.*\/nowhere\/b/);
    expect(await refused([{ path: '/nowhere/a' }])).toMatchObject({ code: 'ENOENT', syscall: 'connect' });
  });
});
