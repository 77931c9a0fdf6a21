// The family of whole connections: a server that sends anything, from the greeting to its last reply, to an
// NbdConnection with every kind of command in flight. What it makes of the bytes is compared with the references.

import { type NbdConnectionOptions, NbdConnection, NbdError } from '../../lib/index.js';
import { duplexPair } from '../../lib/transport/memory.js';
import { type Example, type Family } from './family.js';
import { expectHandshake } from './handshake-reference.js';
import { handshakeFamily } from './handshakes.js';
import { type Random, segments } from './random.js';
import { replyFamily } from './replies.js';
import { type Asked, expectReplies, FILL, type Outcome } from './reply-reference.js';
import { same } from './reply-run.js';
import { type Transcript, transcripts } from './transcripts.js';

interface ConnectionExample extends Example {
  readonly transcript: Transcript;
}

const NO_STRICT_CHECKS = 0x40;
const GUARD = 16;
const GUARD_BYTE = 0xa7;
/** Turns of the event loop in which nothing has happened: nothing will. */
const IDLE_TURNS = 8;
const MAX_TURNS = 5000;

/** What may come out. NbdStrictError and NbdStateError are about calls, and every call here is valid. */
const CLASSES = ['NbdProtocolError', 'NbdCommandError', 'NbdConnectionError', 'NbdOptionError'];

export const connectionFamily: Family<ConnectionExample> = {
  name: 'connections',
  shapes: [...handshakeFamily.shapes, ...replyFamily('simple').shapes],
  examples: () =>
    transcripts().map((transcript) => ({
      origin: `the transcript ${transcript.name}`,
      transcript,
      bytes: Buffer.concat([...transcript.handshake, transcript.replies]),
    })),
  check: async ({ transcript }, bytes, random) => {
    const run = new ConnectionRun(transcript);
    await run.play(bytes, random);
    return run.judge(bytes);
  },
};

/** One call and what it came to. */
interface Call {
  readonly asked: Asked;
  readonly arena: Buffer;
  settlements: number;
  ending: string;
}

class ConnectionRun {
  readonly #transcript: Transcript;
  readonly #connection: NbdConnection;
  readonly #calls: Call[] = [];
  #connected = '';
  #closes: unknown[] = [];
  #happened = 0;

  constructor(transcript: Transcript) {
    this.#transcript = transcript;
    const { exportName, structuredReplies, extendedHeaders, metaContexts, fullInfo } = transcript.request;
    const options: NbdConnectionOptions = {
      ...{ exportName, metaContexts, fullInfo, connectTimeout: 0, strictMode: NO_STRICT_CHECKS },
      ...{ requestStructuredReplies: structuredReplies, requestExtendedHeaders: extendedHeaders },
      preadInitialize: false,
    };
    this.#connection = new NbdConnection(options);
    this.#connection.on('close', (error) => {
      this.#closes.push(error);
      this.#happened++;
    });
  }

  async play(bytes: Buffer, random: Random): Promise<void> {
    const [near, far] = duplexPair();
    const turns = this.#turns(bytes);
    far.on('data', () => {
      this.#happened++;
      const turn = turns.shift();
      for (const segment of turn === undefined ? [] : segments(turn, random, 4)) far.write(segment);
    });
    far.on('error', () => undefined);
    this.#connection.connectSocket(near).then(
      () => {
        this.#connected = 'ok';
        // What came too early may have ended it already.
        if (this.#connection.aioIsReady()) for (const asked of this.#transcript.asked) this.#issue(asked);
      },
      (error: unknown) => {
        this.#connected = nameOf(error);
        this.#happened++;
      },
    );
    far.write(turns.shift() ?? Buffer.alloc(0));
    // Where the client waits, the server sends what it has left; then it ends.
    for (let idle = 0, turn = 0; idle < IDLE_TURNS; idle++, turn++) {
      if (turn > MAX_TURNS) throw new Error('it goes on for ever');
      const before = this.#happened;
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#happened !== before) idle = 0;
      else if (idle === 3 && !far.destroyed && !far.writableEnded) {
        const next = turns.shift();
        if (next === undefined) far.end();
        else if (next.length > 0) far.write(next);
        idle = 0;
      }
    }
    const state = this.#connection.connectionState();
    if (state !== 'closed' && state !== 'dead') throw new Error(`still ${state} behind the end of the stream`);
    if (!near.destroyed) throw new Error('the stream is left open');
    far.destroy();
  }

  /** The places where the recorded server waited; the rest is what follows the handshake. */
  #turns(bytes: Buffer): Buffer[] {
    const turns: Buffer[] = [];
    let at = 0;
    for (const { length } of this.#transcript.handshake) turns.push(bytes.subarray(at, (at += length)));
    return [...turns, bytes.subarray(at)];
  }

  #issue(asked: Asked): void {
    const c = this.#connection;
    const length = asked.method.startsWith('pread') ? Number(asked.count) : 0;
    const arena = Buffer.alloc(length + 2 * GUARD, GUARD_BYTE);
    const buffer = arena.subarray(GUARD, GUARD + length).fill(FILL);
    const call: Call = { asked, arena, settlements: 0, ending: 'pending' };
    this.#calls.push(call);
    const settled = (error: unknown): boolean => {
      call.settlements++;
      call.ending = error === null ? 'ok' : nameOf(error);
      this.#happened++;
      return true;
    };
    const { method, count, offset, flags } = asked;
    // Every second one in the raw form.
    const raw = this.#calls.length % 2 === 0;
    const nothing = (): void => undefined;
    if (method === 'preadStructured') c.aioPreadStructured(buffer, offset, nothing, settled, flags);
    else if (method === 'pread' && raw) c.aioPread(buffer, offset, settled, flags);
    else if (method === 'blockStatus' && raw) c.aioBlockStatus(count, offset, nothing, settled, flags);
    else {
      const promise =
        method === 'pread'
          ? c.preadInto(buffer, offset, flags)
          : method === 'pwrite'
            ? c.pwrite(Buffer.alloc(Number(count)), offset, flags)
            : method === 'flush'
              ? c.flush(flags)
              : c[method](count, offset, flags);
      (promise as Promise<unknown>).then(() => settled(null), settled);
    }
  }

  judge(bytes: Buffer): string {
    const c = this.#connection;
    same('times that close was told', this.#closes.length, 1);
    same('commands in flight at the end', c.aioInFlight(), 0);
    const isDead = c.connectionState() === 'dead';
    same('an error with the close', this.#closes[0] instanceof NbdError, isDead);
    if (this.#connected === '') throw new Error('connecting never settled');
    const wishes = { ...this.#transcript.request, tls: false, first: 'go' } as const;
    const handshake = expectHandshake(wishes, bytes);
    if (this.#connected !== 'ok') {
      if (!isDead) throw new Error('a failed connect left the connection undead');
      const class_ = this.#connected.split(' ')[0] ?? '';
      if (!CLASSES.includes(class_) || class_ === 'NbdCommandError') throw new Error(`connect: ${this.#connected}`);
      // A server may also have spoken out of its turn, which the reference does not know.
      if (handshake.ending.startsWith('Nbd') && class_ !== 'NbdProtocolError') {
        same('the refusal', this.#connected, handshake.ending);
      }
      return 'connect failed';
    }
    same('the handshake', handshake.ending, 'transmission');
    return this.#judgeCalls(bytes, handshake);
  }

  #judgeCalls(
    bytes: Buffer,
    { consumed, structured, extended, contexts, size }: ReturnType<typeof expectHandshake>,
  ): string {
    const { asked } = this.#transcript;
    const known = contexts === undefined || contexts === 'none' ? '[]' : contexts;
    const expected = expectReplies(
      {
        mode: extended === true ? 'extended' : structured === true ? 'structured' : 'simple',
        exportSize: size ?? 0n,
        contexts: new Map(JSON.parse(known) as [number, string][]),
      },
      asked,
      bytes.subarray(consumed),
    );
    this.#calls.forEach((call, index) => {
      judgeCall(call, expected.outcomes[index] as Outcome);
    });
    const shutsDown = this.#calls.some(({ ending }) => ending.endsWith('ESHUTDOWN'));
    if (expected.violation && !shutsDown) same('the state', this.#connection.connectionState(), 'dead');
    const succeeded = this.#calls.filter(({ ending }) => ending === 'ok').length;
    return succeeded === this.#calls.length ? 'all succeeded' : succeeded > 0 ? 'some succeeded' : 'none succeeded';
  }
}

function judgeCall({ asked, arena, settlements, ending }: Call, expected: Outcome): void {
  const who = asked.method;
  same(`${who}: settlements`, settlements, 1);
  const outside = [...arena.subarray(0, GUARD), ...arena.subarray(arena.length - GUARD)];
  if (outside.some((byte) => byte !== GUARD_BYTE)) throw new Error(`${who}: a byte outside of its buffer was written`);
  if (ending === 'ok') {
    same(`${who}: its success`, ending, expected.ending);
    const data = arena.subarray(GUARD, arena.length - GUARD);
    if (!data.equals(expected.data)) throw new Error(`${who}: it succeeded with other bytes than came`);
    return;
  }
  if (!CLASSES.includes(ending.split(' ')[0] ?? '')) throw new Error(`${who}: ${ending}`);
  if (ending.startsWith('NbdCommandError')) same(`${who}: its failure`, ending, expected.error);
}

const nameOf = (error: unknown): string =>
  error instanceof NbdError ? `${error.name} ${error.code}` : `no error of ours: ${String(error)}`;
