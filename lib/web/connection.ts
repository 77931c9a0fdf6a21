// `NbdConnection` of the entry `nbd-sdk/web`: the connection of the main entry without what needs Node.

import { type ConnectOptions, connectNew, NbdConnectionBase } from '../client/connection.js';
import type { NbdConnectionOptions } from '../client/options/options.js';
import type { WebSocketLike, WebStreams } from '../transport/web/types.js';
import { WEB } from './platform.js';

/**
 * A connection to one export of an NBD server, over a WebSocket or a pair of web streams. It has the methods, options,
 * checks and errors of the main entry's `NbdConnection`, and reads resolve with a `Uint8Array`.
 *
 * What needs Node fails with an NbdStrictError `ENOTSUP`: `connectTcp`, `connectUnix`, `connectVsock`, `connectCommand`,
 * `connectSystemdSocketActivation`, and the options of TLS and of programs. A `wss:` URL is encrypted by the platform.
 */
export class NbdConnection extends NbdConnectionBase<Uint8Array, WebSocketLike | WebStreams> {
  /**
   * Creates a connection that is not connected yet (libnbd: `nbd_create`).
   *
   * @throws NbdStrictError `EINVAL` for an unknown or ill-typed option, `ENOTSUP` for one that needs Node.
   */
  constructor(options?: NbdConnectionOptions) {
    super(options, WEB);
  }

  /**
   * Creates a connection, connects it and completes the handshake: one call to a connection that is ready for commands.
   *
   * @param target A `ws:` or `wss:` URL, which is opened with the subprotocol `binary`; a WebSocket of your own that has
   *   not received anything yet; or any `{ readable, writable }` pair of web streams of bytes. The connection owns it.
   *   The export is named by the option `exportName`.
   * @throws (rejects) NbdStrictError for bad input; NbdConnectionError `ECONNREFUSED` when the WebSocket cannot be
   *   opened (browsers do not report why), or `ETIMEDOUT`; NbdOptionError when the server refuses; NbdProtocolError
   *   `EPROTO` when the server breaks the protocol.
   */
  static connect(target: string | URL | WebSocketLike | WebStreams, options?: ConnectOptions): Promise<NbdConnection> {
    return connectNew((settings) => new NbdConnection(settings), WEB.targets, target, options);
  }
}
