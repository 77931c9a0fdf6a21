// Block status of a range, asked ahead: several questions are in flight, and their answers are given out in order.
// Invariants: questions never overlap, and the answers cover the range in order, without gaps or overlaps.

import type { ByteCount } from '../../client/export.js';
import { NbdCommandError, NbdProtocolError, NbdQueueFullError, NbdStateError } from '../../errors.js';
import { CONTEXT_BASE_ALLOCATION } from '../../protocol/client-constants.js';
import { quoted } from '../../util/visible.js';
import type { ExportLike, Facts } from '../facts.js';
import { located } from '../failures.js';
import { anotherTurn } from '../lanes.js';

/** What one block status command has answered, or failed with, for the range from `start` to `end`. */
export interface Answer {
  readonly start: bigint;
  readonly end: bigint;
  /**
   * For each context, in the order of {@link Question.contexts}, pairs of length and flags from `start` on. They reach
   * `end` at least, and may reach beyond it. Empty after an error.
   */
  readonly contexts: readonly BigUint64Array[];
  readonly failure: { readonly error: unknown } | null;
}

export interface Question {
  readonly start: bigint;
  readonly end: bigint;
  readonly contexts: readonly string[];
  /** The most bytes that one command asks about. Default: as many as it can. */
  readonly step?: ByteCount | undefined;
  /** The most commands in flight. Default 8. */
  readonly questions?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly syscall: string;
}

const DEFAULT_QUESTIONS = 8;
/**
 * Extents that may be held or expected in answers that are not due yet: 16 MiB. Where answers have very many of them
 * fewer questions are in flight, and it is not latency that takes the time.
 */
const MOST_HELD = 2 ** 20;
/** Answers of a few extents each that may wait for an earlier one, for each question in flight. */
const MOST_READY = 8;
/** Answers that a piece of the range may take, where the server answers for less than it is asked. */
const ANSWERS_A_PIECE = 8;

const NO_CONTEXTS: readonly BigUint64Array[] = [];

/** A part of the range: not asked about yet, in flight, or answered. */
interface Segment {
  start: bigint;
  end: bigint;
  isAsked: boolean;
  answer: Answer | null;
  /** Extents in the answer, all contexts together. */
  held: number;
}

/**
 * Asks for the status of a range. The first question is asked alone: its answer shows how far answers reach. Where the
 * server answers for less than it was asked, later questions are shorter, until answers are complete again.
 *
 * What a question that fails has asked about is the answer's range, and the next answer continues behind it; the caller
 * decides whether to go on. Nothing more is asked until the caller has taken the failure.
 */
export async function* askAhead(
  connection: ExportLike,
  facts: Facts,
  question: Question,
): AsyncGenerator<Answer, void, undefined> {
  const ahead = new LookAhead(connection, facts, question);
  try {
    for (let answer = await ahead.next(); answer !== null; answer = await ahead.next()) yield answer;
  } finally {
    ahead.stop();
  }
}

class LookAhead {
  readonly #connection: ExportLike;
  readonly #facts: Facts;
  readonly #question: Question;
  readonly #minimum: bigint;
  /** A server may refuse questions about less than a block, be it the short last one of the export. */
  readonly #wholeEnd: bigint;
  /** The longest question, a multiple of the minimum block. */
  readonly #most: bigint;
  /** The most questions in flight. */
  #depth: number;
  /** The part of the range that has not been given out, in order. */
  readonly #segments: Segment[] = [];
  readonly #abort = new AbortController();
  /** Bytes of the next question. */
  #piece: bigint;
  #inFlight = 0;
  #ready = 0;
  #held = 0;
  /** Extents that an answer is expected to have. */
  #expected = 0;
  #hasAnswered = false;
  /** Failures that have not been given out. */
  #failures = 0;
  #wake: (() => void) | null = null;

  constructor(connection: ExportLike, facts: Facts, question: Question) {
    const { start, end, step, signal, questions = DEFAULT_QUESTIONS } = question;
    this.#connection = connection;
    this.#facts = facts;
    this.#question = question;
    this.#minimum = BigInt(facts.minimum);
    this.#wholeEnd = facts.size - (facts.size % this.#minimum);
    const wanted = step === undefined || BigInt(step) > facts.longestQuestion ? facts.longestQuestion : BigInt(step);
    this.#most = wanted < this.#minimum ? this.#minimum : this.#alignDown(wanted);
    this.#piece = this.#most;
    this.#depth = questions;
    if (start < end) this.#segments.push(unasked(start, end));
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** The next answer in order; null at the end of the range. Rejects with the signal's reason. */
  async next(): Promise<Answer | null> {
    for (;;) {
      this.#question.signal?.throwIfAborted();
      const [head] = this.#segments;
      if (head === undefined) return null;
      if (head.answer !== null) {
        this.#segments.shift();
        this.#ready--;
        this.#held -= head.held;
        if (head.answer.failure === null) this.#askMore();
        else this.#failures--;
        return head.answer;
      }
      const settled = new Promise<void>((resolve) => (this.#wake = resolve));
      this.#askMore();
      await settled;
    }
  }

  /** Ends the asking: aborts the questions in flight. */
  stop(): void {
    this.#question.signal?.removeEventListener('abort', this.#onAbort);
    this.#segments.length = 0;
    this.#abort.abort();
  }

  readonly #onAbort = (): void => {
    this.#abort.abort(this.#question.signal?.reason);
    this.#wake?.();
  };

  #askMore(): void {
    if (this.#abort.signal.aborted) return;
    for (let index = 0; index < this.#segments.length; index++) {
      const segment = this.#segments[index] as Segment;
      if (segment.isAsked) continue;
      if (!this.#mayAsk(index)) return;
      const asked = this.#alignDown(segment.start);
      const most = asked + this.#piece;
      const until = asked < this.#wholeEnd && most > this.#wholeEnd ? this.#wholeEnd : most;
      if (until < segment.end) {
        this.#segments.splice(index + 1, 0, unasked(until, segment.end));
        segment.end = until;
      }
      segment.isAsked = true;
      void this.#ask(segment, asked);
    }
  }

  #mayAsk(index: number): boolean {
    // The answer that is due next is always asked for, or there would be no progress.
    if (index === 0) return true;
    if (!this.#hasAnswered || this.#failures > 0) return false;
    if (this.#inFlight >= this.#depth || this.#ready >= this.#depth * MOST_READY) return false;
    return this.#held + (this.#inFlight + 1) * this.#expected <= MOST_HELD;
  }

  async #ask(segment: Segment, asked: bigint): Promise<void> {
    const { contexts } = this.#question;
    const count = this.#alignUp(segment.end) - asked;
    let found: BigUint64Array[];
    let covered = 0n;
    let failure: Answer['failure'] = null;
    this.#inFlight++;
    try {
      const reply = await this.#connection.blockStatus64(count, asked, 0, this.#abort.signal);
      found = contexts.map((context) => {
        const entries = reply.get(context)?.entries;
        if (entries === undefined || entries.length < 2) throw this.#noExtent(context, asked);
        return entries;
      });
      covered = await shortest(found);
    } catch (cause) {
      found = [];
      if (cause instanceof NbdQueueFullError && this.#inFlight > 1) {
        // Fewer at a time then; this one is asked when one of the others has been answered.
        this.#depth = --this.#inFlight;
        segment.isAsked = false;
        return;
      }
      // What the server refuses for being less than a block reads as data; of other contexts nothing can be assumed.
      const isTail = asked >= this.#wholeEnd && cause instanceof NbdCommandError;
      if (isTail && contexts.every((context) => context === CONTEXT_BASE_ALLOCATION)) {
        found = contexts.map(() => BigUint64Array.of(count, 0n));
        covered = count;
      } else failure = { error: this.#described(cause, segment.start) };
    }
    this.#inFlight--;
    if (this.#segments.length > 0) this.#settle(segment, asked, found, covered, failure);
  }

  #settle(
    segment: Segment,
    asked: bigint,
    found: readonly BigUint64Array[],
    covered: bigint,
    failure: Answer['failure'],
  ): void {
    let problem = failure;
    const { start } = segment;
    let [reached, held] = [segment.end, 0];
    let kept = NO_CONTEXTS;
    if (problem === null) {
      reached = asked + covered;
      // The first extent may lie before the range, where that begins within a block.
      if (reached <= start) problem = { error: this.#stuck(asked) };
    }
    if (problem === null) {
      held = found.reduce((sum, entries) => sum + entries.length / 2, 0);
      this.#adapt(segment, asked, reached, held);
      segment.end = this.#fit(segment, reached);
      kept = start === asked ? found : found.map((entries) => behead(entries, start - asked));
    } else {
      this.#failures++;
    }
    segment.answer = { start, end: segment.end, contexts: kept, failure: problem };
    segment.held = held;
    this.#held += held;
    this.#ready++;
    this.#hasAnswered = true;
    this.#askMore();
    this.#wake?.();
  }

  /** Chooses the size of the next questions, and how many extents to expect of their answers. */
  #adapt(segment: Segment, asked: bigint, reached: bigint, held: number): void {
    this.#expected = Math.max(held, Math.floor(this.#expected * 0.75));
    const reach = reached - asked;
    // What an answer may have, so that all that may be in flight can be held.
    const share = Math.floor(MOST_HELD / this.#depth);
    const fits = (reach * BigInt(Math.max(share, 1))) / BigInt(held);
    let piece: bigint;
    if (held > share) {
      piece = this.#alignUp(fits, false);
    } else if (reached < segment.end) {
      // Several answers a piece, because the last one of each is cut short. Not of large ones, which would all be held.
      const answers = Math.floor(share / held);
      piece = this.#alignUp(reach * BigInt(Math.min(Math.max(answers, 1), ANSWERS_A_PIECE)), false);
      if (piece > this.#piece) return;
    } else {
      piece = (segment.end - asked) * 2n;
      if (piece > fits) piece = fits;
      piece -= piece % this.#minimum;
      if (piece < this.#piece) return;
    }
    this.#piece = piece < this.#minimum ? this.#minimum : piece < this.#most ? piece : this.#most;
  }

  /**
   * Where an answer that reaches `reached` ends. The rest of a short one becomes a segment of its own; a long one takes
   * what it covers from the segments behind it, as far as they have not been asked about.
   */
  #fit(segment: Segment, reached: bigint): bigint {
    const index = this.#segments.indexOf(segment) + 1;
    if (reached < segment.end) {
      const next = this.#segments[index];
      if (next?.isAsked === false) next.start = reached;
      else this.#segments.splice(index, 0, unasked(reached, segment.end));
      return reached;
    }
    let end = segment.end;
    for (let next = this.#segments[index]; next?.isAsked === false && end < reached; next = this.#segments[index]) {
      end = next.end < reached ? next.end : reached;
      if (end === next.end) this.#segments.splice(index, 1);
      else next.start = end;
    }
    return end;
  }

  #alignDown(position: bigint): bigint {
    return position - (position % this.#minimum);
  }

  /** The end of the block; with `isWithin`, the default, at most that of the export. */
  #alignUp(position: bigint, isWithin = true): bigint {
    const up = this.#alignDown(position + this.#minimum - 1n);
    return isWithin && up > this.#facts.size ? this.#facts.size : up;
  }

  #described(cause: unknown, offset: bigint): unknown {
    if (!(cause instanceof NbdStateError)) return cause;
    return located(cause, { syscall: this.#question.syscall, what: 'block status', offset });
  }

  #noExtent(context: string, offset: bigint): NbdProtocolError {
    const { syscall } = this.#question;
    const message = `${syscall}: the server returned no extent of ${quoted(context)} at offset ${offset}`;
    return new NbdProtocolError(message, { code: 'EPROTO', syscall, offset });
  }

  #stuck(offset: bigint): NbdProtocolError {
    const { syscall } = this.#question;
    const message = `${syscall}: the server returned an extent of less than a block at offset ${offset}`;
    return new NbdProtocolError(message, { code: 'EPROTO', syscall, offset });
  }
}

const unasked = (start: bigint, end: bigint): Segment => ({ start, end, isAsked: false, answer: null, held: 0 });

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
/** Numbers of an answer that take a noticeable part of a turn of the event loop. */
const MANY = 2 ** 19;
/** 2^20 halves of 32 bits add up to a safe integer. */
const SUMMED = 2 ** 20;

/** How far the context goes that ends first: contexts may end at different places in a reply. */
async function shortest(contexts: readonly BigUint64Array[]): Promise<bigint> {
  let least: bigint | null = null;
  for (const entries of contexts) {
    const length = sumOfLengths(entries);
    if (least === null || length < least) least = length;
    // A million extents of each take some milliseconds.
    if (entries.length > MANY) await anotherTurn();
  }
  return least ?? 0n;
}

/** In halves: a bigint for each of a million extents would hold the event loop for 50 ms. */
function sumOfLengths(entries: BigUint64Array): bigint {
  const words = new Uint32Array(entries.buffer, entries.byteOffset, entries.length * 2);
  const high = LITTLE_ENDIAN ? 1 : 0;
  let sum = 0n;
  for (let start = 0; start < words.length; start += SUMMED * 4) {
    const end = Math.min(start + SUMMED * 4, words.length);
    let [highs, lows] = [0, 0];
    for (let at = start; at < end; at += 4) {
      highs += words[at + high] as number;
      lows += words[at + 1 - high] as number;
    }
    sum += (BigInt(highs) << 32n) + BigInt(lows);
  }
  return sum;
}

/** The entries without their first `length` bytes. */
function behead(entries: BigUint64Array, length: bigint): BigUint64Array {
  let rest = length;
  let index = 0;
  while (rest >= (entries[index] as bigint)) {
    rest -= entries[index] as bigint;
    index += 2;
  }
  // Not a copy: copying a long answer would block the event loop, and no other code uses its memory.
  const left = entries.subarray(index);
  left[0] = (left[0] as bigint) - rest;
  return left;
}
