// What is known of several ranges of a source, in one go.

import type { Span } from '../intervals.js';
import type { Source } from './ends.js';
import { knownRuns, type Run, type RunOptions } from './runs.js';

/** Ranges that are closer than this are looked up in one walk of the map: a question covers more. */
const NEAR = 1024n * 1024n * 1024n;

/** The runs of ranges that are in order: those that lie near to each other are looked up together. */
export async function* runsOf(
  source: Source,
  spans: readonly Span[],
  options: RunOptions,
): AsyncGenerator<Run, void, undefined> {
  for (let first = 0; first < spans.length;) {
    let behind = first + 1;
    while (behind < spans.length && (spans[behind] as Span).start - (spans[behind - 1] as Span).end < NEAR) behind++;
    yield* runsOfGroup(source, spans.slice(first, behind), options);
    first = behind;
  }
}

async function* runsOfGroup(
  source: Source,
  spans: readonly Span[],
  options: RunOptions,
): AsyncGenerator<Run, void, undefined> {
  let index = 0;
  const runs = knownRuns(source, (spans[0] as Span).start, (spans.at(-1) as Span).end, options);
  for await (const run of runs) {
    for (let span = spans[index]; span !== undefined && span.start < run.end; span = spans[index]) {
      const start = span.start > run.start ? span.start : run.start;
      const end = span.end < run.end ? span.end : run.end;
      if (start < end) yield { start, end, isZero: run.isZero };
      if (span.end > run.end) break;
      index++;
    }
  }
}
