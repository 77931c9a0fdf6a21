// What is known of a source, as runs that are zero or not: checked, whole, and cut to blocks. Invariant: the runs cover
// the range in order without gaps or overlaps, and what is called zero is.

import { NbdStrictError } from '../../errors.js';
import { fromBigInt } from '../../util/u64.js';
import type { StatusOptions } from '../options.js';
import type { Source } from './ends.js';
import { isCommandFailure, located } from '../failures.js';
import { makeBreather } from '../lanes.js';

/** Bytes from `start` up to `end`. */
export interface Run {
  readonly start: bigint;
  readonly end: bigint;
  readonly isZero: boolean;
}

export interface RunOptions extends StatusOptions {
  /** False: nothing is asked, and all of it is data. */
  readonly extents?: boolean | undefined;
  /** Zero runs begin and end at multiples of it, or where the range does. Default 1. */
  readonly align?: number;
  readonly signal?: AbortSignal | undefined;
  readonly syscall: string;
}

/** The runs of a range, each of the other kind than the one before. */
export async function* knownRuns(
  source: Source,
  start: bigint,
  end: bigint,
  options: RunOptions,
): AsyncGenerator<Run, void, undefined> {
  const shaper = new Shaper(start, end, BigInt(options.align ?? 1));
  let reached = start;
  let previous = 0n;
  const { signal, syscall, onStatusError = 'data' } = options;
  if (options.extents !== false && source.end.zeroRuns !== undefined && start < end) {
    try {
      const runs = source.end.zeroRuns(fromBigInt(start), fromBigInt(end - start), signal, options);
      const breathe = makeBreather();
      for await (const { offset, length, isZero } of runs) {
        const pause = breathe();
        if (pause !== null) await pause;
        const [from, until] = checkedRun(offset, length, previous, syscall);
        previous = until;
        if (until <= reached) continue;
        if (from > reached) shaper.add(reached, from < end ? from : end, false);
        if (from >= end) break;
        shaper.add(from < reached ? reached : from, until < end ? until : end, isZero);
        reached = until < end ? until : end;
        for (let run = shaper.take(); run !== null; run = shaper.take()) yield run;
        if (reached === end) break;
      }
    } catch (cause) {
      if (onStatusError === 'throw' || !isCommandFailure(cause)) {
        throw located(cause, { syscall, what: 'block status', offset: reached }, signal);
      }
    }
  }
  if (reached < end) shaper.add(reached, end, false);
  shaper.finish();
  for (let run = shaper.take(); run !== null; run = shaper.take()) yield run;
}

/** A run of a source of the caller's own: in order, of a length that it can have. */
export function checkedRun(
  offset: unknown,
  length: unknown,
  previous: bigint,
  syscall: string,
  method = 'zeroRuns',
): [start: bigint, end: bigint] {
  if (isWhole(offset) && isWhole(length)) {
    const from = BigInt(offset);
    if (from >= previous) return [from, from + BigInt(length)];
  }
  throw new NbdStrictError(
    `${syscall}: ${method} returned a run of ${String(length)} bytes at offset ${String(offset)}, after ${previous}`,
    { code: 'EINVAL', syscall },
  );
}

const isWhole = (value: unknown): value is number | bigint =>
  typeof value === 'bigint' ? value >= 0n : Number.isSafeInteger(value) && (value as number) >= 0;

/** Joins neighbours, cuts zeroes to whole blocks, and joins again. */
class Shaper {
  readonly #start: bigint;
  readonly #end: bigint;
  readonly #align: bigint;
  #raw: Run | null = null;
  #shaped: Run | null = null;
  readonly #ready: Run[] = [];
  #taken = 0;

  constructor(start: bigint, end: bigint, align: bigint) {
    this.#start = start;
    this.#end = end;
    this.#align = align;
  }

  add(start: bigint, end: bigint, isZero: boolean): void {
    if (start === end) return;
    const last = this.#raw;
    if (last?.isZero === isZero) {
      this.#raw = { start: last.start, end, isZero };
    } else {
      if (last !== null) this.#shape(last);
      this.#raw = { start, end, isZero };
    }
  }

  finish(): void {
    if (this.#raw !== null) this.#shape(this.#raw);
    if (this.#shaped !== null) this.#ready.push(this.#shaped);
    this.#raw = null;
    this.#shaped = null;
  }

  take(): Run | null {
    const run = this.#ready[this.#taken];
    if (run !== undefined) {
      this.#taken++;
      return run;
    }
    this.#ready.length = 0;
    this.#taken = 0;
    return null;
  }

  #shape({ start, end, isZero }: Run): void {
    if (!isZero || this.#align === 1n) {
      this.#join(start, end, isZero);
      return;
    }
    const over = start % this.#align;
    const from = over === 0n || start === this.#start ? start : start - over + this.#align;
    const until = end === this.#end ? end : end - (end % this.#align);
    if (from >= until) {
      this.#join(start, end, false);
      return;
    }
    this.#join(start, from, false);
    this.#join(from, until, true);
    this.#join(until, end, false);
  }

  #join(start: bigint, end: bigint, isZero: boolean): void {
    if (start === end) return;
    const last = this.#shaped;
    if (last?.isZero === isZero) {
      this.#shaped = { start: last.start, end, isZero };
    } else {
      if (last !== null) this.#ready.push(last);
      this.#shaped = { start, end, isZero };
    }
  }
}

/**
 * Cuts a run into pieces of at most `most` bytes that begin at multiples of `align`, where the run does not begin or end
 * elsewhere. `most` is a multiple of `align`.
 */
export function* cutRun({ start, end, isZero }: Run, most: bigint, align: bigint): Generator<Run, void, undefined> {
  for (let at = start; at < end;) {
    const next = at + most - (at % align);
    const until = next < end ? next : end;
    yield { start: at, end: until, isZero };
    at = until;
  }
}
