// `NbdServer` of the entry `nbd-sdk/web`: the server of `nbd-sdk/server` without listeners.

import type { NbdServerOptions } from '../server/options.js';
import { NbdServerBase } from '../server/server-base.js';
import { type ServeOptions, webStream } from '../server/streams/web-stream.js';
import type { WebSocketLike, WebStreams } from '../transport/web/types.js';
import { refuse, shown } from '../util/option-checks.js';

/**
 * An NBD server in a page or a worker. It serves on streams that are passed to it: a WebSocket to the machine that
 * attaches the export, as the virtual media of a BMC does.
 *
 * @example
 * const server = new NbdServer({ exports: { '': new BlobBackend(file) } });
 * server.serve(new WebSocket('wss://bmc/vm/0/0'));
 */
export class NbdServer extends NbdServerBase {
  /**
   * Creates a server.
   *
   * @throws NbdStrictError `EINVAL`, which names the option: an unknown one, a bad value, or an export that cannot be
   *   served; `ENOTSUP` for `tlsOptions`.
   */
  constructor(options: NbdServerOptions = {}) {
    super(options, (where) => {
      throw refuse(where, 'not supported here: a wss: URL is encrypted by the platform', 'ENOTSUP');
    });
  }

  /**
   * Serves one client. The server takes ownership of the stream and closes it; if the server is closed or has
   * `maxConnections` connections, it closes the stream at once.
   *
   * @param stream A WebSocket that has not received anything yet and may still be connecting, or a pair of web streams.
   */
  serve(stream: WebSocketLike | WebStreams, options?: ServeOptions): void {
    const served = webStream(stream, options);
    if (served !== null) this.accept(served);
    else throw refuse('serve', `the stream must be a WebSocket or a pair of web streams, not ${shown(stream)}`);
  }
}
