// Cases for the client's half of the handshake: what the user requests, what the server sends turn by turn, what the
// client must have sent, byte for byte, and how it ends. Each is delivered in every way that a network may cut it.

import { expect } from '@jest/globals';

import { HandshakePhase } from '../../lib/client/connect/handshake-phase.js';
import { type NbdError } from '../../lib/errors.js';
import { type Handshake } from '../../lib/protocol/handshake/effects.js';
import { negotiate } from '../../lib/protocol/handshake/negotiate.js';
import { type HandshakeRequest, HandshakeSession } from '../../lib/protocol/handshake/session.js';
import { deliver, type Sink } from '../support/deliver.js';

export interface HandshakeCase {
  readonly request?: Partial<HandshakeRequest>;
  /** Default {@link negotiate}. */
  readonly run?: (session: HandshakeSession) => Handshake<unknown>;
  /** What the session knows before. */
  readonly before?: (session: HandshakeSession) => void;
  /** What the server sends; each turn but the first begins when the client has sent something. */
  readonly turns: readonly Buffer[];
  /** All that the client sends. */
  readonly sends?: Buffer;
  /** What the handshake returns. */
  readonly returns?: unknown;
  /** What the session holds afterwards. */
  readonly session?: object;
  readonly fails?: {
    readonly name?: string;
    readonly code: string;
    readonly says?: RegExp;
    readonly serverMessage?: string;
  };
  /** Not to be cut: what it shows is what comes in one segment. */
  readonly isWhole?: true;
  /** Bytes that belong to the transmission. */
  readonly rest?: Buffer;
}

export const REQUEST: HandshakeRequest = {
  exportName: '',
  maskExportName: false,
  tls: 0,
  handshakeFlags: 3,
  structuredReplies: true,
  extendedHeaders: false,
  blockSize: true,
  metaContext: true,
  metaContexts: [],
  fullInfo: false,
  optMode: false,
};

class Run {
  readonly session: HandshakeSession;
  readonly sent: Buffer[] = [];
  readonly phase: HandshakePhase;
  returned: unknown = undefined;
  thrown: unknown = null;
  readonly #later: Buffer[] = [];
  #turn = 0;
  #inTurn = 0;
  readonly #case: HandshakeCase;

  constructor(each: HandshakeCase) {
    this.#case = each;
    this.session = new HandshakeSession({ ...REQUEST, ...each.request });
    each.before?.(this.session);
    const idle = (): void => undefined;
    const transport = {
      description: 'a spec',
      write: (buffers: readonly Uint8Array[]) => this.sent.push(...buffers.map((bytes) => Buffer.from(bytes))),
      ...{ start: idle, pause: idle, resume: idle, end: idle, destroy: idle, ref: idle, unref: idle },
    };
    this.phase = new HandshakePhase(transport, () => Promise.reject(new Error('no TLS here')));
    this.phase.run(
      (each.run ?? negotiate)(this.session),
      (value) => (this.returned = value),
      (error) => (this.thrown = error),
    );
  }

  /** A server waits for the client before it sends the next turn. */
  push(segment: Uint8Array): void {
    let at = 0;
    while (at < segment.length) {
      const turn = this.#case.turns[this.#turn]!;
      const take = Math.min(segment.length - at, turn.length - this.#inTurn);
      if (this.returned !== undefined) {
        // The transmission's already.
        this.#later.push(Buffer.from(segment.subarray(at, at + take)));
      } else if (this.thrown === null) {
        try {
          this.phase.push(segment.subarray(at, at + take));
        } catch (error) {
          this.thrown = error;
        }
      }
      at += take;
      this.#inTurn += take;
      if (this.#inTurn === turn.length) {
        this.#turn++;
        this.#inTurn = 0;
      }
    }
  }

  check(): void {
    const { sends, returns, session, fails, rest } = this.#case;
    if (fails === undefined) {
      if (this.thrown !== null) throw this.thrown as Error;
      expect(this.returned).toEqual('returns' in this.#case ? returns : 'transmission');
    } else {
      expect(this.returned).toBeUndefined();
      expect(this.thrown).toMatchObject({
        code: fails.code,
        ...(fails.name === undefined ? {} : { name: fails.name }),
      });
      if (fails.says !== undefined) expect((this.thrown as NbdError).message).toMatch(fails.says);
      expect((this.thrown as NbdError).serverMessage).toBe(fails.serverMessage);
    }
    if (sends !== undefined) expect(Buffer.concat(this.sent).toString('hex')).toBe(sends.toString('hex'));
    if (session !== undefined) expect(this.session).toMatchObject(session);
    if (rest !== undefined) {
      const found = Buffer.concat([...this.phase.takeRest(), ...this.#later]);
      expect(found.toString('hex')).toBe(rest.toString('hex'));
    }
  }
}

/** Delivers the case in every way; each must come to the same. */
export function negotiateEveryWay(each: HandshakeCase): void {
  const bytes = Buffer.concat(each.turns);
  const open = (): Sink => {
    const run = new Run(each);
    return {
      push: (segment) => {
        run.push(segment);
      },
      finish: () => {
        run.check();
      },
    };
  };
  if (each.isWhole !== true) {
    deliver(bytes, open, { maxSplits: 200, random: 5 });
    return;
  }
  const sink = open();
  sink.push(bytes);
  sink.finish();
}

/** The session's state after a handshake, for those that are run without a case. */
export function sessionOf(request: Partial<HandshakeRequest> = {}): HandshakeSession {
  return new HandshakeSession({ ...REQUEST, ...request });
}
