// What failed in a fleet, for people: by reason, the most frequent first, so that a thousand failures with one cause take
// a few lines.

import type { FleetFailure } from '../../fleet/index.js';
import { makeMask } from '../../fleet/mask.js';
import { visible } from '../../util/visible.js';
import { counted, roundSize } from '../output/text.js';

/** Failures of one reason that are listed. */
const MOST_SHOWN = 5;

/** `id` of the fleet is needed where names are to be masked that the library has not masked yet. */
export function failureLines(
  failures: readonly FleetFailure[],
  { id = '', isMasked = false, most = MOST_SHOWN }: { id?: string; isMasked?: boolean; most?: number } = {},
): string[] {
  const mask = makeMask(isMasked, id);
  const byReason = new Map<string, FleetFailure[]>();
  for (const failure of failures) {
    const key = `${failure.code} (${failure.name})`;
    const same = byReason.get(key);
    if (same === undefined) byReason.set(key, [failure]);
    else same.push(failure);
  }
  const groups = [...byReason].sort(([, a], [, b]) => b.length - a.length);
  return groups.flatMap(([key, same]) => [
    `${key}: ${counted(new Set(same.map(({ id }) => id)).size, 'export')}, ${counted(same.length, 'failure')}`,
    ...same.slice(0, most).map((failure) => `  ${lineOf(failure, mask)}`),
    ...(same.length > most ? [`  … and ${same.length - most} more`] : []),
  ]);
}

function lineOf(failure: FleetFailure, mask: ReturnType<typeof makeMask>): string {
  const { id, source, destination, start, length, attempts, phase } = failure;
  const ends = destination === null ? mask.name(source) : `${mask.name(source)} -> ${mask.name(destination)}`;
  const range = start === undefined || length === undefined ? '' : `, ${roundSize(length)} at ${start}`;
  const tried = attempts === undefined || attempts === 1 ? '' : `, tried ${attempts} times`;
  const when = phase === 'verify' ? ', verifying' : '';
  return visible(`${id} ${ends}${range}${when}${tried}: ${mask.reason(failure).message}`);
}
