// Tunnels NBD through an HTTP server: the socket of an upgraded request becomes the stream of the connection.
import { once } from 'node:events';
import { createServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, type Socket } from 'node:net';
import { NbdConnection } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const TOKEN = 'letmein';

await using server = new NbdServer({ exports: { disk: new MemoryBackend(1024 * 1024) } });

// The gateway passes clients with the token to the NBD server; others get an HTTP error.
const gateway = createServer((_, response) => response.writeHead(426, { Upgrade: 'nbd' }).end());
gateway.on('upgrade', ({ headers }: IncomingMessage, socket: Socket) => {
  if (headers.upgrade !== 'nbd' || headers.authorization !== `Bearer ${TOKEN}`) {
    socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: nbd\r\n\r\n');
  server.serve(socket);
});
await once(gateway.listen(0, '127.0.0.1'), 'listening');
const { port } = gateway.address() as AddressInfo;

/** Requests an upgrade and returns the socket. Throws if the gateway refuses. */
async function upgrade(token: string): Promise<Socket> {
  const headers = { Connection: 'Upgrade', Upgrade: 'nbd', Authorization: `Bearer ${token}` };
  const asked = request({ host: '127.0.0.1', port, headers }).end();
  const refused = once(asked, 'response').then(([response]: IncomingMessage[]) => {
    response?.resume();
    throw new Error(`the gateway responded with status ${response?.statusCode ?? 'unknown'}`);
  });
  const [, socket, head] = (await Promise.race([once(asked, 'upgrade'), refused])) as [IncomingMessage, Socket, Buffer];
  // In NBD, the server sends first: its greeting may have arrived together with the response.
  if (head.length > 0) socket.unshift(head);
  return socket;
}

const connection = new NbdConnection({ exportName: 'disk' });
await connection.connectSocket(await upgrade(TOKEN));
await connection.pwrite(Buffer.from('through HTTP'), 4096);
console.log(`${connection.getSize()} bytes, and at 4096: ${String(await connection.pread(12, 4096))}`);
await connection.shutdown();

await upgrade('guess').catch((error: unknown) => console.log((error as Error).message));
gateway.close();
