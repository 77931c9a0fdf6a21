// What of a source is copied: all of it, a range, a list of ranges, or what a dirty bitmap marks as changed.

import { fromBigInt } from '../../util/u64.js';
import { refuse } from '../../util/option-checks.js';
import type { Source } from '../ends/ends.js';
import { checkedRun, type Run, type RunOptions } from '../ends/runs.js';
import { runsOf } from '../ends/span-runs.js';
import { rangeOf } from '../facts.js';
import { located } from '../failures.js';
import { IntervalSet, type Span } from '../intervals.js';
import { makeBreather } from '../lanes.js';
import { normalised } from '../ranges.js';
import { pick } from '../options.js';
import type { CopyOptions } from './options.js';

/** Changes up to this number are kept; more of them are asked for again. */
const KEPT_CHANGES = 65_536;

export class Selection {
  readonly #from: Source;
  /** The range that the selection lies in. */
  readonly start: bigint;
  readonly end: bigint;
  readonly bitmap: string | null;
  /** Null where a bitmap decides. */
  readonly #spans: readonly Span[] | null;
  readonly #runOptions: RunOptions;
  #changes: Run[] | null = null;
  #total: bigint;

  /** @throws NbdStrictError `EINVAL` for ranges that leave the source, and a source that has no bitmaps. */
  constructor(from: Source, options: CopyOptions, runOptions: RunOptions) {
    const { bitmap, ranges } = options;
    this.#from = from;
    this.#runOptions = runOptions;
    [this.start, this.end] = rangeOf(from.size, options, 'copy');
    this.bitmap = bitmap ?? null;
    if (bitmap !== undefined) {
      if (ranges !== undefined) throw refuse('copy', 'bitmap and ranges both select what is copied: use one of them');
      if (from.end.changedRuns === undefined) {
        throw refuse('copy: bitmap', 'the source has no dirty bitmaps: it must be an export, or have changedRuns()');
      }
    }
    const { start, end } = this;
    if (bitmap !== undefined) this.#spans = null;
    else if (ranges === undefined) this.#spans = start < end ? [{ start, end }] : [];
    else this.#spans = normalised(ranges, { start, end, size: from.size }, 'copy: ranges');
    this.#total = (this.#spans ?? []).reduce((sum, span) => sum + span.end - span.start, 0n);
  }

  /** Bytes to copy; of a bitmap after measure(). */
  get total(): bigint {
    return this.#total;
  }

  /** The list of ranges; null for a bitmap. */
  get spans(): readonly Span[] | null {
    return this.#spans;
  }

  /** Reads all of a bitmap, so that one that fails does so before anything has been copied. */
  async measure(): Promise<void> {
    if (this.bitmap === null) return;
    const kept: Run[] = [];
    let total = 0n;
    for await (const run of this.#changedRuns()) {
      total += run.end - run.start;
      if (kept.length <= KEPT_CHANGES) kept.push(run);
    }
    this.#total = total;
    this.#changes = kept.length <= KEPT_CHANGES ? kept : null;
  }

  /** The runs to copy but for those done, in order. */
  async *runs(done: IntervalSet): AsyncGenerator<Run, void, undefined> {
    if (this.#spans !== null) {
      const left = this.#spans.flatMap((span) => [...done.outside(span.start, span.end)]);
      yield* runsOf(this.#from, left, this.#runOptions);
      return;
    }
    // What is done changes while this goes on, behind it.
    const before = new IntervalSet(done.spans);
    for await (const { start, end, isZero } of this.#changes ?? this.#changedRuns()) {
      for (const span of before.outside(start, end)) yield { ...span, isZero };
    }
  }

  async *#changedRuns(): AsyncGenerator<Run, void, undefined> {
    const { bitmap, start, end } = this;
    const { signal } = this.#runOptions;
    if (bitmap === null || start === end) return;
    const status = pick(this.#runOptions, 'onStatusError', 'step', 'questions');
    let previous = start;
    const breathe = makeBreather();
    try {
      const runs = this.#from.end.changedRuns?.(bitmap, fromBigInt(start), fromBigInt(end - start), signal, status);
      for await (const { offset, length, isZero } of runs ?? []) {
        const pause = breathe();
        if (pause !== null) await pause;
        const [from, until] = checkedRun(offset, length, previous, 'copy', 'changedRuns');
        previous = until;
        if (until > end) throw refuse('copy', `changedRuns returned a run up to ${until}, beyond ${end}`);
        if (from < until) yield { start: from, end: until, isZero };
      }
    } catch (cause) {
      throw located(cause, { syscall: 'copy', what: 'block status of the bitmap', offset: previous }, signal);
    }
  }
}
