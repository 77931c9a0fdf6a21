import { describe, expect, it } from '@jest/globals';

import { type NbdError, NbdConnectionError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { memoryPeer, newConnection, type RawPeer } from '../../support/raw-server.js';

// The server's half of one good conversation, turn by turn: what it sends, and how much it reads before.
const CONVERSATION: readonly (readonly [reads: number, sends: Buffer])[] = [
  [0, g.greeting()],
  [4 + 16, g.reply(g.OPT.STRUCTURED_REPLY, g.ACK)],
  [
    16 + 4 + 1 + 4 + 4 + 15,
    g.cat(g.reply(g.OPT.SET_META, g.META, g.metaContext(1, 'base:allocation')), g.reply(g.OPT.SET_META, g.ACK)),
  ],
  [
    16 + 4 + 1 + 2 + 2,
    g.cat(
      g.reply(g.OPT.GO, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)),
      g.reply(g.OPT.GO, g.INFO, g.infoBlockSize(1, 4096, 1 << 25)),
      g.reply(g.OPT.GO, g.ACK),
    ),
  ],
  [28, g.cat(g.dataChunk(1, 0, g.content(0, 16), 0), g.dataChunk(1, 16, g.content(16, 16)))],
  [28, g.statusChunk(2, 1, [[512, 0]])],
  [28, g.simple(3)],
];
const TOTAL = CONVERSATION.reduce((sum, [, sends]) => sum + sends.length, 0);

/** Plays the conversation up to `limit` bytes, in pieces that end at the given places. */
async function play(peer: RawPeer, limit: number, cuts: ReadonlySet<number> = new Set()): Promise<void> {
  let at = 0;
  for (const [reads, sends] of CONVERSATION) {
    await peer.take(reads);
    for (let from = 0; from < sends.length;) {
      let to = from + 1;
      while (to < sends.length && !cuts.has(at + to)) to++;
      const end = Math.min(to, limit - at);
      if (end > from) peer.write(sends.subarray(from, end));
      if (at + to >= limit) return;
      if (to < sends.length) await new Promise((resolve) => setImmediate(resolve));
      from = to;
    }
    at += sends.length;
  }
}

interface Outcome {
  connected: boolean;
  /** What the commands came to: 'ok' or the code. */
  results: string[];
  errors: NbdError[];
  closes: number;
}

/** The client's half: connect, then a read, a block status and a flush, one after the other. */
async function converse(server: (peer: RawPeer) => Promise<void>): Promise<Outcome> {
  const { stream, peer } = memoryPeer();
  const connection = newConnection({
    exportName: 'x',
    metaContexts: ['base:allocation'],
    requestExtendedHeaders: false,
  });
  const outcome: Outcome = { connected: false, results: [], errors: [], closes: 0 };
  connection.on('close', () => outcome.closes++);
  const serving = server(peer).catch(() => undefined);
  const step = async (run: () => Promise<unknown>): Promise<boolean> => {
    try {
      await run();
      outcome.results.push('ok');
      return true;
    } catch (error) {
      outcome.errors.push(error as NbdError);
      outcome.results.push((error as NbdError).code);
      return false;
    }
  };
  try {
    await connection.connectSocket(stream);
    outcome.connected = true;
    const read = async (): Promise<void> => {
      const data = await connection.pread(32, 0);
      if (!data.equals(g.content(0, 32))) throw new Error('wrong data');
    };
    for (const run of [read, () => connection.blockStatus(512, 0), () => connection.flush()]) await step(run);
  } catch (error) {
    outcome.errors.push(error as NbdError);
  }
  await serving;
  connection.close();
  return outcome;
}

/** How far the conversation gets with this many bytes. */
function expectedOf(limit: number): { connected: boolean; good: number } {
  const ends: number[] = [];
  let sum = 0;
  for (const [, sends] of CONVERSATION) ends.push((sum += sends.length));
  return { connected: limit >= ends[3]!, good: ends.slice(4).filter((end) => limit >= end).length };
}

describe('a conversation that is cut', () => {
  it('nowhere, ends well', async () => {
    const outcome = await converse((peer) => play(peer, TOTAL));
    expect(outcome).toMatchObject({ connected: true, results: ['ok', 'ok', 'ok'], closes: 1 });
  });

  it.each(['end', 'destroy'] as const)(
    'by %s at any byte: what was answered is right, the rest rejects',
    async (how) => {
      for (let limit = 0; limit < TOTAL; limit++) {
        const outcome = await converse(async (peer) => {
          await play(peer, limit);
          if (how === 'end') peer.stream.end();
          else peer.stream.destroy(new Error('reset'));
        });
        const { connected, good } = expectedOf(limit);
        const where = `cut after ${limit} of ${TOTAL} bytes`;
        // A reset may overtake what was sent before it.
        if (how === 'end') {
          expect({
            where,
            connected: outcome.connected,
            good: outcome.results.filter((r) => r === 'ok').length,
          }).toEqual({
            ...{ where, connected, good },
          });
        }
        expect(outcome.closes).toBe(1);
        expect(outcome.errors.length).toBeGreaterThan(0);
        for (const error of outcome.errors) {
          if (!['ENOTCONN', 'EINVAL'].includes(error.code)) throw new Error(`${where}: ${error.code} ${error.message}`);
        }
        expect(outcome.errors[0]).toBeInstanceOf(NbdConnectionError);
      }
    },
  );

  it('into two segments at any byte, ends well', async () => {
    for (let at = 1; at < TOTAL; at++) {
      const outcome = await converse((peer) => play(peer, TOTAL, new Set([at])));
      if (outcome.results.join() !== 'ok,ok,ok') throw new Error(`cut at ${at}: ${outcome.results.join()}`);
    }
  });

  it('into single bytes, ends well', async () => {
    const every = new Set(Array.from({ length: TOTAL }, (_, i) => i));
    expect((await converse((peer) => play(peer, TOTAL, every))).results).toEqual(['ok', 'ok', 'ok']);
  });
});

describe('a conversation in which one bit is wrong', () => {
  it('ends in one way or another: nothing hangs, nothing is thrown elsewhere, no wrong data is handed out', async () => {
    for (let at = 0; at < TOTAL; at++) {
      const bit = 1 << (at % 8);
      const outcome = await Promise.race([
        converse(async (peer) => {
          const write = peer.write.bind(peer);
          let sent = 0;
          peer.write = (...parts) => {
            const bytes = g.cat(...parts);
            if (at >= sent && at < sent + bytes.length) bytes[at - sent]! ^= bit;
            sent += bytes.length;
            write(bytes);
          };
          // A length that has grown waits for bytes that never come.
          await Promise.race([play(peer, TOTAL), new Promise((resolve) => setTimeout(resolve, 15))]);
          peer.stream.end();
        }),
        new Promise<never>((_, reject) => setTimeout(() => reject(new Error(`bit ${at}: no end`)), 120_000).unref()),
      ]);
      expect(outcome.closes).toBe(1);
    }
  });

  it('rejects connect with one error', async () => {
    const { stream, peer } = memoryPeer();
    const connecting = rejection(newConnection().connectSocket(stream));
    peer.write(g.cat('NBDMAGIX', 'IHAVEOPT', g.u16(3)));
    expect(await connecting).toMatchObject({ code: 'EPROTO' });
  });
});
