// What a URI may not undo, what getUri returns for an encrypted connection, and the session of XenServer's URIs.

import { describe, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, TLS_ALLOW, TLS_DISABLE } from '../../../lib/index.js';
import { NbdServer, PatternBackend } from '../../../lib/server/index.js';
import { parseUri } from '../../../lib/protocol/uri.js';
import { formatUri } from '../../../lib/protocol/uri-format.js';
import { caught, rejection } from '../../support/caught.js';
import { makeCertificates } from '../../support/certificates.js';
import { newConnection } from '../../support/raw-server.js';
import { hasTool } from '../../support/tools.js';

const NOWHERE = 'nbds+unix:///?socket=/nowhere/at/all';

describe('a URI and what the program has set', () => {
  type Row = readonly [title: string, parameter: string, set: NbdConnectionOptions, code: 'EPERM' | 'ENOENT'];
  const ROWS: readonly Row[] = [
    ['no verification, against true', 'tls-verify-peer=no', { tlsVerifyPeer: true }, 'EPERM'],
    ['verification, against false', 'tls-verify-peer=yes', { tlsVerifyPeer: false }, 'EPERM'],
    ['no verification, as set', 'tls-verify-peer=no', { tlsVerifyPeer: false }, 'ENOENT'],
    ['no verification, unset', 'tls-verify-peer=no', {}, 'ENOENT'],
    ['another name', 'tls-hostname=evil.example', { tlsHostname: 'good.example' }, 'EPERM'],
    ['a name, where no name is set', 'tls-hostname=evil.example', { tlsHostname: '' }, 'EPERM'],
    ['the name that was set', 'tls-hostname=good.example', { tlsHostname: 'good.example' }, 'ENOENT'],
    ['a name, unset', 'tls-hostname=good.example', {}, 'ENOENT'],
    ['certificates, against a key', 'tls-type=x509', { tlsPsk: { key: 'abcd' } }, 'EPERM'],
    ['certificates, against a file of keys', 'tls-type=x509', { tlsPskFile: '/nowhere' }, 'EPERM'],
    ['certificates, unset', 'tls-type=x509', {}, 'ENOENT'],
    ['undefined is unset', 'tls-hostname=good.example', { tlsHostname: undefined }, 'ENOENT'],
  ];

  it.each(ROWS)('%s', async (_title, parameter, set, code) => {
    const connection = newConnection(set);
    const error = await rejection(connection.connectUri(`${NOWHERE}&${parameter}`));
    expect(error).toMatchObject({ code });
    if (code !== 'EPERM') return;
    expect(error).toMatchObject({ name: 'NbdStrictError', syscall: 'connectUri' });
    expect((error as Error).message).toMatch(/the URI's tls-\S+ contradicts tls\w+, which the program has set/);
    expect(connection.aioIsCreated()).toBe(true);
    expect(caught(() => connection.aioConnectUri(`${NOWHERE}&${parameter}`))).toMatchObject({ code });
    expect(await rejection(NbdConnection.connect(`${NOWHERE}&${parameter}`, set))).toMatchObject({ code });
  });

  it('set by a function, which is the same', async () => {
    const connection = newConnection();
    connection.setTlsVerifyPeer(true);
    expect(await rejection(connection.connectUri(`${NOWHERE}&tls-verify-peer=no`))).toMatchObject({ code: 'EPERM' });
    expect(connection.getTlsVerifyPeer()).toBe(true);
    const named = newConnection();
    named.setTlsHostname('good.example');
    expect(await rejection(named.connectUri(`${NOWHERE}&tls-hostname=x`))).toMatchObject({ code: 'EPERM' });
    expect(named.getTlsHostname()).toBe('good.example');
  });

  it('what a URI has set is not what the program has set', async () => {
    const connection = newConnection();
    const uri = (parameters: string): string => `nbds://localhost:1/?${parameters}`;
    expect(await rejection(connection.connectUri(uri('tls-verify-peer=no')))).toMatchObject({ code: 'ECONNREFUSED' });
    expect(await rejection(connection.connectUri(uri('tls-verify-peer=yes')))).toMatchObject({ code: 'ECONNREFUSED' });
  });
});

(hasTool('openssl') ? describe : describe.skip)('getUri', () => {
  it.each([
    ['TLS_ALLOW that led to TLS', TLS_ALLOW, true, /^nbds\+unix:/],
    ['TLS_ALLOW that did not', TLS_ALLOW, false, /^nbd\+unix:/],
    ['TLS_DISABLE', TLS_DISABLE, false, /^nbd\+unix:/],
  ])('after %s', async (_title, tls, secure, scheme) => {
    const certificates = await makeCertificates();
    try {
      await using server = new NbdServer({
        exports: { disk: new PatternBackend(4096) },
        ...(secure ? { tls: 'on', tlsOptions: certificates.server } : {}),
      });
      const connection = newConnection({ exportName: 'disk', tls, ca: certificates.ca, tlsHostname: 'localhost' });
      await server.listenUnix(`${certificates.folder}/s`);
      await connection.connectUnix(`${certificates.folder}/s`);
      expect(connection.getTlsNegotiated()).toBe(secure);
      expect(connection.getUri()).toMatch(scheme);
      await connection.shutdown();
    } finally {
      await certificates.remove();
    }
  });
});

describe('session_id', () => {
  it.each([
    ['nbd://xen/some-uuid?session_id=OpaqueRef:1', '/some-uuid?session_id=OpaqueRef:1'],
    ['nbd://xen:10809//some-uuid?session_id=OpaqueRef%3a1', '/some-uuid?session_id=OpaqueRef%3a1'],
    ['nbds://xen/some-uuid?tls-verify-peer=0&SESSION_ID=a&colour=blue', '/some-uuid?session_id=a'],
    ['nbd+unix:///some-uuid?socket=/s&session_id=a', '/some-uuid?session_id=a'],
  ])('is part of the export name: %s', (text, name) => {
    const uri = parseUri(text);
    expect(uri).toMatchObject({ exportName: name, hasSession: true });
    const { unknownParameters, ...parts } = uri;
    expect(unknownParameters).toEqual(text.includes('colour') ? ['colour'] : []);
    expect(parseUri(formatUri(parts)).exportName).toBe(name);
  });

  it.each(['nbd://xen/?session_id=a', 'nbd://xen?session_id=a'])('names no export by itself: %s', (text) => {
    expect(parseUri(text)).toMatchObject({ exportName: '', unknownParameters: ['session_id'] });
  });

  it('reaches the server, and no message', async () => {
    await using server = new NbdServer({ exports: { '/uuid?session_id=Secret': new PatternBackend(4096) } });
    await server.listenTcp();
    const at = new URL(server.uri('')).host;
    const connection = newConnection();
    await connection.connectUri(`nbd://${at}/uuid?session_id=Secret`);
    expect(connection.getExportName()).toBe('/uuid?session_id=Secret');
    await connection.shutdown();
    const wrong = newConnection();
    const error = (await rejection(wrong.connectUri(`nbd://${at}/uuid?session_id=Expired`))) as Error;
    expect(error).toMatchObject({ code: 'ENOENT' });
    expect(error.message).not.toContain('Expired');
    const shown = newConnection({ maskExportName: false });
    const told = (await rejection(shown.connectUri(`nbd://${at}/uuid?session_id=Shown`))) as Error;
    expect(told.message).toContain('Shown');
  });
});
