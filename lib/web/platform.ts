// What browsers, workers, Deno and Bun have in common: WebSockets and streams, no sockets, programs, files or TLS.

import type { Target } from '../client/connect/target.js';
import { isWebSocketUrl, webSocketUrlTarget, webStreamTarget } from '../client/connect/web-targets.js';
import { refuse, shown } from '../client/options/checks.js';
import type { ClientPlatform } from '../client/platform.js';
import { isUri } from '../protocol/uri.js';

const NEEDS_NODE = 'is not possible here: connect to a ws: or wss: URL, a WebSocket or web streams';

const unsupported =
  (what: string) =>
  (method: string): never => {
    throw refuse(method, `${what} ${NEEDS_NODE}`, 'ENOTSUP');
  };

const allocate = (length: number): Uint8Array => new Uint8Array(length);
const MEMORY = { allocate, allocateZeroed: allocate };

function streamTarget(method: string, stream: unknown): Target {
  const target = webStreamTarget(method, stream);
  if (target !== null) return target;
  throw refuse(method, `must be a WebSocket or { readable, writable } of web streams, not ${shown(stream)}`);
}

export const WEB: ClientPlatform = {
  supportsTls: false,
  supportsVsock: false,
  unsupported: new Set([
    ...(['tlsCertificates', 'tlsPskFile', 'tlsPsk', 'tlsVerifyPeer', 'tlsHostname', 'tlsUsername'] as const),
    ...(['tlsPriority', 'ca', 'cert', 'key', 'passphrase', 'crl'] as const),
    ...(['socketActivationName', 'subprocessStderr'] as const),
  ]),
  targets: {
    uri: (method, text, settings) => {
      if (isWebSocketUrl(text)) return webSocketUrlTarget(method, text, settings);
      if (isUri(text)) throw refuse(method, `an NBD URI ${NEEDS_NODE}`, 'ENOTSUP');
      throw refuse(method, 'the URL must start with ws:// or wss://');
    },
    tcp: unsupported('TCP'),
    unix: unsupported('a Unix socket'),
    vsock: unsupported('AF_VSOCK'),
    command: unsupported('a program'),
    activation: unsupported('a program'),
    stream: streamTarget,
    named: streamTarget,
    isPlace: () => false,
  },
  uriOf: (method, target) => {
    if (target?.uri !== undefined) return target.uri;
    throw refuse(method, `${target?.description ?? 'this connection'} has no URI`);
  },
  loadTls: () => Promise.resolve(null),
  makeMemory: () => MEMORY,
};
