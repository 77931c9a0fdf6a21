import { isIPv6 } from 'node:net';

import { describe, expect, it } from '@jest/globals';

import { NbdStrictError } from '../../lib/errors.js';
import * as client from '../../lib/protocol/client-constants.js';
import { formatUri } from '../../lib/protocol/uri-format.js';
import { isIpv6 } from '../../lib/protocol/uri-parts.js';
import type { NbdUriParts } from '../../lib/protocol/uri-parts.js';
import { checkUriAllowed, isUri, parseUri } from '../../lib/protocol/uri.js';
import type { UriPermissions } from '../../lib/protocol/uri.js';
import { ACCEPTED, REFUSED } from './uri-cases.js';

function refusal(call: () => unknown): NbdStrictError {
  try {
    call();
  } catch (error) {
    if (error instanceof NbdStrictError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('parseUri', () => {
  it.each(ACCEPTED)('reads %s', (uri, expected) => {
    expect(parseUri(uri)).toStrictEqual(expected);
  });

  it.each(REFUSED)('refuses %s', (uri, reason) => {
    const error = refusal(() => parseUri(uri));
    expect(error).toMatchObject({ code: 'EINVAL', syscall: 'connectUri' });
    expect(error.message).toMatch(reason);
    expect(error.message).toMatch(/^connectUri: /);
  });

  it('refuses an export name of more than 4096 bytes', () => {
    expect(parseUri(`nbd://h/${'a'.repeat(4096)}`).exportName).toHaveLength(4096);
    for (const name of ['a'.repeat(4097), `${'%C3%A9'.repeat(2048)}a`]) {
      expect(refusal(() => parseUri(`nbd://h/${name}`))).toMatchObject({ code: 'ENAMETOOLONG' });
    }
  });

  it('names the function it was called for, and takes nothing but a string', () => {
    expect(refusal(() => parseUri('x', 'connect'))).toMatchObject({ syscall: 'connect' });
    for (const value of [undefined, null, 1, new URL('nbd://h/')]) {
      expect(refusal(() => parseUri(value as unknown as string)).message).toMatch(/not a string/);
    }
  });

  it('never quotes what may be a password', () => {
    const secret = 'hunter2';
    const leaky = [
      '://u:?@h',
      '://u:?',
      '://u:?/x',
      '://?@a@h',
      '://u:?@[',
      '://?:?@h:?/',
      '://h?',
      '://u:?@h?tls-type=?',
    ];
    for (const shape of leaky) {
      for (const scheme of ['nbd', 'nbds+unix', 'nbd+vsock', 'nbd+ssh', 'nbx']) {
        const uri = scheme + shape.replaceAll('?', secret);
        let message = '';
        try {
          parseUri(uri);
        } catch (error) {
          message = String(error);
        }
        expect(message).not.toContain(secret);
      }
    }
  });
});

describe('isUri', () => {
  it.each([
    ...[
      'nbd://',
      'NBDS://h',
      'nbd+unix://',
      'nbds+unix:///x',
      'nbd+vsock://2',
      'nbds+vsock://%zz',
      'nbd+ssh://',
      'nbds+SSH://',
    ].map((text) => [text, true] as const),
    ...['', 'nbd:', 'nbd:/x', 'nbd:h', ' nbd://', 'http://h', 'nbd+tcp://h', '/nbd://', 'nbdx://', 'x\nnbd://'].map(
      (text) => [text, false] as const,
    ),
  ])('%j: %s', (text, expected) => {
    expect(isUri(text)).toBe(expected);
  });
});

describe('isIpv6', () => {
  it.each([
    '::',
    '::1',
    '1::',
    '1:2:3:4:5:6:7:8',
    '1::8',
    '::ffff:1.2.3.4',
    '1:2:3:4:5:6:1.2.3.4',
    '',
    ':',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    '12345::',
    'g::',
    '1.2.3.4',
    '1.2.3.4::',
    '::1.2.3',
    '::1.2.3.256',
    '::01.2.3.4',
    '1:2:3:4:5:6:7:1.2.3.4',
    ':1::',
    '::1:',
    '1:::2',
  ])('%j as node:net has it', (text) => {
    expect(isIpv6(text)).toBe(isIPv6(text));
  });
});

describe('checkUriAllowed', () => {
  const all = { transports: client.ALLOW_TRANSPORT_MASK, tls: client.TLS_ALLOW, localFile: false };
  const check = (uri: string, allowed: UriPermissions): void => {
    checkUriAllowed(parseUri(uri), allowed);
  };
  const refusalOf = (uri: string, allowed: UriPermissions): NbdStrictError =>
    refusal(() => {
      check(uri, allowed);
    });

  it.each([
    ['nbd://h', client.ALLOW_TRANSPORT_TCP],
    ['nbds+unix:///?socket=/s', client.ALLOW_TRANSPORT_UNIX],
    ['nbd+vsock://', client.ALLOW_TRANSPORT_VSOCK],
    ['nbd+ssh://h', client.ALLOW_TRANSPORT_SSH],
  ])('%s by its transport', (uri, bit) => {
    check(uri, { ...all, transports: bit });
    const error = refusalOf(uri, { ...all, transports: client.ALLOW_TRANSPORT_MASK & ~bit });
    expect(error).toMatchObject({ code: 'EPERM', syscall: 'connectUri' });
    expect(error.message).toMatch(/transport nbds?(\+\w+)? is not permitted/);
  });

  it.each([
    ['nbd://h', client.TLS_DISABLE, true],
    ['nbd://h', client.TLS_REQUIRE, false],
    ['nbds://h', client.TLS_DISABLE, false],
    ['nbds://h', client.TLS_REQUIRE, true],
  ])('%s under TLS setting %d: %s', (uri, tls, isAllowed) => {
    if (isAllowed) check(uri, { ...all, tls });
    else expect(refusalOf(uri, { ...all, tls })).toMatchObject({ code: 'EPERM' });
  });

  // U12
  it.each(['tls-certificates', 'tls-psk-file'])('%s only where local files are allowed', (name) => {
    const uri = `nbds://h/?${name}=/etc/x`;
    check(uri, { ...all, localFile: true });
    const error = refusalOf(uri, all);
    expect(error).toMatchObject({ code: 'EPERM' });
    expect(error.message).toContain(name);
  });

  it('tls-priority only where that is allowed', () => {
    const uri = 'nbds://h/?tls-priority=NORMAL';
    check(uri, { ...all, tlsPriority: true });
    expect(refusalOf(uri, { ...all, localFile: true })).toMatchObject({ code: 'EPERM' });
  });
});

describe('formatUri', () => {
  const tcpParts: NbdUriParts = { transport: 'tcp', tls: false, exportName: '', host: 'h', port: 10809 };

  it.each<[NbdUriParts, string]>([
    [tcpParts, 'nbd://h:10809/'],
    [{ ...tcpParts, tls: true, host: '::1', exportName: '/a b' }, 'nbds://[::1]:10809//a%20b'],
    [{ ...tcpParts, host: 'fe80::1%eth0', tlsUsername: 'a:b@c' }, 'nbd://a%3Ab%40c@[fe80::1%25eth0]:10809/'],
    [
      { ...tcpParts, tlsHostname: 'x y', tlsVerifyPeer: false },
      'nbd://h:10809/?tls-hostname=x%20y&tls-verify-peer=false',
    ],
    [{ transport: 'unix', tls: false, exportName: 'x', socketPath: '/a&b;c+d' }, 'nbd+unix:///x?socket=/a%26b%3Bc%2Bd'],
    [{ transport: 'unix', tls: true, exportName: '', socketPath: '\0n' }, 'nbds+unix:///?socket=%00n'],
    [{ transport: 'vsock', tls: false, exportName: '', cid: 2, port: 5 }, 'nbd+vsock://2:5/'],
    [{ transport: 'vsock', tls: false, exportName: '', cid: 2, port: 2 ** 31 }, 'nbd+vsock://2/?nbd-port=2147483648'],
  ])('%j', (parts, expected) => {
    expect(formatUri(parts)).toBe(expected);
  });
});
