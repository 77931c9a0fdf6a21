// What is written is read back, and nothing but our own error escapes.

import { isIPv6 } from 'node:net';

import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';

import { NbdStrictError } from '../../lib/errors.js';
import { formatUri } from '../../lib/protocol/uri-format.js';
import { isIpv6 } from '../../lib/protocol/uri-parts.js';
import type { NbdUriParts } from '../../lib/protocol/uri-parts.js';
import { isUri, parseUri } from '../../lib/protocol/uri.js';
import type { NbdUri } from '../../lib/protocol/uri.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';

describe(withSeed('properties'), () => {
  const text = fc.string({ unit: 'binary', maxLength: 30 }).filter((value) => !value.includes('\0'));
  const name = text.filter((value) => value !== '');
  const words = (first: string, rest: string): fc.Arbitrary<string> =>
    fc
      .tuple(
        fc.constantFrom(...first.split('')),
        fc.string({ unit: fc.constantFrom(...rest.split('')), maxLength: 20 }),
      )
      .map(([head, tail]) => head + tail);
  const ipv6 = fc
    .tuple(fc.ipV6(), fc.constantFrom('', '%eth0', '%25', '%2525x'))
    .map(([address, zone]) => address + zone);
  const host = fc.oneof(fc.domain(), fc.ipV4(), ipv6, fc.constantFrom('localhost', 'exämple', '-', '_', 'a+b'));
  const port = fc.integer({ min: 1, max: 0xffff });
  const u32 = fc.nat({ max: 0xffff_ffff });
  const alphanumeric = 'abcXYZ019_';

  const common = {
    tls: fc.boolean(),
    exportName: text,
    tlsUsername: name,
    tlsCertificates: name,
    tlsPskFile: name,
    tlsHostname: name,
    tlsPriority: name,
    tlsVerifyPeer: fc.boolean(),
    tlsType: fc.constantFrom('anon' as const, 'x509' as const, 'psk' as const),
  };
  const requiredKeys = ['tls', 'exportName', 'transport'] as const;
  const parts: fc.Arbitrary<NbdUriParts> = fc.oneof(
    fc.record(
      { ...common, transport: fc.constant('tcp' as const), host, port },
      { noNullPrototype: true, requiredKeys: [...requiredKeys, 'host', 'port'] },
    ),
    fc.record(
      {
        ...common,
        transport: fc.constant('unix' as const),
        socketPath: fc.tuple(fc.constantFrom('', '\0'), name).map(([first, rest]) => first + rest),
      },
      { noNullPrototype: true, requiredKeys: [...requiredKeys, 'socketPath'] },
    ),
    fc.record(
      { ...common, transport: fc.constant('vsock' as const), cid: u32, port: u32.map((value) => value || 1) },
      { noNullPrototype: true, requiredKeys: [...requiredKeys, 'cid', 'port'] },
    ),
    fc
      .record(
        {
          ...common,
          transport: fc.constant('ssh' as const),
          host: fc.oneof(words(alphanumeric, `${alphanumeric}.-`), ipv6),
          port,
          user: words(`${alphanumeric}.`, `${alphanumeric}.@+-`),
          socketPath: words(`${alphanumeric}./`, `${alphanumeric}./@:,+=-`),
          nbdPort: port,
          compress: fc.boolean(),
        },
        { noNullPrototype: true, requiredKeys: [...requiredKeys, 'host', 'port', 'nbdPort', 'compress'] },
      )
      // A user name of the authority serves for TLS too.
      .map((ssh) => (ssh.user === undefined ? ssh : { tlsUsername: ssh.user, ...ssh })),
  );

  it('parseUri reads what formatUri writes', () => {
    fc.assert(
      fc.property(parts, (written) => {
        const uri = formatUri(written);
        const { scheme, unknownParameters, ...read } = parseUri(uri);
        expect(read).toStrictEqual(written);
        expect(unknownParameters).toEqual([]);
        expect(uri.startsWith(`${scheme}://`)).toBe(true);
        expect(isUri(uri)).toBe(true);
        expect(uri).toMatch(/^[\x21-\x7e]+$/);
      }),
      { seed: SEED, numRuns: IS_LONG ? 2000 : 500 },
    );
  });

  it('parseUri refuses with NbdStrictError or gives what can be written', () => {
    const pieces = [
      ...[
        'nbd',
        'nbds',
        '+unix',
        '+vsock',
        '+ssh',
        '://',
        ':',
        '/',
        '//',
        '?',
        '#',
        '&',
        ';',
        '=',
        '@',
        '[',
        ']',
        '::1',
      ],
      ...[
        '%',
        '%00',
        '%41',
        '%FF',
        '%C3%A9',
        '%25',
        '-',
        '1',
        '65536',
        'h',
        ' ',
        '\n',
        'é',
        '\\',
        '..',
        '+',
        '$(id)',
        "'",
      ],
      ...[
        'socket=',
        'SOCKET',
        'nbd-port=',
        'compress=',
        'tls-type=psk',
        'tls-verify-peer=',
        'tls-hostname=',
        'tls-username=',
      ],
    ];
    const start = fc.constantFrom('', 'nbd://', 'nbds://', 'nbd+unix:///?socket=/s&', 'nbd+vsock://', 'NBDS+ssh://h');
    const junk = fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((list) => list.join(''));
    fc.assert(
      fc.property(start, fc.oneof(junk, fc.string({ unit: 'binary' })), (head, tail) => {
        let read: NbdUri;
        try {
          read = parseUri(head + tail);
        } catch (error) {
          expect(error).toBeInstanceOf(NbdStrictError);
          expect(error).toMatchObject({ code: 'EINVAL', syscall: 'connectUri' });
          return;
        }
        expect(isUri(head + tail)).toBe(true);
        expect(parseUri(formatUri(read))).toStrictEqual({ ...read, unknownParameters: [] });
      }),
      { seed: SEED, numRuns: IS_LONG ? 5000 : 1000 },
    );
  });

  it('isIpv6 agrees with node:net', () => {
    const near = fc.string({ unit: fc.constantFrom(...'019af:::..'.split('')), maxLength: 20 });
    fc.assert(
      fc.property(
        fc.oneof(
          near,
          fc.ipV6(),
          fc.tuple(fc.ipV6(), near).map(([a, b]) => a + b),
        ),
        (address) => {
          expect(isIpv6(address)).toBe(isIPv6(address));
        },
      ),
      { seed: SEED, numRuns: IS_LONG ? 5000 : 1000 },
    );
  });
});
