// URIs: what they contain, what they may do, and the URI of a connection.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { caught } from '../../support/caught.js';
import { EXPORT, pattern } from '../image.js';
import { expectBytes, failure, type Group, OK, type Rung } from '../rung.js';

/** A URI that is refused before anything is opened. */
const bad =
  (code: string, uri: (of: string) => string, options: nbd.NbdConnectionOptions = {}): Rung =>
  async ({ create, server }) => {
    const c = create(options);
    expect(await failure(c.connectUri(uri(server.uri)))).toMatchObject({ code, name: 'NbdStrictError' });
    expect(c.aioIsCreated()).toBe(true);
    return OK;
  };

/** A URI that connects all the same. */
const good =
  (uri: (of: string) => string): Rung =>
  async ({ create, server }) => {
    const c = create({ exportName: '' });
    await c.connectUri(uri(server.uri));
    expect(c.getExportName()).toBe(EXPORT);
    expectBytes(await c.pread(512, 512), pattern(512, 512));
    return OK;
  };

export const URIS: Group = {
  name: 'URIs',
  rungs: {
    isUri: async ({ server }) => {
      expect([server.uri, server.readOnly.uri].map((uri) => nbd.NbdConnection.isUri(uri))).toEqual([true, true]);
      expect([server.path, 'http://localhost/', 'nbd:localhost'].map(nbd.NbdConnection.isUri)).toEqual([
        ...[false, false, false],
      ]);
      return OK;
    },
    'getUri leads to the same export': async ({ connect, create }) => {
      const uri = (await connect()).getUri();
      const c = create({ exportName: '' });
      await c.connectUri(uri);
      expect([c.getUri(), c.getExportName()]).toEqual([uri, EXPORT]);
      return OK;
    },
    'getUri, over TCP': async ({ connectReadOnly, create, server }) => {
      const uri = (await connectReadOnly()).getUri();
      expect(uri).toContain(`:${server.readOnly.port}/`);
      const c = create({ exportName: '' });
      await c.connectUri(uri);
      expect(c.isReadOnly()).toBe(true);
      return OK;
    },
    'getUri before connecting': async ({ create }) => {
      expect(caught(() => create().getUri())).toMatchObject({ code: 'ENOTCONN' });
      return OK;
    },
    'the scheme in capitals': good((uri) => uri.replace('nbd+unix', 'NBD+Unix')),
    'escapes in the name': good((uri) => uri.replace('/ladder', '/%6Cadder')),
    'an unknown parameter is ignored': good((uri) => `${uri}&colour=blue`),
    'a parameter in capitals': good((uri) => uri.replace('?socket=', '?SOCKET=')),
    'a URI without a name keeps the name that was set': async ({ create, server }) => {
      const c = create();
      await c.connectUri(server.uri.replace(`/${EXPORT}`, '/'));
      expect(c.getExportName()).toBe(EXPORT);
      return OK;
    },
    'no scheme that there is': bad('EINVAL', (uri) => uri.replace('nbd+unix', 'nbd+pigeon')),
    'a Unix socket without its path': bad('EINVAL', (uri) => uri.replace(/\?.*/, '')),
    'a socket for TCP': bad('EINVAL', () => 'nbd://localhost/?socket=/nowhere'),
    'a transport that is not allowed': bad('EPERM', (uri) => uri, {
      uriAllowTransports: nbd.ALLOW_TRANSPORT_MASK & ~nbd.ALLOW_TRANSPORT_UNIX,
    }),
    'no TLS where it must be': bad('EPERM', (uri) => uri, { uriAllowTls: nbd.TLS_REQUIRE }),
    'TLS where it must not be': bad('EPERM', (uri) => uri.replace('nbd+', 'nbds+'), { uriAllowTls: nbd.TLS_DISABLE }),
    'local files that are not allowed': bad('EPERM', (uri) => `${uri}&tls-psk-file=/nowhere`),
  },
};
