// A worker that reads from the URL that it is sent, and posts the first bytes.

import { NbdConnection } from 'nbd-sdk/web';

interface WorkerScope {
  addEventListener(type: 'message', listener: (event: { readonly data: string }) => void): void;
  postMessage(value: unknown): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.addEventListener('message', ({ data }) => {
  void (async () => {
    await using connection = await NbdConnection.connect(data);
    scope.postMessage([...(await connection.pread(16, 0))]);
  })();
});
