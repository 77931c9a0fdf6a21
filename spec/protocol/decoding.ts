// Cases for the reply decoder: what is in flight, what the server sends, and how each command ends. Every case is
// delivered in every way that a network may cut it, by push() and by
// target()/advance().

import { expect } from '@jest/globals';

import { type NbdError } from '../../lib/errors.js';
import { type BlockStatusEntries } from '../../lib/protocol/block-status.js';
import { Command } from '../../lib/client/transmission/command.js';
import { type CommandSpec } from '../../lib/protocol/commands.js';
import { ReplyDecoder } from '../../lib/protocol/reply-decoder.js';
import { type U64 } from '../../lib/util/u64.js';
import { deliver, type Sink } from '../support/deliver.js';
import { content } from '../support/golden.js';

export interface InFlight {
  readonly command: CommandSpec;
  readonly count: U64;
  readonly offset?: U64;
  readonly flags?: number;
}

/** How a command ends: its code and a part of the message; or success, with the data of a read that are not content(). */
export type Ending =
  | 'ok'
  | 'pending'
  | { readonly data: Uint8Array }
  | { readonly extents: Readonly<Record<string, readonly number[]>> }
  | { readonly code: string; readonly says?: RegExp; readonly serverMessage?: string };

export interface DecoderCase {
  readonly mode: 'simple' | 'structured' | 'extended';
  readonly exportSize?: U64;
  readonly contexts?: ReadonlyMap<number, string>;
  /** Their cookies are 1, 2, 3 … */
  readonly inFlight: readonly InFlight[];
  readonly bytes: Buffer;
  readonly endings: readonly Ending[];
  /** What the decoder throws, where the rule that was broken costs the connection. */
  readonly violation?: RegExp;
  /** Number of messages, where the decoder counts them. */
  readonly chunks?: number;
  /** Callbacks of structured reads: status, offset and length of each. */
  readonly told?: readonly (readonly [status: number, offset: number, length: number])[];
}

/** How the bytes arrive: in buffers of the caller, or in those that the decoder chose. */
type Way = 'push' | 'targets' | 'large targets';

class Run {
  readonly commands: Command[];
  readonly finished: Command[] = [];
  readonly told: [number, number, number][] = [];
  readonly extents = new Map<Command, Record<string, number[]>>();
  readonly decoder: ReplyDecoder;
  thrown: unknown = null;
  readonly #case: DecoderCase;
  readonly #way: Way;

  constructor(each: DecoderCase, way: Way) {
    this.#case = each;
    this.#way = way;
    this.commands = each.inFlight.map(({ command, count, offset = 0, flags = 0 }, index) => {
      const made = new Command(command, count, offset, flags);
      made.cookie = index + 1;
      // Marked, so that a byte that never came shows.
      made.allocate = (length) => Buffer.alloc(length, 0xdb);
      if (command.method === 'preadStructured') {
        made.onChunk = (subbuf, at, status) => this.told.push([status, Number(at), subbuf.length]);
      }
      const seen: Record<string, number[]> = {};
      this.extents.set(made, seen);
      made.onExtent = (context: string, _at: bigint, entries: BlockStatusEntries) => {
        seen[context] = [...entries].map(Number);
      };
      return made;
    });
    this.decoder = new ReplyDecoder(
      {
        find: (cookie) => this.commands.find((each) => each.cookie === cookie && !this.finished.includes(each)),
        finished: (command) => void this.finished.push(command),
        expectsLarge: way === 'large targets',
      },
      {
        structuredReplies: each.mode !== 'simple',
        extendedHeaders: each.mode === 'extended',
        exportSize: each.exportSize ?? 1 << 20,
        contexts: each.contexts ?? new Map([[1, 'base:allocation']]),
      },
    );
  }

  push(segment: Uint8Array): void {
    if (this.thrown !== null) return;
    try {
      if (this.#way === 'push') {
        this.decoder.push(segment);
        return;
      }
      for (let at = 0; at < segment.length;) {
        const target = this.decoder.target();
        const length = Math.min(target.length, segment.length - at);
        target.set(segment.subarray(at, at + length));
        this.decoder.advance(length);
        at += length;
      }
    } catch (error) {
      this.thrown = error;
    }
  }

  /** Everything that a delivery could change, for comparing one with another. */
  summary(): string {
    const commands = this.commands.map((command) => [
      this.finished.indexOf(command),
      command.error?.message,
      (command.buffer as Buffer | null)?.toString('latin1'),
      this.extents.get(command),
    ]);
    const thrown = this.thrown instanceof Error ? this.thrown.message : this.thrown;
    return JSON.stringify([
      commands,
      thrown,
      this.told,
      this.decoder.chunks,
      thrown === null && this.decoder.isAtBoundary,
    ]);
  }

  check(): void {
    const { endings, violation, chunks, told } = this.#case;
    if (violation === undefined) {
      if (this.thrown !== null) throw this.thrown as Error;
      expect(this.decoder.isAtBoundary).toBe(true);
    } else {
      expect(this.thrown).toMatchObject({ name: 'NbdProtocolError', code: 'EPROTO' });
      expect((this.thrown as NbdError).message).toMatch(violation);
    }
    this.commands.forEach((command, index) => {
      this.#check(command, endings[index] ?? 'pending');
    });
    if (chunks !== undefined) expect(this.decoder.chunks).toBe(chunks);
    if (told !== undefined) expect(this.told).toEqual(told);
  }

  #check(command: Command, ending: Ending): void {
    expect(this.finished.filter((each) => each === command)).toHaveLength(ending === 'pending' ? 0 : 1);
    if (ending === 'pending') return;
    if (typeof ending === 'object' && 'code' in ending) {
      expect(command.error).toMatchObject({ code: ending.code, cookie: BigInt(command.cookie) });
      if (ending.says !== undefined) expect(command.error?.message).toMatch(ending.says);
      expect(command.error?.serverMessage).toBe(ending.serverMessage);
      return;
    }
    expect(command.error).toBeNull();
    if (typeof ending === 'object' && 'extents' in ending) {
      expect(this.extents.get(command)).toEqual(ending.extents);
    } else if (command.spec.type === 0) {
      const data = ending === 'ok' ? content(Number(command.offset), Number(command.count)) : ending.data;
      expect((command.buffer as Buffer | null)?.toString('hex')).toBe(Buffer.from(data).toString('hex'));
    }
  }
}

/**
 * Delivers the case in every way. The first delivery is looked at closely, the others must end as it did. Longer ones
 * are not cut at every byte.
 */
export function decodeEveryWay(each: DecoderCase): void {
  let expected: string | null = null;
  for (const way of ['push', 'targets', 'large targets'] as const) {
    const open = (): Sink => {
      const run = new Run(each, way);
      return {
        push: (segment) => {
          run.push(segment);
        },
        finish: () => {
          if (expected === null) {
            run.check();
            expected = run.summary();
          } else if (run.summary() !== expected) {
            expect(run.summary()).toBe(expected);
          }
        },
      };
    };
    // target() makes a large buffer on each call.
    deliver(each.bytes, open, way === 'push' ? { maxSplits: 256, random: 10 } : { maxSplits: 32, random: 3 });
  }
}
