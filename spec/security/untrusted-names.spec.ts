// Names that come from strangers: in URIs, where they must not name files or reach any server before they are allowed,
// and names that JavaScript itself has a meaning for.

import { afterEach, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';

import { NbdConnection, type NbdConnectionOptions } from '../../lib/index.js';
import { parseUri } from '../../lib/protocol/uri.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { join, on, optionReply, ScriptedPeer, u32 } from '../../lib/testing/index.js';
import { rejection } from '../support/caught.js';

const JAVASCRIPT = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', 'then'];
const prototypeBefore = Object.getOwnPropertyNames(Object.prototype).sort();

afterEach(() => {
  expect(Object.getOwnPropertyNames(Object.prototype).sort()).toEqual(prototypeBefore);
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
});

describe('a URI from elsewhere', () => {
  it.each<[string, string, NbdConnectionOptions, string]>([
    ['certificates', 'tls-certificates=FOLDER', {}, 'EPERM'],
    ['keys', 'tls-psk-file=FOLDER/psk', {}, 'EPERM'],
    ['keys, in other letters', 'TLS-PSK-File=FOLDER/psk', {}, 'EPERM'],
    ['keys, percent-encoded', 'tls%2Dpsk%2Dfile=FOLDER/psk', {}, 'EPERM'],
    ['keys, as the second of two', 'tls-psk-file=FOLDER/psk&tls-psk-file=FOLDER/psk', {}, 'EPERM'],
    ['the ciphers', 'tls-priority=ALL', {}, 'EPERM'],
    ['plaintext where TLS is a must', 'foo=1', { uriAllowTls: 2 }, 'EPERM'],
    ['a transport that it may not use', 'foo=1', { uriAllowTransports: 1 }, 'EPERM'],
  ])('may not choose %s: no connection is made, and nothing is set', async (_, query, options, code) => {
    const folder = await mkdtemp(joinPath(tmpdir(), 'nbd-uri-'));
    await using peer = await ScriptedPeer.listen();
    try {
      await writeFile(joinPath(folder, 'psk'), 'alice:00\n');
      const connection = new NbdConnection(options);
      const uri = `${peer.uri('x')}&${query.replaceAll('FOLDER', folder)}`;
      expect(await rejection(connection.connectUri(uri))).toMatchObject({ name: 'NbdStrictError', code });
      expect(connection.getExportName()).toBe('');
      expect(connection.connectionState()).toBe('created');
      expect(peer.connections).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it.each(['%00', '%0A', '%0d', '%1b', '\0', '\n', '\u202e', '%E2%80%AE'])(
    'does not carry %j into a message as it is',
    async (text) => {
      for (const uri of [
        `nbd://127.0.0.1:1${text}/`,
        `nbd://h${text}/x`,
        `nbd://u${text}:p@h/x`,
        `nbd${text}://h/x`,
        `nbd+unix:///x?socket=/nonexistent/${text}`,
        `nbd+ssh://h${text}/x`,
        `nbd+ssh://u${text}@h/x`,
        `nbd+ssh://h/?socket=/${text}`,
        `nbds+unix:///x?socket=/s&tls-type=${text}`,
      ]) {
        const { message } = (await rejection(new NbdConnection().connectUri(uri))) as Error;
        // eslint-disable-next-line no-control-regex -- these are what must not be there
        if (/[\0-\x1f\x7f\u202e]/.test(message)) throw new Error(`${uri}: ${JSON.stringify(message)}`);
      }
    },
  );

  it('has parameters that are names to JavaScript diagnosed and nothing else', () => {
    const query = JAVASCRIPT.map((name) => `${name}=polluted&${name}.polluted=1&${name}[polluted]=1`).join('&');
    const { unknownParameters, ...rest } = parseUri(`nbd://localhost/x?${encodeURI(query).replace(/[[\]]/g, '.')}`);
    expect(unknownParameters).toEqual(expect.arrayContaining(JAVASCRIPT));
    expect(Object.keys(rest).sort()).toEqual(['exportName', 'host', 'port', 'scheme', 'tls', 'transport']);
  });
});

describe('names that JavaScript has a meaning for', () => {
  it.each(JAVASCRIPT)('%s is an unknown option, also inside another one', (name) => {
    const options = JSON.parse(`{"${name}": {"polluted": true}}`) as object;
    expect(() => new NbdConnection(options)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    const psk = JSON.parse(`{"tlsPsk": {"key": "00", "${name}": {"identity": "x", "polluted": true}}}`) as object;
    expect(new NbdConnection(psk)).toBeInstanceOf(NbdConnection);
  });

  it.each(JAVASCRIPT)('%s is an export only of a server that has it', async (name) => {
    await using without = new NbdServer({ exports: { '': new MemoryBackend(512) } });
    const error = await rejection(NbdConnection.connect(without.connectMemory(), { exportName: name }));
    expect(error).toMatchObject({ code: 'ENOENT' });
    const exports = Object.fromEntries([[name, new MemoryBackend(1024)]]);
    await using server = new NbdServer({ exports });
    await using connection = await NbdConnection.connect(server.connectMemory(), { exportName: name });
    expect(connection.getSize()).toBe(1024n);
  });

  it('are names of contexts and of exports like any others', async () => {
    await using peer = await ScriptedPeer.listen({
      exports: JAVASCRIPT,
      on: [
        on(10, [...JAVASCRIPT.map((name, at) => optionReply(10, 4, join(u32(at), `${name}:`))), optionReply(10, 1)]),
      ],
    });
    const connection = new NbdConnection({ optMode: true, metaContexts: JAVASCRIPT.map((name) => `${name}:`) });
    await connection.connectUnix(peer.socketPath as string);
    expect((await connection.optList()).map(({ name }) => name)).toEqual(JAVASCRIPT);
    await connection.optGo();
    expect(connection.canMetaContext('__proto__:')).toBe(true);
    expect(connection.canMetaContext('__proto__')).toBe(false);
    expect(connection.canMetaContext('constructor')).toBe(false);
    connection.close();
  });
});
