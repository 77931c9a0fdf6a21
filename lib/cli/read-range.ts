// Reads any range of bytes, regardless of the server's block size.

import { extents, NbdCommandError, type NbdConnection, STATE_ZERO } from '../index.js';
import { factsOf, multipleOf } from '../bulk/facts.js';
import { hasAllocation } from '../bulk/prefetch.js';
import { blocksAround, type Range } from './range.js';

/** A piece of the range. */
export interface Piece {
  /** Null if all of the piece is zero. */
  readonly bytes: Buffer | null;
  readonly length: bigint;
}

const READ_SIZE = 1024n * 1024n;

/** Yields the range in order. Holes are not read. Requests cover the whole blocks around the range. */
export async function* readRange(connection: NbdConnection, range: Range, signal: AbortSignal): AsyncGenerator<Piece> {
  if (range.length === 0n) return;
  const around = blocksAround(connection, range);
  if (!hasAllocation(connection)) {
    yield* cut(readAll(connection, around, signal), around.offset, range);
    return;
  }
  yield* cut(mapped(connection, around, signal), around.offset, range);
}

/** Removes what lies outside of the range. `first` is the offset of the first piece. */
async function* cut(all: AsyncIterable<Piece>, first: bigint, range: Range): AsyncGenerator<Piece> {
  const rangeEnd = range.offset + range.length;
  let offset = first;
  for await (const { bytes, length } of all) {
    const start = offset < range.offset ? range.offset : offset;
    const pieceEnd = offset + length;
    const end = pieceEnd < rangeEnd ? pieceEnd : rangeEnd;
    if (end > start) {
      yield { bytes: bytes?.subarray(Number(start - offset), Number(end - offset)) ?? null, length: end - start };
    }
    offset = pieceEnd;
  }
}

async function* mapped(connection: NbdConnection, range: Range, signal: AbortSignal): AsyncGenerator<Piece> {
  let at = range.offset;
  try {
    for await (const { offset, length, flags } of extents(connection, { ...range, signal })) {
      if ((flags & BigInt(STATE_ZERO)) !== 0n) yield { bytes: null, length };
      else yield* readAll(connection, { offset, length }, signal);
      at = offset + length;
    }
    return;
  } catch (error) {
    // The map only saves reads: if the server refuses block status, everything is read.
    if (!(error instanceof NbdCommandError) || error.syscall !== 'blockStatus64') throw error;
  }
  yield* readAll(connection, { offset: at, length: range.offset + range.length - at }, signal);
}

async function* readAll(
  connection: NbdConnection,
  { offset, length }: Range,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const { minimum, maximum } = factsOf(connection, 'read');
  const step = BigInt(multipleOf(minimum, Math.min(Number(READ_SIZE), maximum)));
  for (let done = 0n; done < length; done += step) {
    const count = length - done < step ? length - done : step;
    yield { bytes: await connection.pread(Number(count), offset + done, 0, signal), length: count };
  }
}
