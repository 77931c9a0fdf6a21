// A WebSocket or a pair of web streams that a client is connected by.

import { isWebSocket, isWebStreams } from '../../transport/web/types.js';
import { WebSocketTransport } from '../../transport/web/web-socket.js';
import { WebStreamsTransport } from '../../transport/web/web-streams.js';
import { checkOptions, refuse, wholeNumber } from '../../util/option-checks.js';
import type { ServedStream } from '../server-connection.js';

/** Options of `serve(stream)` for a WebSocket. */
export interface ServeOptions {
  /**
   * Bytes of requests that may arrive while the server does not read, because its client does not read the replies: a
   * WebSocket cannot be paused. Above it the connection is closed. Default 134,217,728.
   */
  readonly maxUnread?: number | undefined;
}

/** Takes ownership of the stream; null for anything else. Throws an NbdStrictError for streams that are locked. */
export function webStream(stream: unknown, options?: ServeOptions): ServedStream | null {
  const checked = checkOptions<ServeOptions>('serve', options, { maxUnread: wholeNumber(1) });
  if (isWebSocket(stream)) {
    const transport = new WebSocketTransport(stream, 'the client', { ahead: 0, ...checked });
    return { transport, isDestroyed: stream.readyState > 1 };
  }
  if (!isWebStreams(stream)) return null;
  try {
    return { transport: new WebStreamsTransport(stream, 'the client'), isDestroyed: false };
  } catch (error) {
    throw refuse('serve', `the streams cannot be used: ${(error as Error).message}`);
  }
}
