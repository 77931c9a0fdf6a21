import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';

import { duplexPair } from '../../lib/transport/memory.js';
import { PSK_CIPHERS } from '../../lib/transport/psk.js';
import { StreamTransport } from '../../lib/transport/stream.js';
import { acceptTls } from '../../lib/transport/tls-server.js';

const KEY = Buffer.alloc(16, 7);

const SERVER = { ciphers: PSK_CIPHERS, dhparam: 'auto', pskCallback: () => KEY } as const;

function open(): { server: Duplex; client: Duplex; raw: StreamTransport } {
  const [server, client] = duplexPair();
  client.on('error', () => undefined);
  return { server, client, raw: new StreamTransport(server, 'the client') };
}

function secure(client: Duplex, key: Buffer): TLSSocket {
  const socket = connect({
    socket: client,
    ciphers: PSK_CIPHERS,
    minVersion: 'TLSv1.2',
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ identity: 'u', psk: key }),
  });
  socket.on('error', () => undefined);
  return socket;
}

describe('acceptTls', () => {
  it('delivers what is sent under TLS, and encrypts what is written', async () => {
    const { client, raw } = open();
    const accepted = acceptTls(raw, SERVER);
    const socket = secure(client, KEY);
    socket.write('ping');
    const transport = await accepted;
    expect(transport.description).toBe('the client');
    const received = new Promise((resolve) => {
      transport.start({
        push: (chunk) => resolve(Buffer.from(chunk).toString()),
        end: () => undefined,
        close: resolve,
      });
    });
    expect(await received).toBe('ping');
    transport.write([Buffer.from('po'), Buffer.from('ng')], () => undefined);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toBe('pong');
    transport.destroy();
  });

  it.each<[string, (client: Duplex) => void, RegExp]>([
    ['garbage', (client) => void client.write('GET / HTTP/1.1\r\n\r\n'), /^(ERR_SSL_|EPROTO)/],
    ['a wrong key', (client) => void secure(client, Buffer.alloc(16, 8)), /^(ERR_SSL_|EPROTO)/],
    ['a broken stream', (client) => void client.destroy(new Error('broken')), /^ECONNRESET$/],
  ])('rejects after %s, once the stream has closed', async (_name, attack, code) => {
    const { server, client, raw } = open();
    const accepted = acceptTls(raw, SERVER).then(
      () => 'accepted',
      (error: unknown) => ({ code: (error as NodeJS.ErrnoException).code, closed: server.closed }),
    );
    attack(client);
    expect(await accepted).toEqual({ code: expect.stringMatching(code), closed: true });
  });

  it('rejects when the transport is destroyed meanwhile', async () => {
    const { raw } = open();
    const accepted = acceptTls(raw, SERVER);
    raw.destroy();
    await expect(accepted).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  it('rejects for options that node:tls does not take', async () => {
    const { server, raw } = open();
    await expect(acceptTls(raw, { minVersion: 'TLSv9' as never })).rejects.toMatchObject({
      code: 'ERR_TLS_INVALID_PROTOCOL_VERSION',
    });
    expect(server.closed).toBe(true);
  });
});
