// The settings of TLS and of what URIs may do: types, ranges, states, defaults, what a URI does to them, and that no
// secret is ever shown.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';

import {
  ALLOW_TRANSPORT_MASK,
  ALLOW_TRANSPORT_UNIX,
  NbdConnection,
  type NbdConnectionOptions,
  TLS_ALLOW,
  TLS_DISABLE,
  TLS_REQUIRE,
} from '../../../lib/index.js';
import { explainTls, type TlsFacts } from '../../../lib/client/tls/errors.js';
import { caught, rejection } from '../../support/caught.js';
import { closeAll, memoryPeer } from '../../support/raw-server.js';

type Setter = Extract<keyof NbdConnection, `set${string}`>;
type Getter = Extract<keyof NbdConnection, `get${string}`>;

interface Setting {
  readonly option: keyof NbdConnectionOptions;
  readonly set: Setter;
  readonly get?: Getter;
  readonly initial?: unknown;
  readonly good: readonly unknown[];
  readonly bad: readonly [value: unknown, code: string][];
}

const LONG = 'x'.repeat(4097);
const NOT_TEXT: [unknown, string][] = [undefined, null, 1, {}, ['x'], true].map((value) => [value, 'EINVAL']);
const NOT_BOOLEAN: [unknown, string][] = [undefined, null, 0, 1, 'true', {}].map((value) => [value, 'EINVAL']);
const NOT_TLS: [unknown, string][] = [-1, 3, 0.5, NaN, '1', null, undefined, {}, 1n].map((value) => [value, 'EINVAL']);

const SETTINGS: readonly Setting[] = [
  {
    option: 'tls',
    set: 'setTls',
    get: 'getTls',
    initial: TLS_DISABLE,
    good: [TLS_DISABLE, TLS_ALLOW, TLS_REQUIRE],
    bad: NOT_TLS,
  },
  {
    option: 'tlsCertificates',
    set: 'setTlsCertificates',
    good: ['/etc/pki', '.', ''],
    bad: [...NOT_TEXT, ['a\0', 'EINVAL']],
  },
  { option: 'tlsPskFile', set: 'setTlsPskFile', good: ['/etc/keys.psk', ''], bad: [...NOT_TEXT, ['a\0', 'EINVAL']] },
  {
    option: 'tlsVerifyPeer',
    set: 'setTlsVerifyPeer',
    get: 'getTlsVerifyPeer',
    initial: true,
    good: [true, false],
    bad: NOT_BOOLEAN,
  },
  {
    option: 'tlsHostname',
    set: 'setTlsHostname',
    get: 'getTlsHostname',
    initial: '',
    good: ['', 'example.com', '::1'],
    bad: [...NOT_TEXT, ['a\0', 'EINVAL'], ['.example.com', 'EINVAL'], [LONG, 'ENAMETOOLONG']],
  },
  {
    option: 'tlsUsername',
    set: 'setTlsUsername',
    get: 'getTlsUsername',
    good: ['alice', 'é'],
    bad: [...NOT_TEXT, ['a\0', 'EINVAL'], ['x'.repeat(257), 'ENAMETOOLONG'], [LONG, 'ENAMETOOLONG']],
  },
  {
    option: 'tlsPriority',
    set: 'setTlsPriority',
    get: 'getTlsPriority',
    initial: '',
    good: ['', 'ECDHE-RSA-AES128-GCM-SHA256', 'TLS_AES_128_GCM_SHA256', 'HIGH:!aNULL', 'DEFAULT'],
    bad: [...NOT_TEXT, ['NORMAL:-VERS-TLS1.3', 'EINVAL'], ['@SYSTEM', 'EINVAL'], ['nothing', 'EINVAL']],
  },
  {
    option: 'uriAllowTransports',
    set: 'setUriAllowTransports',
    good: [0, ALLOW_TRANSPORT_UNIX, ALLOW_TRANSPORT_MASK],
    bad: [...[-1, 16, 0.5, NaN, '1', null, undefined, 2 ** 32].map((value): [unknown, string] => [value, 'EINVAL'])],
  },
  { option: 'uriAllowTls', set: 'setUriAllowTls', good: [TLS_DISABLE, TLS_ALLOW, TLS_REQUIRE], bad: NOT_TLS },
  { option: 'uriAllowLocalFile', set: 'setUriAllowLocalFile', good: [true, false], bad: NOT_BOOLEAN },
  { option: 'uriAllowTlsPriority', set: 'setUriAllowTlsPriority', good: [true, false], bad: NOT_BOOLEAN },
];

const call = (connection: NbdConnection, method: Setter, value: unknown): void => {
  (connection[method] as (value: unknown) => void)(value);
};
const read = (connection: NbdConnection, method: Getter): unknown => (connection[method] as () => unknown)();

describe.each(SETTINGS)('$set', (setting) => {
  const { option, set, get, initial, good, bad } = setting;

  it('has its default', () => {
    if (get !== undefined && 'initial' in setting) expect(read(new NbdConnection(), get)).toBe(initial);
  });

  it.each(good)('takes %j, as the option does', (value) => {
    const connection = new NbdConnection();
    call(connection, set, value);
    const other = new NbdConnection({ [option]: value });
    if (get === undefined || (option === 'tlsUsername' && value === '')) return;
    expect(read(connection, get)).toBe(value);
    expect(read(other, get)).toBe(value);
  });

  it.each(bad)('refuses %p (%s) and keeps the old value', (value, code) => {
    const connection = new NbdConnection();
    call(connection, set, good[0]);
    const before = get === undefined ? undefined : read(connection, get);
    expect(caught(() => call(connection, set, value))).toMatchObject({ name: 'NbdStrictError', code, syscall: set });
    if (get !== undefined) expect(read(connection, get)).toBe(before);
    if (value === undefined) return;
    const make = (): unknown => new NbdConnection({ [option]: value });
    expect(caught(make)).toMatchObject({ name: 'NbdStrictError', code });
  });

  it('is for a connection that is not made yet', async () => {
    const connection = new NbdConnection();
    const { stream, peer } = memoryPeer();
    const connecting = Promise.all([connection.connectSocket(stream), peer.handshake()]);
    const during = caught(() => call(connection, set, good[0]));
    await connecting;
    const after = caught(() => call(connection, set, good[0]));
    connection.close();
    const closed = caught(() => call(connection, set, good[0]));
    for (const error of [during, after, closed]) {
      expect(error).toMatchObject({ name: 'NbdStateError', code: 'EINVAL', syscall: set });
    }
    closeAll();
  });
});

describe('what is in memory', () => {
  it.each(['ca', 'cert', 'key', 'crl'] as const)('%s is PEM text or bytes, one or several', (option) => {
    for (const value of ['pem', Buffer.from('pem'), new Uint8Array([1]), ['a', Buffer.from('b')]]) {
      expect(new NbdConnection({ [option]: value })).toBeInstanceOf(NbdConnection);
    }
    for (const value of ['', [], [''], new Uint8Array(0), 1, null, {}, [1], [null], true]) {
      const make = (): unknown => new NbdConnection({ [option]: value });
      expect(caught(make)).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
    }
  });

  it('tlsPsk is an identity and a key', () => {
    for (const value of [
      { identity: 'alice', key: '00ff' },
      { key: Buffer.alloc(512, 1) },
      { identity: 'x'.repeat(256), key: new Uint8Array([1]) },
    ]) {
      expect(new NbdConnection({ tlsPsk: value })).toBeInstanceOf(NbdConnection);
    }
    const cases: [unknown, string][] = [
      ['00ff', 'EINVAL'],
      [null, 'EINVAL'],
      [{}, 'EINVAL'],
      [{ identity: 'alice' }, 'EINVAL'],
      [{ key: '' }, 'EINVAL'],
      [{ key: 'xyz' }, 'EINVAL'],
      [{ key: '0' }, 'EINVAL'],
      [{ key: 'ab cd' }, 'EINVAL'],
      [{ key: Buffer.alloc(513) }, 'EINVAL'],
      [{ key: 'ab'.repeat(513) }, 'EINVAL'],
      [{ identity: 1, key: 'ab' }, 'EINVAL'],
      [{ identity: 'a\0b', key: 'ab' }, 'EINVAL'],
      [{ identity: 'x'.repeat(257), key: 'ab' }, 'ENAMETOOLONG'],
    ];
    for (const [tlsPsk, code] of cases) {
      expect(caught(() => new NbdConnection({ tlsPsk: tlsPsk as never }))).toMatchObject({
        name: 'NbdStrictError',
        code,
      });
    }
  });

  it('a passphrase is text', () => {
    expect(caught(() => new NbdConnection({ passphrase: 1 as never }))).toMatchObject({ code: 'EINVAL' });
  });

  it('is never shown', () => {
    const secret = 'c0ffee'.repeat(8);
    const connection = new NbdConnection({
      key: `-----BEGIN PRIVATE KEY-----\n${secret}`,
      cert: 'pem',
      passphrase: secret,
      tlsPsk: { identity: 'alice', key: secret },
    });
    for (const text of [inspect(connection, { depth: 9, showHidden: true }), JSON.stringify(connection)]) {
      expect(text).not.toContain('c0ffee');
    }
    const bad: NbdConnectionOptions[] = [
      { tlsPsk: { identity: 'alice', key: `${secret}!` } },
      { tlsPsk: secret as never },
      { tlsPsk: [secret] as never },
      { key: { secret } as never },
      { passphrase: { secret } as never },
    ];
    for (const options of bad) {
      const error = caught(() => new NbdConnection(options));
      expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('c0ffee');
    }
  });
});

describe('material that cannot be used', () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'spec-'));
    await writeFile(join(folder, 'ca-cert.pem'), 'this is no certificate');
  });

  afterAll(() => rm(folder, { recursive: true }));

  it.each<[string, NbdConnectionOptions, string, RegExp]>([
    ['a folder that is not there', { tlsCertificates: '/no/such/folder' }, 'ENOENT', /cannot read .*ca-cert\.pem/],
    ['a folder without an authority', { tlsCertificates: '/' }, 'ENOENT', /cannot read \/ca-cert\.pem/],
    [
      'a file of keys that is not there',
      { tlsPskFile: '/no/keys', tlsUsername: 'a' },
      'ENOENT',
      /cannot read \/no\/keys/,
    ],
    ['a folder for a file of keys', { tlsPskFile: '/', tlsUsername: 'a' }, 'EISDIR', /cannot read \//],
    ['a certificate without its key', { cert: 'pem' }, 'EINVAL', /"cert" is set without "key"/],
    ['a key without its certificate', { key: 'pem' }, 'EINVAL', /"key" is set without "cert"/],
    ['no PEM', { ca: 'garbage', cert: 'garbage', key: 'garbage' }, 'EINVAL', /cannot be used: .*PEM/],
  ])('%s', async (_, options, code, message) => {
    const { stream, peer } = memoryPeer();
    const connection = new NbdConnection({ tls: TLS_REQUIRE, ...options });
    const error = await rejection(connection.connectSocket(stream));
    expect(error).toMatchObject({ name: 'NbdStrictError', code, syscall: 'connect' });
    expect((error as Error).message).toMatch(message);
    expect(peer.bytesReceived).toBe(0);
    expect(connection.connectionState()).toBe('created');
    closeAll();
  });

  it('is not even read when TLS is not used', async () => {
    const connection = new NbdConnection({ tlsCertificates: '/no/such/folder', cert: 'garbage' });
    const { stream, peer } = memoryPeer();
    await Promise.all([connection.connectSocket(stream), peer.handshake()]);
    connection.close();
    closeAll();
  });
});

describe('the user name', () => {
  const before = process.env['LOGNAME'];

  afterAll(() => {
    if (before === undefined) delete process.env['LOGNAME'];
    else process.env['LOGNAME'] = before;
  });

  it('is the one set, else LOGNAME, else the name of the system user', () => {
    process.env['LOGNAME'] = 'from-environment';
    expect(new NbdConnection({ tlsUsername: 'set' }).getTlsUsername()).toBe('set');
    expect(new NbdConnection().getTlsUsername()).toBe('from-environment');
    delete process.env['LOGNAME'];
    expect(new NbdConnection().getTlsUsername()).toBe(userInfo().username);
  });
});

describe('a URI', () => {
  /** Applies a URI; the socket is not there, so that nothing else happens. */
  async function apply(uri: string, options: NbdConnectionOptions = {}): Promise<[NbdConnection, unknown]> {
    const connection = new NbdConnection(options);
    return [connection, await rejection(connection.connectUri(uri))];
  }
  const SOCKET = 'socket=/no/such/socket';

  it('with nbds requires TLS, and without it leaves what was set', async () => {
    for (const tls of [TLS_DISABLE, TLS_ALLOW, TLS_REQUIRE]) {
      expect((await apply(`nbds+unix:///?${SOCKET}`, { tls }))[0].getTls()).toBe(TLS_REQUIRE);
      expect((await apply(`nbd+unix:///?${SOCKET}`, { tls }))[0].getTls()).toBe(tls);
    }
  });

  it('sets the options that its parameters name', async () => {
    const parameters = 'tls-hostname=example.com&tls-verify-peer=0&tls-username=bob&tls-priority=HIGH';
    const [connection] = await apply(`nbds+unix://carol@/x?${SOCKET}&${parameters}`, { uriAllowTlsPriority: true });
    expect(connection.getTlsHostname()).toBe('example.com');
    expect(connection.getTlsVerifyPeer()).toBe(false);
    expect(connection.getTlsUsername()).toBe('bob');
    expect(connection.getTlsPriority()).toBe('HIGH');
    expect(connection.getExportName()).toBe('x');
    expect((await apply(`nbds+unix://carol@/?${SOCKET}`))[0].getTlsUsername()).toBe('carol');
  });

  it.each<[string, NbdConnectionOptions, string]>([
    ['nbds+unix:///?tls-certificates=/etc', {}, 'EPERM'],
    ['nbds+unix:///?tls-psk-file=/etc/passwd', {}, 'EPERM'],
    ['nbds+unix:///?tls-priority=HIGH', {}, 'EPERM'],
    ['nbds+unix:///?tls-priority=NORMAL', { uriAllowTlsPriority: true }, 'EINVAL'],
    ['nbds+unix:///?tls-type=anon', {}, 'ENOTSUP'],
    ['nbds+unix:///?tls-type=psk', {}, 'EINVAL'],
    ['nbds+unix:///?tls-type=other', {}, 'EINVAL'],
    ['nbds+unix:///?tls-verify-peer=maybe', {}, 'EINVAL'],
    [`nbds+unix:///?tls-username=${'x'.repeat(257)}`, {}, 'ENAMETOOLONG'],
    ['nbds+unix:///', { uriAllowTls: TLS_DISABLE }, 'EPERM'],
    ['nbd+unix:///', { uriAllowTls: TLS_REQUIRE }, 'EPERM'],
    ['nbd+unix:///', { uriAllowTransports: ALLOW_TRANSPORT_MASK & ~ALLOW_TRANSPORT_UNIX }, 'EPERM'],
    ['nbd+vsock:///', { uriAllowTransports: ALLOW_TRANSPORT_UNIX }, 'EPERM'],
  ])('%s is refused before anything takes effect', async (text, options, code) => {
    const uri = text.startsWith('nbd+vsock')
      ? text
      : `${text}${text.includes('?') ? '&' : '?'}${SOCKET}&tls-hostname=h`;
    const [connection, error] = await apply(uri, { exportName: 'before', ...options });
    expect(error).toMatchObject({ name: 'NbdStrictError', code });
    expect(connection.connectionState()).toBe('created');
    expect(connection.getTls()).toBe(TLS_DISABLE);
    expect(connection.getTlsHostname()).toBe('');
    expect(connection.getExportName()).toBe('before');
  });

  it('may name local files where that is allowed', async () => {
    const [, error] = await apply(`nbds+unix:///?${SOCKET}&tls-certificates=/no/such`, { uriAllowLocalFile: true });
    expect(error).toMatchObject({ code: 'ENOENT' });
    expect((error as Error).message).toMatch(/\/no\/such\/ca-cert\.pem/);
  });
});

describe('what went wrong with TLS', () => {
  const facts: TlsFacts = { pskIdentity: null, name: 'h', hasCertificate: false };
  const failure = (code: string, message = 'said'): Error => Object.assign(new Error(message), { code });

  it.each<[string, string, Partial<TlsFacts>, string, RegExp]>([
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'handshake', {}, 'EACCES', /not accepted: said \(set ca or tlsCertificates/],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'handshake', {}, 'EACCES', /set ca or tlsCertificates/],
    ['CERT_HAS_EXPIRED', 'handshake', {}, 'EACCES', /not accepted: said$/],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'beginning', {}, 'EACCES', /a client without a certificate/],
    ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'beginning', { hasCertificate: true }, 'EACCES', /the client certificate/],
    ['ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE', 'handshake', {}, 'EACCES', /a client without a certificate/],
    ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'handshake', {}, 'EPROTO', /the handshake failed: said/],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'handshake', {}, 'EPROTO', /the handshake failed/],
    ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'handshake', { pskIdentity: 'a' }, 'EPROTO', /the handshake failed/],
    ['ECONNRESET', 'handshake', {}, 'ENOTCONN', /hung up during the handshake/],
    ['EPIPE', 'beginning', {}, 'EACCES', /hung up after the handshake/],
    ['ERR_SSL_BAD_RECORD_TYPE', 'later', {}, 'EPROTO', /the session failed/],
    ...[
      'ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC',
      'ERR_SSL_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY',
      'ERR_SSL_SSLV3_ALERT_ILLEGAL_PARAMETER',
      'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE',
      'ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR',
      'ECONNRESET',
    ].map((code): [string, string, Partial<TlsFacts>, string, RegExp] => [
      code,
      'handshake',
      { pskIdentity: 'alice' },
      'EACCES',
      /the pre-shared key of user "alice"/,
    ]),
  ])('%s, %s', (cause, moment, given, code, message) => {
    const error = explainTls(failure(cause), moment as 'handshake', { ...facts, ...given });
    expect(error).toMatchObject({ name: 'NbdConnectionError', code, cause: { code: cause } });
    expect(error?.message).toMatch(message);
  });

  it('is nothing where a session ends or the connection is lost', () => {
    expect(explainTls(null, 'later', facts)).toBeNull();
    const lost = failure('ECONNRESET');
    expect(explainTls(lost, 'later', facts)).toBe(lost);
  });

  it('shows what a stranger has put into a certificate made harmless', () => {
    const cert = { subjectaltname: `DNS:evil\u001b[2J\n${'x'.repeat(1000)}` };
    const cause = Object.assign(
      failure('ERR_TLS_CERT_ALTNAME_INVALID', "Host: h. is not in the cert's altnames: \u001b"),
      { cert },
    );
    const message = explainTls(cause, 'handshake', facts)?.message ?? '';
    // eslint-disable-next-line no-control-regex -- these are what must not be there
    expect(message).not.toMatch(/[\u0000-\u001f]/);
    expect(message.length).toBeLessThan(600);
  });
});
