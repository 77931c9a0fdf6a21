// A Duplex of Node that a client is connected by: sockets, TLS.

import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { StreamTransport } from '../../transport/stream.js';
import { acceptTls } from '../../transport/tls-server.js';
import { refuse, shown } from '../../util/option-checks.js';
import type { NbdServerTlsOptions } from '../options.js';
import type { ServedStream } from '../server-connection.js';
import { nodeTlsOptions } from '../tls-options.js';

/** Idle milliseconds before the kernel checks whether the client is still there. */
const KEEP_ALIVE_DELAY = 60_000;

/** Takes ownership of the stream. Throws an NbdStrictError for anything but a Duplex. */
export function nodeStream(stream: Duplex, tls: NbdServerTlsOptions | undefined): ServedStream {
  checkStream(stream);
  const isDestroyed = stream.destroyed;
  const transport = new StreamTransport(stream, 'the client');
  return {
    transport,
    isDestroyed,
    ...(tls === undefined ? {} : { startTls: () => acceptTls(transport, nodeTlsOptions(tls)) }),
    prepare: () => {
      // Detects a client that has vanished, so that what is held for it is released.
      if (stream instanceof Socket) stream.setKeepAlive(true, KEEP_ALIVE_DELAY).setNoDelay(true);
    },
    reset: () => {
      try {
        if (stream instanceof Socket) stream.resetAndDestroy();
      } catch {
        // Only TCP supports it.
      }
      stream.destroy();
    },
  };
}

function checkStream(stream: unknown): void {
  const methods = ['on', 'off', 'once', 'write', 'end', 'pause', 'resume', 'destroy', 'cork', 'uncork'] as const;
  const given = (typeof stream === 'object' ? stream : null) as Record<string, unknown> | null;
  if (given === null || methods.some((method) => typeof given[method] !== 'function')) {
    throw refuse('serve', `the stream must be a Duplex, a WebSocket or a pair of web streams, not ${shown(stream)}`);
  }
}
