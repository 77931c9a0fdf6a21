// Targets that browsers and Node have in common: the URL of a WebSocket, a WebSocket, a pair of web streams.

import { ALLOW_TRANSPORT_TCP, TLS_DISABLE, TLS_REQUIRE } from '../../protocol/client-constants.js';
import { printableText } from '../../protocol/names.js';
import { openWebSocket } from '../../transport/web/open.js';
import { isWebSocket, isWebStreams, type WebSocketClass } from '../../transport/web/types.js';
import { WebStreamsTransport } from '../../transport/web/web-streams.js';
import { refuse } from '../options/checks.js';
import type { Settings } from '../options/options.js';
import type { Target } from './target.js';

/** The subprotocol that websockify and the consoles of virtual machines use for bytes. */
const SUBPROTOCOLS = ['binary'];

export const isWebSocketUrl = (text: string): boolean => /^wss?:\/\//i.test(text);

/** The target of `ws://…` or `wss://…`; the export is that of the settings. */
export function webSocketUrlTarget(method: string, text: string, settings: Settings): Target {
  const url = parse(method, text);
  const isSecure = url.protocol === 'wss:';
  if ((settings.uriAllowTransports & ALLOW_TRANSPORT_TCP) === 0) {
    throw refuse(method, `the URI's transport ${url.protocol} is not permitted (see setUriAllowTransports)`, 'EPERM');
  }
  if (settings.uriAllowTls === (isSecure ? TLS_DISABLE : TLS_REQUIRE)) {
    throw refuse(method, `the URI's TLS setting ${url.protocol} is not permitted (see setUriAllowTls)`, 'EPERM');
  }
  const Socket = settings.webSocket ?? (globalThis as { readonly WebSocket?: WebSocketClass }).WebSocket;
  if (Socket === undefined) {
    throw refuse(
      method,
      'this runtime has no WebSocket: pass a class as the option webSocket, such as that of the npm package ws (Node has one from version 22)',
      'ENOTSUP',
    );
  }
  // Without what may be a credential: user, password and query.
  const description = printableText(`${url.protocol}//${url.host}${url.pathname}`);
  return {
    description,
    mayRetry: true,
    noTls: isSecure ? 'the WebSocket is encrypted already' : 'use a wss: URL, which is encrypted',
    uri: text,
    open: (signal) => openWebSocket(new Socket(text, SUBPROTOCOLS), description, signal),
  };
}

function parse(method: string, text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || url.hostname === '') throw refuse(method, 'the URL of the WebSocket is invalid');
  if (url.hash !== '') throw refuse(method, 'the URL of a WebSocket cannot have a fragment');
  return url;
}

/** The target for a WebSocket or a pair of web streams; null for anything else. */
export function webStreamTarget(method: string, stream: unknown): Target | null {
  const noTls = 'it is not possible inside of a WebSocket or of web streams';
  if (isWebSocket(stream)) {
    const description = 'a given WebSocket';
    return {
      description,
      mayRetry: false,
      noTls,
      open: (signal) => openWebSocket(stream, description, signal),
      discard: () => {
        stream.close();
      },
    };
  }
  if (!isWebStreams(stream)) return null;
  let transport: WebStreamsTransport;
  try {
    transport = new WebStreamsTransport(stream, 'given web streams');
  } catch (error) {
    throw refuse(method, `the streams cannot be used: ${(error as Error).message}`);
  }
  return {
    description: transport.description,
    mayRetry: false,
    noTls,
    open: () => Promise.resolve(transport),
    discard: () => {
      transport.destroy();
    },
  };
}
