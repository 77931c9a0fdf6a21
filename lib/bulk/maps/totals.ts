// How many bytes of a range have which status, in each of several metadata contexts.

import { NbdError } from '../../errors.js';
import { quoted } from '../../util/visible.js';
import type { ExportLike } from '../facts.js';
import { checkContextsOptions, type ContextsOptions } from './contexts.js';
import { mergedOf } from './merged.js';

/** What {@link totals} takes. */
export type TotalsOptions = ContextsOptions;

/** For each context, in the order given, the bytes of each value of its flags, in ascending order. */
export type MapTotals = Map<string, Map<bigint, bigint>>;

/** Different flags of one context. Totals of more of them would be of no use. */
const MOST_FLAGS = 65_536;

/**
 * Adds up the extents of an export, or of a range of it: how many bytes have which flags, in each of several metadata
 * contexts. One pass of block status commands serves all contexts. Memory does not depend on the number of extents.
 *
 * @returns A map from context to a map from flags to bytes. The bytes of one context add up to the range's length.
 * @throws (rejects) As {@link mergedExtents}; `EOVERFLOW` when a context has more than 65,536 different flags.
 *
 * @example
 * const all = await totals(connection, { contexts: ['base:allocation'] });
 * all.get('base:allocation')?.get(0n); // bytes of data
 */
export async function totals(from: ExportLike, options: TotalsOptions): Promise<MapTotals> {
  const checked = checkContextsOptions('totals', options);
  const found = checked.contexts.map(() => new Map<bigint, bigint>());
  for await (const { offset, length, flags } of mergedOf(from, checked, 'totals')) {
    for (const [index, bytes] of found.entries()) {
      const value = flags[index] as bigint;
      bytes.set(value, (bytes.get(value) ?? 0n) + length);
      if (bytes.size > MOST_FLAGS) throw tooMany(checked.contexts[index] ?? '', offset);
    }
  }
  return new Map(checked.contexts.map((context, index) => [context, ascending(found[index])]));
}

const ascending = (bytes: ReadonlyMap<bigint, bigint> = new Map()): Map<bigint, bigint> =>
  new Map([...bytes].sort(([a], [b]) => (a < b ? -1 : 1)));

const tooMany = (context: string, offset: bigint): NbdError =>
  new NbdError(`totals: up to offset ${offset}, ${quoted(context)} has more than ${MOST_FLAGS} different flags`, {
    code: 'EOVERFLOW',
    syscall: 'totals',
    offset,
  });
