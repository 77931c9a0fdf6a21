// Opens WebSockets; a signal can abort at any point.

import { closeError, WebSocketTransport } from './web-socket.js';
import type { WebSocketEventLike, WebSocketLike } from './types.js';

/** Bytes of requests that a client leaves to the socket before it waits for them to be sent. */
const AHEAD = 1024 * 1024;
const OPEN = 1;
const CONNECTING = 0;

/** Resolves when the socket is open. Rejects with the signal's reason, or with an error that has a code. */
export function openWebSocket(
  socket: WebSocketLike,
  description: string,
  signal: AbortSignal,
): Promise<WebSocketTransport> {
  const transport = new WebSocketTransport(socket, description, { ahead: AHEAD });
  if (socket.readyState !== CONNECTING) {
    if (socket.readyState === OPEN) return Promise.resolve(transport);
    return Promise.reject(Object.assign(new Error('the WebSocket is closed'), { code: 'ENOTCONN' }));
  }
  return new Promise((resolve, reject) => {
    let failure: WebSocketEventLike | null = null;
    const onError = (event: WebSocketEventLike): void => {
      failure = event;
    };
    const settle = (): void => {
      socket.removeEventListener('open', onOpen);
      socket.removeEventListener('error', onError);
      socket.removeEventListener('close', onClose);
      signal.removeEventListener('abort', onAbort);
    };
    const onOpen = (): void => {
      settle();
      resolve(transport);
    };
    const onClose = ({ code = 1006, reason = '' }: WebSocketEventLike): void => {
      settle();
      reject(closeError(code, reason, failure, 'ECONNREFUSED'));
    };
    const onAbort = (): void => {
      settle();
      transport.destroy();
      reject(signal.reason as Error);
    };
    socket.addEventListener('open', onOpen);
    socket.addEventListener('error', onError);
    socket.addEventListener('close', onClose);
    signal.addEventListener('abort', onAbort);
  });
}
