// Handles errors: the class shows where the error comes from, the code shows the reason.
import { NbdCommandError, NbdConnection, NbdError, NbdOptionError, NbdStrictError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({ exports: { disk: new MemoryBackend(1024 * 1024, { readOnly: true }) } });
await server.listenTcp();

async function attempt(what: string, promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
    console.log(`${what}: succeeded`);
  } catch (error) {
    // Every other error is a bug, or the reason of an AbortSignal.
    if (!(error instanceof NbdError)) throw error;
    console.log(`${what}: ${explain(error)}`);
  }
}

function explain(error: NbdError): string {
  if (error instanceof NbdStrictError) return `${error.code}, refused by the client, nothing was sent`;
  if (error instanceof NbdCommandError) return `${error.code}, reported by the server: ${error.serverMessage}`;
  if (error instanceof NbdOptionError) return `${error.code}, the server refused export ${error.exportName}`;
  switch (error.code) {
    case 'ECONNREFUSED':
      return 'no server is listening';
    case 'ETIMEDOUT':
      return 'no reply in time';
    case 'ENOTCONN':
      return `connection lost, cause: ${String(error.cause)}`;
    default:
      return `${error.name} ${error.code}: ${error.message}`;
  }
}

await attempt('a port without a server', NbdConnection.connect('nbd://127.0.0.1:1'));
await attempt('an unknown export', NbdConnection.connect(server.uri('tape')));

await using connection = await NbdConnection.connect(server.uri('disk'));
await attempt('a read', connection.pread(512, 0));
await attempt('a read beyond the end', connection.pread(512, 1024 * 1024));
await attempt('a write', connection.pwrite(Buffer.alloc(512), 0));
await attempt('half a byte', connection.pread(0.5, 0));

server.faults.push({ command: 'read', times: 1, error: 'EIO', message: 'a bad sector' });
await attempt('a failing read', connection.pread(512, 0));
await attempt('the next read', connection.pread(512, 0));

server.faults.push({ command: 'read', cut: 'close' });
await attempt('a lost connection', connection.pread(512, 0));
