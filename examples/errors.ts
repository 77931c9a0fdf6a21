// Errors: a class says who refused, a code says why.
import { NbdCommandError, NbdConnection, NbdError, NbdOptionError, NbdStrictError } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

await using server = new NbdServer({ exports: { disk: new MemoryBackend(1024 * 1024, { readOnly: true }) } });
await server.listenTcp();

async function tell(what: string, promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
    console.log(`${what}: fine`);
  } catch (error) {
    // Anything else is a bug, or the reason of an AbortSignal.
    if (!(error instanceof NbdError)) throw error;
    console.log(`${what}: ${explain(error)}`);
  }
}

function explain(error: NbdError): string {
  if (error instanceof NbdStrictError) return `${error.code}, refused here, nothing was sent`;
  if (error instanceof NbdCommandError) return `${error.code}, said the server: ${error.serverMessage}`;
  if (error instanceof NbdOptionError) return `${error.code}, the server refuses export ${error.exportName}`;
  switch (error.code) {
    case 'ECONNREFUSED':
      return 'nobody listens there';
    case 'ETIMEDOUT':
      return 'no answer in time';
    case 'ENOTCONN':
      return `the connection is gone, because: ${String(error.cause)}`;
    default:
      return `${error.name} ${error.code}: ${error.message}`;
  }
}

await tell('a port without a server', NbdConnection.connect('nbd://127.0.0.1:1'));
await tell('an unknown export', NbdConnection.connect(server.uri('tape')));

await using connection = await NbdConnection.connect(server.uri('disk'));
await tell('a read', connection.pread(512, 0));
await tell('a read beyond the end', connection.pread(512, 1024 * 1024));
await tell('a write', connection.pwrite(Buffer.alloc(512), 0));
await tell('half a byte', connection.pread(0.5, 0));

server.faults.push({ command: 'read', times: 1, error: 'EIO', message: 'a bad sector' });
await tell('a failing read', connection.pread(512, 0));
await tell('the next read', connection.pread(512, 0));

server.faults.push({ command: 'read', cut: 'close' });
await tell('a lost connection', connection.pread(512, 0));
