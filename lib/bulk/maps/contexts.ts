// What the functions over metadata contexts have in common: their options, and that the contexts were negotiated.

import type { ByteCount } from '../../client/export.js';
import { NbdStrictError } from '../../errors.js';
import { anArrayOf, aString, checkOptions, type OptionCheck, refuse, shown } from '../../util/option-checks.js';
import { quoted } from '../../util/visible.js';
import { type ExportLike, type Facts, factsOf, hasContext, rangeOf } from '../facts.js';
import { RANGE_CHECKS, SIGNAL_CHECKS, STATUS_CHECKS } from '../options.js';
import type { Question } from './look-ahead.js';

/** What every function that walks a map takes. */
export interface MapOptions {
  /** First byte. Default 0. */
  offset?: ByteCount | undefined;
  /** Number of bytes. Default: up to the end of the export. */
  length?: ByteCount | undefined;
  /** The most bytes that one block status command asks about. Default: as many as it can. */
  step?: ByteCount | undefined;
  /** The most block status commands in flight. Default 8. */
  questions?: number | undefined;
  /** Aborts the work, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The options of a function over several contexts. */
export interface ContextsOptions extends MapOptions {
  /** Metadata contexts that were negotiated (`metaContexts`): one or more, each once. */
  contexts: readonly string[];
}

export const MAP_CHECKS = {
  ...RANGE_CHECKS,
  ...SIGNAL_CHECKS,
  step: STATUS_CHECKS.step,
  questions: STATUS_CHECKS.questions,
};

const someContexts: OptionCheck<readonly string[]> = (where, value) => {
  const names = anArrayOf(aString)(where, value);
  if (names.length === 0) throw refuse(where, 'must name at least one metadata context');
  const again = names.find((name, index) => names.indexOf(name) !== index);
  if (again !== undefined) throw refuse(where, `must name each context once; ${shown(again)} is there twice`);
  return names;
};

const CONTEXTS_OPTIONS = { ...MAP_CHECKS, contexts: someContexts };

/** @throws NbdStrictError `EINVAL`. */
export function checkContextsOptions(syscall: string, options: unknown): ContextsOptions {
  const { contexts, ...rest } = checkOptions<ContextsOptions>(syscall, options, CONTEXTS_OPTIONS);
  if (contexts === undefined) throw refuse(syscall, 'contexts is missing: the metadata contexts to report');
  return { ...rest, contexts };
}

/** The question about a range, for checked options. Throws where it cannot be asked. */
export function questionOf(
  connection: ExportLike,
  options: MapOptions,
  contexts: readonly string[],
  syscall: string,
): { readonly facts: Facts; readonly question: Question } {
  const facts = factsOf(connection, syscall);
  const [start, end] = rangeOf(facts.size, options, syscall);
  for (const context of contexts) {
    if (!hasContext(connection, context)) throw notNegotiated(context, syscall);
  }
  const { step, questions, signal } = options;
  signal?.throwIfAborted();
  return { facts, question: { start, end, contexts, step, questions, signal, syscall } };
}

export const notNegotiated = (context: string, syscall: string): NbdStrictError =>
  new NbdStrictError(
    `${syscall}: the server has not agreed to the metadata context ${quoted(context)} (see metaContexts)`,
    { code: 'ENOTSUP', syscall },
  );
