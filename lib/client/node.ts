// `NbdConnection` of the main entry: what Node adds to a connection. Sockets, programs, TLS, Buffers.

import type { Duplex } from 'node:stream';
import { inspect } from 'node:util';
import { parseUri } from '../protocol/uri.js';
import type { WebSocketLike, WebStreams } from '../transport/web/types.js';
import type { Buffer } from '../util/buffer.js';
import { operatingSystem } from '../util/platform.js';
import { visibleInspection } from '../util/visible.js';
import { lifecycleOf } from './api/settings.js';
import { type ConnectOptions, connectNew, NbdConnectionBase } from './connection.js';
import { activationTarget, commandTarget, vsockTarget } from './connect/process-targets.js';
import { isPlace, namedTarget, type NbdTarget, streamTarget, tcpTarget, unixTarget } from './connect/targets.js';
import { uriOf, uriTarget } from './connect/uri-target.js';
import { isWebSocketUrl, webSocketUrlTarget } from './connect/web-targets.js';
import { type NbdConnectionOptions, shownExportName } from './options/options.js';
import type { ClientPlatform } from './platform.js';
import { ResultMemory } from './transmission/result-memory.js';

const NODE: ClientPlatform = {
  supportsTls: true,
  supportsVsock: operatingSystem() === 'linux',
  unsupported: new Set(),
  targets: {
    uri: (method, text, settings) =>
      isWebSocketUrl(text)
        ? webSocketUrlTarget(method, text, settings)
        : uriTarget(method, parseUri(text, method), settings),
    tcp: tcpTarget,
    unix: unixTarget,
    vsock: vsockTarget,
    command: commandTarget,
    activation: activationTarget,
    stream: streamTarget,
    named: namedTarget,
    isPlace,
  },
  uriOf,
  loadTls: async (settings) => (await import('./tls/setup.js')).TlsSetup.load(settings),
  makeMemory: () => new ResultMemory(),
};

/**
 * A connection to one export of an NBD server, modelled on libnbd's `struct nbd_handle`.
 *
 * Every command comes in two forms. The promise form (`cache`) takes an `AbortSignal` and rejects with an
 * {@link NbdError}; it never throws. The raw form (`aioCache`) returns a cookie at once, takes an optional completion
 * callback, and throws when it refuses a call.
 */
export class NbdConnection extends NbdConnectionBase<Buffer, Duplex | WebSocketLike | WebStreams> {
  /**
   * Creates a connection that is not connected yet (libnbd: `nbd_create`).
   *
   * @throws NbdStrictError `EINVAL` for an unknown or ill-typed option, `ENAMETOOLONG` for a name above 4096 bytes.
   */
  constructor(options?: NbdConnectionOptions) {
    super(options, NODE);
  }

  /**
   * Creates a connection, connects it and completes the handshake: one call to a connection that is ready for commands.
   *
   * @param target An NBD URI (`nbd://host/export`, `nbd+unix:///export?socket=PATH`), `{ host, port }`, `{ path }` of a
   *   Unix socket, `{ command }` or `{ socketActivation }` with the program and its arguments (see
   *   {@link connectCommand} and {@link connectSystemdSocketActivation}), `{ cid, port }` for vsock, or any connected
   *   Duplex.
   * @param options As for the constructor; `signal` aborts the attempt at any point, and the promise rejects with its
   *   reason. `waitFor`: milliseconds to keep trying while no server is listening yet (connection refused, no such
   *   socket, closed at once); default 0, Infinity for no limit. A stream and a program are tried once.
   * @throws (rejects) NbdStrictError for bad input; NbdConnectionError with the transport's code (`ECONNREFUSED`,
   *   `ENOENT`, `ENOTFOUND` …) or `ETIMEDOUT`; NbdOptionError when the server refuses (`ENOENT` for an unknown
   *   export, `ENOTSUP` when it requires TLS); NbdProtocolError `EPROTO` when the server breaks the protocol. With TLS:
   *   NbdConnectionError `EACCES` when one side does not accept the other's certificate, name or key, and `EPROTO`
   *   when no session can be established (versions, ciphers), both with node:tls's error as the cause; NbdStrictError
   *   when a file cannot be read or used, before anything is opened.
   */
  static connect(target: NbdTarget, options?: ConnectOptions): Promise<NbdConnection> {
    return connectNew((settings) => new NbdConnection(settings), NODE.targets, target, options);
  }

  /** @internal */
  [inspect.custom](_depth: number, options: { readonly colors?: boolean | undefined }): string {
    const { settings, session, state, inFlight, target } = lifecycleOf(this);
    const facts = {
      state,
      target: target?.description,
      exportName: shownExportName(settings),
      size: session?.info == null ? undefined : BigInt(session.info.size),
      inFlight,
    };
    const shown = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
    return `NbdConnection ${visibleInspection(inspect(shown, options), options.colors === true)}`;
  }
}
