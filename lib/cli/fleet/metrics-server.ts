// Serves metrics over HTTP, on the loopback interface unless the user names an address.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CliError, UsageError } from '../errors.js';
import { systemReason } from '../../util/system-reason.js';
import { METRICS_TYPE } from './metrics.js';

const LOOPBACK = '127.0.0.1';
/** Milliseconds for a client to send its request. */
const PATIENCE = 5000;

/** Parses `PORT`, `HOST:PORT` or `[ADDRESS]:PORT`. */
export function parseListen(option: string, text: string): { host: string; port: number } {
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? NaN);
  if (match === null || port > 65_535) {
    throw new UsageError(`--${option}: could not parse: ${text}`, { hint: 'PORT, HOST:PORT or [ADDRESS]:PORT' });
  }
  return { host: match[1] ?? match[2] ?? LOOPBACK, port };
}

export class MetricsServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** `text` is called for each request; null means that there is nothing to report yet. */
  static async listen(where: { host: string; port: number }, text: () => string | null): Promise<MetricsServer> {
    const server = createServer({ requestTimeout: PATIENCE, headersTimeout: PATIENCE }, (request, response) => {
      const path = (request.url ?? '').split('?', 1)[0];
      const body = path === '/metrics' ? text() : null;
      const isRead = request.method === 'GET' || request.method === 'HEAD';
      const status = !isRead ? 405 : path !== '/metrics' ? 404 : body === null ? 503 : 200;
      response.writeHead(status, { 'content-type': METRICS_TYPE, connection: 'close' });
      response.end(status === 200 && request.method === 'GET' ? body : '');
    });
    server.listen(where);
    try {
      await once(server, 'listening');
    } catch (error) {
      throw new CliError(`metrics on ${where.host} port ${where.port}: ${systemReason(error)}`, { cause: error });
    }
    return new MetricsServer(server);
  }

  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/metrics`;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
