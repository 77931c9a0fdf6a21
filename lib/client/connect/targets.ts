// The targets of a connection and how each is opened: TCP, a Unix socket, a stream that is already open.

import { Duplex } from 'node:stream';
import { DEFAULT_PORT } from '../../protocol/constants.js';
import { printableText } from '../../protocol/names.js';
import { dialTcp, dialUnix } from '../../transport/dial.js';
import { StreamTransport } from '../../transport/stream.js';
import { isAbstract, keepsAbstractNames, unixPathProblem } from '../../transport/unix-path.js';
import { isWebSocket, isWebStreams, type WebSocketLike, type WebStreams } from '../../transport/web/types.js';
import { refuse } from '../options/checks.js';
import type { Target } from './target.js';
import type { Settings } from '../options/options.js';
import { webStreamTarget } from './web-targets.js';
import { abstractTarget, activationTarget, commandTarget, vsockTarget } from './process-targets.js';

/** A host and a port from 1 to 65535, as a number or in decimal digits. */
export function tcpTarget(method: string, host: unknown, port: unknown): Target {
  if (typeof host !== 'string' || host === '' || host.includes('\0')) {
    throw refuse(method, 'host must be a name or an address');
  }
  const number = typeof port === 'string' && /^\d{1,5}$/.test(port) ? Number(port) : port;
  if (typeof number !== 'number' || !Number.isInteger(number) || number < 1 || number > 65535) {
    throw refuse(method, `port must be from 1 to 65535, not ${String(port).slice(0, 20)}`);
  }
  const shown = printableText(host);
  const description = host.includes(':') ? `[${shown}]:${number}` : `${shown}:${number}`;
  return {
    description,
    mayRetry: true,
    serverName: host,
    location: { transport: 'tcp', host, port: number },
    open: (signal) => dialTcp(host, number, signal),
  };
}

/** A path in the file system, or `\0name` for an abstract socket. */
export function unixTarget(method: string, path: unknown, settings: Settings): Target {
  if (typeof path !== 'string' || path === '') throw refuse(method, 'path must be the path of a Unix socket');
  if (path.includes('\0', 1)) throw refuse(method, 'path cannot contain a NUL');
  if (path === '\0') throw refuse(method, 'path has no name after its NUL');
  const wrong = unixPathProblem(path);
  if (wrong !== null) throw refuse(method, wrong.message, wrong.code);
  const description = printableText(path.replace('\0', '@'));
  if (isAbstract(path) && !keepsAbstractNames()) return abstractTarget(path, description, settings);
  return {
    description,
    mayRetry: false,
    location: { transport: 'unix', socketPath: path },
    open: (signal) => dialUnix(path, signal),
  };
}

/** Any connected Duplex, WebSocket or pair of web streams. The connection takes ownership of it and destroys it at the end. */
export function streamTarget(method: string, stream: unknown): Target {
  const ofWeb = webStreamTarget(method, stream);
  if (ofWeb !== null) return ofWeb;
  if (!isDuplex(stream))
    throw refuse(method, 'must be a Duplex stream, such as a net.Socket, a WebSocket or a pair of web streams');
  if (stream.destroyed) throw refuse(method, 'the stream is destroyed');
  if (stream.readableObjectMode || stream.writableObjectMode) throw refuse(method, 'the stream is in object mode');
  const transport = new StreamTransport(stream, 'a given stream');
  return {
    description: transport.description,
    mayRetry: false,
    open: () => Promise.resolve(transport),
    discard: () => {
      transport.destroy();
    },
  };
}

function isDuplex(value: unknown): value is Duplex {
  if (value instanceof Duplex) return true;
  const stream = value as Partial<Duplex> | null;
  return (
    typeof stream === 'object' &&
    stream !== null &&
    typeof stream.pipe === 'function' &&
    typeof stream.write === 'function'
  );
}

const isStream = (value: unknown): boolean => isDuplex(value) || isWebSocket(value) || isWebStreams(value);

/** Accepted by `NbdConnection.connect`, which describes each form. */
export type NbdTarget =
  | string
  | URL
  | Duplex
  | WebSocketLike
  | WebStreams
  | {
      /** Name or address. Default `localhost`. */
      readonly host?: string | undefined;
      /** Default 10809. */
      readonly port?: number | string | undefined;
    }
  | {
      /** Path of a Unix socket, or `'\0name'` for an abstract socket. */
      readonly path: string;
    }
  | {
      /** The context identifier of a virtual machine. */
      readonly cid: number;
      /** Default 10809. */
      readonly port?: number | undefined;
    }
  | {
      /** A program and its arguments; the server uses its standard input and output. */
      readonly command: readonly string[];
    }
  | {
      /** A program and its arguments; the server is passed a listening socket. */
      readonly socketActivation: readonly string[];
    };

/** Whether an object names a place that can be connected to again, rather than a stream or a program. */
export function isPlace(target: unknown): boolean {
  if (typeof target !== 'object' || target === null || isStream(target)) return false;
  const { command, socketActivation } = target as Record<string, unknown>;
  return command === undefined && socketActivation === undefined;
}

/** The target for anything but a URI. */
export function namedTarget(method: string, target: unknown, settings: Settings): Target {
  if (isStream(target)) return streamTarget(method, target);
  if (typeof target === 'object' && target !== null) {
    const { host, port, path, cid, command, socketActivation } = target as Record<string, unknown>;
    if (path !== undefined) return unixTarget(method, path, settings);
    if (command !== undefined) return commandTarget(method, command, settings);
    if (socketActivation !== undefined) return activationTarget(method, socketActivation, settings);
    if (cid !== undefined) return vsockTarget(method, cid, port ?? DEFAULT_PORT, settings);
    if (host !== undefined || port !== undefined) return tcpTarget(method, host ?? 'localhost', port ?? DEFAULT_PORT);
  }
  throw refuse(
    method,
    'the target must be an NBD URI, { host, port }, { path }, { command }, { socketActivation }, { cid, port }, a WebSocket, web streams or a Duplex',
  );
}
