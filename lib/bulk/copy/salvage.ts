// Reading what can be read of a source that fails in places.

import type { Buffer } from '../../util/buffer.js';
import { NbdCommandError, NbdError } from '../../errors.js';
import type { Source } from '../ends/ends.js';
import type { IntervalSet } from '../intervals.js';

/** A disk's sector: what cannot be read is not looked for in smaller pieces, though a server may take any. */
const SECTOR = 512;
/** Codes of a server that shuts down, is short of memory, or refuses the client: they are not about the data. */
const NOT_OF_THE_DATA = new Set(['ESHUTDOWN', 'ENOMEM', 'EPERM', 'EACCES', 'ENOTSUP']);
/** What systems report of a place on a disk or in a file. */
const OF_THE_DATA = new Set(['EIO', 'ENODATA', 'EBADMSG', 'EILSEQ', 'ENXIO', 'EREMOTEIO', 'EUCLEAN']);

/** Whether an error means that these bytes cannot be read, while the rest of the source may be readable. */
function isReadError(error: unknown): boolean {
  if (error instanceof NbdCommandError) return !NOT_OF_THE_DATA.has(error.code);
  // Ends of the caller's own, and files.
  const code = (error as { code?: unknown } | null)?.code;
  const isPlain = !(error instanceof NbdError) || error.name === 'NbdError';
  return isPlain && typeof code === 'string' && OF_THE_DATA.has(code);
}

/**
 * Fills the buffer from the source. What fails is read again in halves, down to the source's minimum block; what then
 * still fails is zero in the buffer, and is added to `missing`.
 */
export async function readWhatCanBe(
  source: Source,
  buffer: Buffer,
  offset: bigint,
  lane: number,
  missing: IntervalSet,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    await source.read(buffer, offset, lane, signal);
    return;
  } catch (error) {
    if (signal?.aborted === true || !isReadError(error)) throw error;
  }
  const block = BigInt(Math.max(source.blocks.minimum, SECTOR));
  const end = offset + BigInt(buffer.length);
  const middle = offset + BigInt(buffer.length) / 2n;
  const below = middle - (middle % block);
  const cut = below > offset ? below : below + block;
  if (cut >= end) {
    buffer.fill(0);
    missing.add(offset, end);
    return;
  }
  const first = Number(cut - offset);
  await readWhatCanBe(source, buffer.subarray(0, first), offset, lane, missing, signal);
  await readWhatCanBe(source, buffer.subarray(first), cut, lane, missing, signal);
}
