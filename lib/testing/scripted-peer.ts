// A server that misbehaves on request: it follows the protocol except where its script differs, and records everything
// that the client sends.

import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

import { PeerRecording } from './recording.js';
import { Plan, type PeerScript } from './script.js';
import { PeerSession } from './session.js';
import { Wire } from './wire.js';

/** Options of {@link ScriptedPeer.listen}. */
export interface ListenOptions {
  /** `unix`: a socket in a temporary folder. `tcp`: a free port on 127.0.0.1. Default `unix`. */
  readonly transport?: 'unix' | 'tcp' | undefined;
}

const HOST = '127.0.0.1';

/**
 * A scripted NBD server.
 *
 * ```ts
 * await using peer = await ScriptedPeer.listen({
 *   reply: ({ cookie }) => simpleReply(5, cookie),
 * });
 * const connection = await NbdConnection.connect(peer.uri());
 * await assert.rejects(connection.pread(512, 0), { code: 'EIO' });
 * assert.equal(peer.connection.commands[0].length, 512n);
 * ```
 */
export class ScriptedPeer implements AsyncDisposable {
  /** The recordings of all clients, in the order in which they connected. */
  readonly connections: PeerRecording[] = [];
  /** Path of the Unix socket; undefined on TCP. */
  readonly socketPath: string | undefined;
  /** Address that it listens on; undefined on a Unix socket. */
  readonly host: string | undefined;
  /** TCP port that it listens on; undefined on a Unix socket. */
  readonly port: number | undefined;
  readonly #server: Server;
  readonly #folder: string | undefined;
  readonly #sockets = new Set<Socket>();
  #stopping: Promise<void> | undefined;

  private constructor(server: Server, folder: string | undefined, scriptFor: (index: number) => PeerScript) {
    this.#server = server;
    this.#folder = folder;
    const address = server.address();
    if (typeof address === 'string') this.socketPath = address;
    else {
      this.host = HOST;
      this.port = address?.port;
    }
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      const index = this.connections.length;
      this.connections.push(serve(socket, () => scriptFor(index)));
    });
  }

  /**
   * Starts a peer. Every connection runs the script from its start. A function is called with the number of the
   * connection, from 0, and returns its script.
   */
  static async listen(
    script: PeerScript | ((index: number) => PeerScript) = {},
    { transport = 'unix' }: ListenOptions = {},
  ): Promise<ScriptedPeer> {
    const folder = transport === 'unix' ? await mkdtemp(join(tmpdir(), 'nbd-peer-')) : undefined;
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(folder === undefined ? { host: HOST, port: 0 } : { path: join(folder, 'socket') }, resolve);
    });
    return new ScriptedPeer(server, folder, typeof script === 'function' ? script : () => script);
  }

  /** Serves an existing stream and returns its recording. */
  static attach(stream: Duplex, script: PeerScript = {}): PeerRecording {
    return serve(stream, () => script);
  }

  /** The recording of the first client; throws if no client has connected. */
  get connection(): PeerRecording {
    const [first] = this.connections;
    if (first === undefined) throw new Error('no client has connected');
    return first;
  }

  /** The NBD URI of an export. */
  uri(exportName = ''): string {
    const path = encodeURIComponent(exportName);
    return this.socketPath === undefined
      ? `nbd://${HOST}:${String(this.port)}/${path}`
      : `nbd+unix:///${path}?socket=${this.socketPath}`;
  }

  /** Resolves when the connections of all clients so far have ended. */
  async idle(): Promise<void> {
    await Promise.all(this.connections.map((connection) => connection.done));
  }

  /** Ends all connections, stops listening and removes the socket. Idempotent. */
  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  /** Calls {@link stop}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }
}

function serve(stream: Duplex, scriptFor: () => PeerScript): PeerRecording {
  const recording = new PeerRecording();
  // A mistake in a script is reported in the recording: an exception here would end the process.
  const run = async (): Promise<void> => {
    await new PeerSession(new Wire(stream, recording), new Plan(scriptFor()), recording).run();
  };
  run().catch((error: unknown) => {
    recording.violations.push(`the script failed: ${String(error)}`);
    stream.destroy();
  });
  return recording;
}
