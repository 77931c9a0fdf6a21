// A client that a spec plays itself, byte by byte, against a scripted peer. What was started here is over after each
// test.

import { afterEach } from '@jest/globals';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';

import {
  exportInfo,
  join,
  type ListenOptions,
  optionReply,
  type PeerScript,
  ScriptedPeer,
  u16,
  u32,
  u64,
} from '../../lib/testing/index.js';

export const [EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, SR, SETMETA, EXT] = [1, 2, 3, 5, 6, 7, 8, 10, 11];
export const [READ, WRITE, DISC, FLUSH, BLOCK_STATUS] = [0, 1, 2, 3, 7];

/** A client that only moves bytes. */
export class RawClient {
  readonly socket: Socket;
  segments = 0;
  error: NodeJS.ErrnoException | undefined;
  #bytes = Buffer.alloc(0);
  #ended = false;
  #wake = (): void => {};

  constructor(peer: ScriptedPeer) {
    clients.push(this);
    const { socketPath, host, port } = peer;
    const where = socketPath === undefined ? { host: host!, port: port! } : { path: socketPath };
    this.socket = connect({ ...where, allowHalfOpen: true });
    this.socket.on('data', (bytes) => {
      this.segments++;
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
      this.#wake();
    });
    this.socket.on('end', () => {
      this.#ended = true;
      this.#wake();
    });
    this.socket.on('error', (error) => {
      this.error = error;
    });
    this.socket.on('close', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  async read(count: number): Promise<Buffer> {
    while (this.#bytes.length < count && !this.#ended) await new Promise<void>((resolve) => (this.#wake = resolve));
    const bytes = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return bytes;
  }

  rest(): Promise<Buffer> {
    return this.read(Number.MAX_SAFE_INTEGER);
  }

  send(...parts: (Uint8Array | string)[]): void {
    this.socket.write(join(...parts));
  }

  option(option: number, data: Uint8Array | string = ''): void {
    const bytes = join(data);
    this.send('IHAVEOPT', u32(option), u32(bytes.length), bytes);
  }

  go(name = ''): void {
    this.option(GO, join(u32(name.length), name, u16(0)));
  }

  command(type: number, cookie: number, offset: number, length: number, flags = 0): void {
    this.send(u32(0x25609513), u16(flags), u16(type), u64(cookie), u64(offset), u32(length));
  }

  async closed(): Promise<void> {
    if (!this.socket.closed) await once(this.socket, 'close').catch(() => undefined);
  }
}

export const peers: ScriptedPeer[] = [];
const clients: RawClient[] = [];

afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy();
  for (const peer of peers.splice(0)) await peer.stop();
});

export async function start(
  script: PeerScript,
  options?: ListenOptions,
): Promise<{ peer: ScriptedPeer; client: RawClient }> {
  const peer = await ScriptedPeer.listen(script, options);
  peers.push(peer);
  return { peer, client: new RawClient(peer) };
}

/** Into the transmission phase with simple replies. */
export async function enter(script: PeerScript, options?: ListenOptions) {
  const both = await start(script, options);
  await both.client.read(18);
  both.client.send(u32(3));
  both.client.go();
  await both.client.read(20 + 12 + 20);
  return both;
}

export const INFO_AND_ACK = join(optionReply(GO, 3, exportInfo()), optionReply(GO, 1));
