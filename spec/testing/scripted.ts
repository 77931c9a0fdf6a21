// Scripted servers and raw clients that talk to them. What was started here is stopped after each test.

import { afterEach } from '@jest/globals';

import {
  exportInfo,
  join,
  type ListenOptions,
  optionReply,
  type PeerScript,
  ScriptedPeer,
  u32,
} from '../../lib/testing/index.js';
import { CMD, OPT } from '../support/golden.js';
import { RawClient } from '../support/raw-client.js';

export const {
  EXPORT_NAME,
  ABORT,
  LIST,
  STARTTLS,
  INFO,
  GO,
  STRUCTURED_REPLY: SR,
  SET_META: SETMETA,
  EXTENDED: EXT,
} = OPT;
export const { READ, WRITE, DISC, FLUSH, STATUS: BLOCK_STATUS } = CMD;

export const peers: ScriptedPeer[] = [];

afterEach(async () => {
  for (const peer of peers.splice(0)) await peer.stop();
});

/** A client of the peer that keeps its own side open when the peer ends. */
export function dial({ socketPath, host = '', port = 0 }: ScriptedPeer): RawClient {
  return RawClient.to(socketPath === undefined ? { host, port } : { path: socketPath }, true);
}

export async function start(
  script: PeerScript,
  options?: ListenOptions,
): Promise<{ peer: ScriptedPeer; client: RawClient }> {
  const peer = await ScriptedPeer.listen(script, options);
  peers.push(peer);
  return { peer, client: dial(peer) };
}

/** A client in the transmission phase, with simple replies. */
export async function enter(script: PeerScript, options?: ListenOptions) {
  const both = await start(script, options);
  await both.client.upTo(18);
  both.client.write(u32(3));
  both.client.sendGo();
  await both.client.upTo(20 + 12 + 20);
  return both;
}

export const INFO_AND_ACK = join(optionReply(GO, 3, exportInfo()), optionReply(GO, 1));
