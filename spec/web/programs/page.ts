// What the page of browser.spec.ts runs: bundled for browsers, and called through `globalThis.page`.

import {
  BlobBackend,
  CONTEXT_BASE_ALLOCATION,
  NbdConnection,
  NbdServer,
  type WebSocketClass,
  type WebSocketLike,
} from 'nbd-sdk/web';
import { copy, extents } from 'nbd-sdk/web/bulk';

const MIB = 1024 * 1024;
const DEPTH = 16;

const { WebSocket } = globalThis as unknown as { WebSocket: WebSocketClass };

/** Connections that a scenario leaves open for the next. */
let kept: NbdConnection | null = null;
let server: NbdServer | null = null;

const describeError = (error: unknown): object | null => {
  if (error === undefined) return null;
  const { name, code, message } = error as { name?: string; code?: string; message?: string };
  return { name, code, message };
};

async function eachPiece(size: number, work: (offset: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let offset = next; offset < size; offset = next) {
      next = offset + MIB;
      await work(offset);
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, lane));
}

/** nbdkit's pattern: each 8 bytes are their own offset, big-endian. */
function pattern(offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < length; at += 8) view.setUint32(at + 4, offset + at);
  return bytes;
}

const differences = (bytes: Uint8Array, expected: Uint8Array): number => {
  let wrong = bytes.length === expected.length ? 0 : 1;
  for (let at = 0; at < expected.length; at++) if (bytes[at] !== expected[at]) wrong++;
  return wrong;
};

/** A WebSocket that remembers how much it ever held back. */
function watched(url: string): { socket: WebSocketLike; most: () => number } {
  const socket = new WebSocket(url, ['binary']);
  let most = 0;
  const send = socket.send.bind(socket);
  socket.send = (data) => {
    send(data);
    most = Math.max(most, socket.bufferedAmount);
  };
  return { socket, most: () => most };
}

const scenarios = {
  /** What there is of Node, and of which class results are. */
  async platform(url: string): Promise<object> {
    await using connection = await NbdConnection.connect(url);
    const bytes = await connection.pread(4096, 0);
    return {
      process: typeof (globalThis as { process?: unknown }).process,
      buffer: typeof (globalThis as { Buffer?: unknown }).Buffer,
      isPlain: Object.getPrototypeOf(bytes) === Uint8Array.prototype,
      uri: connection.getUri(),
      protocol: connection.getProtocol(),
    };
  },

  /** Reads and compares all of nbdkit's pattern. */
  async read(url: string): Promise<object> {
    await using connection = await NbdConnection.connect(url);
    const size = Number(connection.getSize());
    let wrong = 0;
    await eachPiece(size, async (offset) => {
      wrong += differences(await connection.pread(MIB, offset), pattern(offset, MIB));
    });
    return { size, wrong };
  },

  /** Fills an export, and reads it back. */
  async write(url: string): Promise<object> {
    await using connection = await NbdConnection.connect(url, { metaContexts: [CONTEXT_BASE_ALLOCATION] });
    const size = Number(connection.getSize());
    await eachPiece(size, (offset) => connection.pwrite(pattern(offset, MIB), offset));
    await connection.zero(4096, 0);
    await connection.flush();
    const buffer = new Uint8Array(MIB);
    await connection.preadInto(buffer, size - MIB);
    let mapped = 0n;
    for await (const { length } of extents(connection)) mapped += length;
    return { size, wrong: differences(buffer, pattern(size - MIB, MIB)), mapped: Number(mapped) };
  },

  /** Copies between two exports, both over WebSockets. */
  async copy(from: string, to: string): Promise<object> {
    await using source = await NbdConnection.connect(from);
    await using destination = await NbdConnection.connect(to);
    const { total, read, written, zeroed } = await copy(source, destination, { flush: true });
    return { total: Number(total), read: Number(read), changed: Number(written + zeroed) };
  },

  /** Aborts a read that the server is slow to answer, and uses the connection afterwards. */
  async abort(url: string): Promise<object> {
    const connection = await NbdConnection.connect(url);
    kept = connection;
    const controller = new AbortController();
    const reading = connection.pread(4096, 0, 0, controller.signal);
    setTimeout(() => {
      controller.abort();
    }, 20);
    const error = await reading.then(() => null, describeError);
    const inFlight = connection.aioInFlight();
    const again = await connection.pread(8, 8);
    return { error, inFlight, again: [...again] };
  },

  /** Leaves a read in flight, and resolves with its error when the connection is lost. */
  async lost(): Promise<object> {
    const connection = kept as NbdConnection;
    const closed = new Promise((resolve) => connection.once('close', resolve));
    const errors = await Promise.all(
      [0, 4096].map((offset) => connection.pread(4096, offset).then(() => null, describeError)),
    );
    const cause = describeError(await closed);
    const later = await connection.pread(1, 0).then(() => null, describeError);
    return { errors, cause, later, state: connection.aioIsDead() };
  },

  inFlight: (): number => (kept as NbdConnection).aioInFlight(),

  /** Fails to connect. */
  async refused(url: string): Promise<object | null> {
    const tries = [url, 'nbd://localhost', 'ws://localhost/#x'];
    return Promise.all(tries.map((each) => NbdConnection.connect(each).then(() => null, describeError)));
  },

  /** Serves a file of this size over a WebSocket, until `served`. */
  serve(url: string, size: number): string {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for (let at = 0; at < size; at += MIB) parts.push(pattern(at, MIB));
    const backend = new BlobBackend(new Blob(parts));
    server = new NbdServer({ exports: { image: backend }, defaultExport: 'image' });
    const { socket, most } = watched(url);
    server.serve(socket);
    mostHeld = most;
    return server.statistics.openConnections === 1 ? 'open' : 'refused';
  },

  /** What the server of `serve` has done so far. */
  served(): object {
    const { openConnections, bytesSent, errors } = (server as NbdServer).statistics;
    return { openConnections, bytesSent, errors, held: mostHeld() };
  },

  /** Ends it. */
  async unserve(): Promise<void> {
    await server?.close();
  },

  /** Writes to a peer that stops reading, until the peer goes on. */
  async fill(url: string, size: number): Promise<object> {
    const { socket, most } = watched(url);
    await using connection = await NbdConnection.connect(socket);
    const piece = new Uint8Array(MIB);
    const all: Promise<void>[] = [];
    for (let offset = 0; offset < size; offset += MIB) all.push(connection.pwrite(piece, offset));
    await Promise.all(all);
    return { held: most() };
  },
};

let mostHeld = (): number => 0;

Object.assign(globalThis, { page: scenarios });
