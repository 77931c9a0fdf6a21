// Writes that a server had acknowledged, and that a lost connection has put at risk: what a pool's flush rejects with.

import type { ByteRange } from '../../errors.js';
import type { Span } from '../intervals.js';

/** A range of the destination. */
export type Loss = Span;

/** The ranges that an NbdUnflushedError names; null for any other error. */
export function lostRanges(error: unknown): readonly Loss[] | null {
  if (!(error instanceof Error) || error.name !== 'NbdUnflushedError') return null;
  const { ranges } = error as { readonly ranges?: unknown };
  if (!Array.isArray(ranges) || ranges.length === 0) return null;
  return (ranges as readonly ByteRange[]).map(({ offset, length }) => ({
    start: offset,
    end: offset + length,
  }));
}
