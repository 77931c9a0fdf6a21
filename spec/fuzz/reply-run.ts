// The client's reply decoder under the microscope: every buffer lies between guard bytes, every ending and callback is
// counted, and the memory that it takes is measured.

import { NbdProtocolError } from '../../lib/errors.js';
import { Command } from '../../lib/client/transmission/command.js';
import { COMMANDS, type CommandSpec } from '../../lib/protocol/commands.js';
import { ReplyDecoder } from '../../lib/protocol/reply-decoder.js';
import { fromBigInt } from '../../lib/util/u64.js';
import { type Asked, type Expectation, FILL, type ReplyContext } from './reply-reference.js';

const GUARD = 32;
const GUARD_BYTE = 0xa7;
const SPECS: ReadonlyMap<string, CommandSpec> = new Map(COMMANDS.map((spec) => [spec.method, spec]));

/** How the bytes get in. */
export type Way = 'push' | 'targets' | 'large targets';

interface Tracked {
  readonly command: Command;
  /** The read's buffer with guards on both sides. */
  readonly arena: Buffer;
  finished: number;
  readonly told: number[][];
  readonly extents: [string, ...bigint[]][];
}

export class ReplyRun {
  readonly decoder: ReplyDecoder;
  thrown: unknown = null;
  readonly #tracked: readonly Tracked[];

  /** `allocating`: reads get their memory when the first byte is there, as those without a buffer of their own do. */
  constructor(context: ReplyContext, asked: readonly Asked[], way: Way, allocating: boolean) {
    this.#tracked = asked.map((each, index) => track(each, index + 1, allocating));
    this.decoder = new ReplyDecoder(
      {
        find: (cookie) => {
          const found = this.#tracked[cookie - 1];
          return found?.finished === 0 ? found.command : undefined;
        },
        finished: (command) => {
          const found = this.#tracked[command.cookie - 1];
          if (found?.command !== command) throw new Error('a command that was never issued has finished');
          found.finished++;
        },
        expectsLarge: way === 'large targets',
      },
      {
        structuredReplies: context.mode !== 'simple',
        extendedHeaders: context.mode === 'extended',
        exportSize: fromBigInt(context.exportSize),
        contexts: context.contexts,
      },
    );
  }

  /** Nothing is fed any more once it has thrown, as in a connection. */
  feed(segment: Buffer, way: Way): void {
    if (this.thrown !== null) return;
    try {
      if (way === 'push') {
        this.decoder.push(segment);
        return;
      }
      for (let at = 0; at < segment.length;) {
        const target = this.decoder.target();
        if (target.length === 0) throw new Error('a target without room');
        const length = Math.min(target.length, segment.length - at);
        target.set(segment.subarray(at, at + length));
        this.decoder.advance(length);
        at += length;
      }
    } catch (error) {
      this.thrown = error;
    }
  }

  /** Throws where anything differs from what the stream contains. */
  check(expected: Expectation): void {
    const { thrown, decoder } = this;
    if (thrown !== null && !(thrown instanceof NbdProtocolError && thrown.code === 'EPROTO')) throw thrown as Error;
    same('the connection is lost', thrown !== null, expected.violation);
    same('messages', decoder.chunks, expected.messages);
    if (!expected.violation) same('between replies', decoder.isAtBoundary, expected.atBoundary);
    this.#tracked.forEach((tracked, index) => {
      const outcome = expected.outcomes[index];
      if (outcome === undefined) throw new Error('no expectation');
      const who = `command ${index + 1} (${tracked.command.spec.method})`;
      const { command, arena } = tracked;
      same(`${who}: endings`, tracked.finished, outcome.ending === 'pending' ? 0 : 1);
      const { error } = command;
      same(`${who}: error`, error === null ? null : `${error.name} ${error.code}`, outcome.error);
      checkGuards(who, arena);
      if (!arena.subarray(GUARD, arena.length - GUARD).equals(outcome.data)) {
        throw new Error(`${who}: its buffer does not hold what the stream carried`);
      }
      same(`${who}: chunks told`, JSON.stringify(tracked.told), JSON.stringify(outcome.told));
      same(`${who}: extents told`, tracked.extents.join(), outcome.extents.join());
    });
  }
}

function track({ method, count, offset, flags }: Asked, cookie: number, allocating: boolean): Tracked {
  const spec = SPECS.get(method);
  if (spec === undefined) throw new Error(`no command ${method}`);
  const command = new Command(spec, fromBigInt(count), fromBigInt(offset), flags);
  command.cookie = cookie;
  const length = spec.payload === 'from-server' ? Number(count) : 0;
  const arena = Buffer.allocUnsafeSlow(length + 2 * GUARD).fill(GUARD_BYTE);
  const tracked: Tracked = { command, arena, finished: 0, told: [], extents: [] };
  const buffer = arena.subarray(GUARD, GUARD + length).fill(FILL);
  if (method === 'preadStructured') {
    command.buffer = buffer;
    command.onChunk = (subbuf, at, status) => {
      const start = subbuf.byteOffset - arena.byteOffset - GUARD;
      // Offset and place in the buffer must agree.
      same('the offset that a chunk is told with', at - offset, BigInt(start));
      tracked.told.push([status, start, subbuf.length]);
    };
  } else if (spec.payload === 'from-server') {
    if (allocating) command.allocate = () => buffer;
    else command.buffer = buffer;
  } else if (method === 'blockStatus' || method === 'blockStatus64') {
    command.onExtent = (context, at, entries) => {
      same('the offset that extents are told with', at, offset);
      tracked.extents.push([context, ...Array.from(entries as Iterable<number | bigint>, BigInt)]);
    };
  }
  return tracked;
}

function checkGuards(who: string, arena: Buffer): void {
  for (let at = 0; at < GUARD; at++) {
    if (arena[at] !== GUARD_BYTE || arena[arena.length - 1 - at] !== GUARD_BYTE) {
      throw new Error(`${who}: a byte outside of its buffer was written`);
    }
  }
}

/** Faster than jest's expect, and there outside jest. */
export function same(what: string, seen: unknown, expected: unknown): void {
  if (!Object.is(seen, expected)) throw new Error(`${what}: ${String(seen)} in place of ${String(expected)}`);
}
