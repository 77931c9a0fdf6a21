// Good conversations, recorded once against a scripted peer and replayed with damage: the server's bytes come when
// the client has sent as much as it had then, cut, split or changed at any place. All of it in memory.

import { duplexPair, type Duplex } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';

import { NbdConnection, type NbdConnectionOptions, TLS_ALLOW } from '../../lib/index.js';
import { type PeerScript, ScriptedPeer } from '../../lib/testing/index.js';

/** What a user does in a conversation, one call after the other; the first one connects. */
export interface Conversation {
  readonly name: string;
  readonly script: PeerScript;
  readonly client: NbdConnectionOptions;
  readonly calls: readonly ((client: NbdConnection) => Promise<unknown>)[];
}

/** The server's side of a conversation. */
export interface Recorded {
  readonly conversation: Conversation;
  /** Everything that the server sent. */
  readonly bytes: Buffer;
  /** When it sent what: the bytes up to `end` once the client had sent `after`. */
  readonly turns: readonly { readonly after: number; readonly end: number }[];
  /** What each call gave. */
  readonly values: readonly unknown[];
  /** How much the server had sent when each call resolved. */
  readonly answered: readonly number[];
}

const read = (client: NbdConnection): Promise<unknown> => client.pread(16, 512);
const writes = [
  (client: NbdConnection): Promise<unknown> => client.pwrite(Buffer.from('sixteen bytes...'), 0),
  (client: NbdConnection): Promise<unknown> => client.trim(512, 512),
  (client: NbdConnection): Promise<unknown> => client.zero(512, 512),
  (client: NbdConnection): Promise<unknown> => client.cache(512, 0),
  (client: NbdConnection): Promise<unknown> => client.flush(),
];
const status = async (client: NbdConnection): Promise<unknown> =>
  [...(await client.blockStatus(4096, 0)).values()].map((extents) => [...extents]);
const plain = { requestExtendedHeaders: false } as const;

export const CONVERSATIONS: readonly Conversation[] = [
  {
    name: 'oldstyle',
    script: { structuredReplies: false, greet: () => oldGreeting },
    client: plain,
    calls: [read, read],
  },
  {
    name: 'EXPORT_NAME with zeroes',
    script: { structuredReplies: false, handshakeFlags: 0 },
    client: plain,
    calls: [read, read],
  },
  {
    name: 'EXPORT_NAME without zeroes',
    script: { structuredReplies: false, handshakeFlags: 2 },
    client: plain,
    calls: [read, read],
  },
  { name: 'GO and simple replies', script: { structuredReplies: false }, client: {}, calls: [read, ...writes, read] },
  {
    name: 'option mode, contexts and structured replies',
    script: { blockSize: [1, 4096, 1 << 25] },
    client: { ...plain, optMode: true, metaContexts: ['base:allocation'] },
    calls: [
      (client) => client.optList(),
      (client) => client.optListMetaContextQueries([]),
      (client) => client.optSetMetaContext(),
      (client) => client.optInfo(),
      (client) => client.optGo(),
      read,
      status,
      ...writes,
    ],
  },
  {
    name: 'extended headers',
    script: { extendedHeaders: true },
    client: { metaContexts: ['base:allocation'] },
    calls: [read, status, ...writes],
  },
  { name: 'STARTTLS refused', script: {}, client: { ...plain, tls: TLS_ALLOW }, calls: [read] },
];

const oldGreeting = Buffer.concat([
  Buffer.from('NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53', 'latin1'),
  Buffer.from('0000000000100000' + '0000' + '0d6d', 'hex'),
  Buffer.alloc(124),
]);

/** Runs the conversation well, and keeps the server's side. */
export async function record(conversation: Conversation): Promise<Recorded> {
  const [near, far] = duplexPair();
  const [tapped, peerSide] = duplexPair();
  const said: Buffer[] = [];
  const turns: { after: number; end: number }[] = [];
  let sent = 0;
  let end = 0;
  far.on('data', (bytes: Buffer) => {
    sent += bytes.length;
    tapped.write(bytes);
  });
  far.on('end', () => tapped.end());
  tapped.on('data', (bytes: Buffer) => {
    said.push(Buffer.from(bytes));
    end += bytes.length;
    turns.push({ after: sent, end });
    far.write(bytes);
  });
  ScriptedPeer.attach(peerSide, conversation.script);
  const client = new NbdConnection(conversation.client);
  const values: unknown[] = [];
  const answered: number[] = [];
  for (const call of [(c: NbdConnection) => c.connectSocket(near), ...conversation.calls]) {
    values.push(await call(client));
    answered.push(end);
  }
  client.close();
  peerSide.destroy();
  return { conversation, bytes: Buffer.concat(said), turns, values, answered };
}

/** How a replay ends, or what is wrong with it. */
export interface Damage {
  /** The server sends only this many bytes; then it ends, breaks or stays silent. */
  readonly cut?: { readonly at: number; readonly then: 'fin' | 'rst' | 'stall' };
  /** The stream comes in segments that begin at these places. */
  readonly splits?: readonly number[];
  /** Bits of one byte that are the other way round. */
  readonly flip?: { readonly at: number; readonly bits: number };
}

/** What one call gave in a replay. */
export interface ReplayResult {
  readonly resolved: boolean;
  /** Resolved with what it gives in the good conversation. */
  readonly right: boolean;
  readonly error?: unknown;
}

/** Milliseconds after which a call counts as never settling, on the slowest machine. */
const HUNG = 120_000;

/**
 * Replays a conversation with damage; a call that never settles is an exception.
 *
 * @param patience milliseconds after which a call that gets no answer gives up.
 */
export async function replay(recorded: Recorded, damage: Damage, patience: number): Promise<ReplayResult[]> {
  const { conversation } = recorded;
  const isSilent = damage.cut?.then === 'stall' || damage.flip !== undefined;
  const [near, far] = duplexPair();
  serve(recorded, damage, near, far);
  const client = new NbdConnection({
    ...conversation.client,
    connectTimeout: isSilent ? patience : 0,
    requestTimeout: isSilent ? patience : 0,
  });
  const results: ReplayResult[] = [];
  const calls = [(c: NbdConnection) => c.connectSocket(near), ...conversation.calls];
  for (const [at, call] of calls.entries()) {
    results.push(await settle(call(client), recorded.values[at]));
  }
  client.close();
  await closed(near);
  far.destroy();
  return results;
}

function serve({ bytes, turns }: Recorded, { cut, splits = [], flip }: Damage, near: Duplex, far: Duplex): void {
  const limit = cut?.at ?? bytes.length;
  const text = Buffer.from(bytes);
  if (flip !== undefined) text[flip.at] = (text[flip.at] ?? 0) ^ flip.bits;
  let received = 0;
  let said = 0;
  const speak = (): void => {
    if (far.destroyed) return;
    const due = Math.min(limit, turns.findLast((turn) => turn.after <= received)?.end ?? 0);
    while (said < due) {
      const next = splits.find((split) => split > said) ?? due;
      const end = Math.min(next, due);
      const segment = text.subarray(said, end);
      // Before the write: the client's answer to it may come back from within.
      said = end;
      far.write(segment);
      // The next segment comes in another turn of the event loop.
      if (said < due) {
        setImmediate(speak);
        return;
      }
    }
    if (cut === undefined || said < limit) return;
    if (cut.then === 'fin') far.end();
    // The bytes before a reset count as arrived.
    if (cut.then === 'rst') setImmediate(() => setImmediate(() => near.destroy(reset())));
  };
  far.on('data', (chunk: Buffer) => {
    received += chunk.length;
    speak();
  });
  far.on('error', () => undefined);
  speak();
}

function reset(): Error {
  return Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', syscall: 'read' });
}

async function settle(call: Promise<unknown>, expected: unknown): Promise<ReplayResult> {
  let timer: NodeJS.Timeout | undefined;
  const hung = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('a call never settled')), HUNG);
  });
  const outcome = call.then(
    (value) => ({ resolved: true, right: isDeepStrictEqual(value, expected) }),
    (error: unknown) => ({ resolved: false, right: false, error }),
  );
  try {
    return await Promise.race([outcome, hung]);
  } finally {
    clearTimeout(timer);
  }
}

async function closed(stream: Duplex): Promise<void> {
  if (!stream.destroyed) throw new Error('close() left the stream open');
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve));
}
