// Copying an export, or what is chosen of it: holes are neither read nor sent, runs of zeroes that are read become zero
// commands, and as much is in flight as pays. Invariant: it resolves only when every byte of what was chosen is at the
// destination, and was flushed there where that was possible and not declined.

import { NbdStrictError } from '../errors.js';
import { checkOptions, refuse } from '../util/option-checks.js';
import { checkIdentity, type CopyIdentity, decodeState, describeSpans } from './copy/checkpoint.js';
import { COPY_OPTIONS, type CopyOptions, type CopyResult } from './copy/options.js';
import { checkFlush, CopyRun } from './copy/run.js';
import { Selection } from './copy/selection.js';
import { type Shape, shapeOf } from './copy/shape.js';
import {
  type Destination,
  type DestinationLike,
  type Source,
  type SourceLike,
  toDestination,
  toSource,
} from './ends/ends.js';
import { abortable, at } from './failures.js';
import { pick } from './options.js';

export type { CopyOptions, CopyResult } from './copy/options.js';

/**
 * Copies a source, or a part of it, to a destination, which may be larger. Either is a connection, an array of
 * connections to one export, or an end of your own. Where the destination's minimum block is larger than what the ends
 * of a range leave, the block there is read, changed and written.
 *
 * @throws NbdStrictError `EINVAL` for bad options and ends, for connections of an array that differ or have no
 *   multi-conn, for a destination that is the source itself, for `flush` and `checkpoint` where the destination cannot
 *   flush, where the end of a range is not a whole block of a destination that cannot be read, and for a checkpoint
 *   that is damaged or not one; `ESTALE` for a checkpoint of another copy; `ENOSPC` when the destination is too small,
 *   `EPERM` when it is read-only: all before anything is copied. What the ends reject with, of its own class and with
 *   its own fields, and a message that names the place; `ENOTCONN` for a connection that was lost. Requests in flight
 *   have settled by then, and the destination holds some of the source. The signal's reason.
 */
export async function copy(
  source: SourceLike,
  destination: DestinationLike,
  options: CopyOptions = {},
): Promise<CopyResult> {
  const checked = checkOptions<CopyOptions>('copy', options, COPY_OPTIONS);
  const from = toSource(source, 'copy', 'source');
  const to = toDestination(destination, 'copy', 'destination');
  const { signal, checkpoint } = checked;
  const offset = BigInt(checked.offset ?? 0);
  const shape = shapeOf(from, to, BigInt(checked.destinationOffset ?? offset) - offset, checked);
  const runOptions = {
    ...pick(checked, 'extents', 'step', 'questions', 'onStatusError', 'signal'),
    align: shape.align,
    syscall: 'copy',
  };
  const selection = new Selection(from, checked, runOptions);
  checkRoom(from, to, selection, shape);
  checkApart(source, destination, from, to, shape);
  checkFlush(to, checked);
  checkHash(checked);
  signal?.throwIfAborted();

  const identity = checkpoint === undefined ? null : identityOf(from, to, selection, shape);
  const state = checkpoint === undefined ? null : decodeState(await stored(checkpoint.load(), signal));
  if (state !== null && identity !== null) {
    checkIdentity(state.identity, identity);
    await at(to.end.keep?.(), 'copy', 'going on', null, signal);
  }
  await selection.measure();
  const edges = selection.spans ?? [];
  await abortable(at(prepare(to, edges, shape.shift, signal), 'copy', 'read of the destination', null, signal), signal);
  const run = new CopyRun({ from, to, options: checked, selection, shape, runOptions, identity, state });
  await run.copyAll(to.end.flush !== undefined && (checked.flush !== false || checkpoint !== undefined));
  return run.result;
}

async function stored<Value>(loading: Promise<Value> | Value, signal: AbortSignal | undefined): Promise<Value> {
  return abortable(at(loading, 'copy', 'load of the checkpoint', null, signal), signal);
}

/** The first range that needs it shows whether blocks of the destination can be completed. */
async function prepare(
  to: Destination,
  spans: readonly { readonly start: bigint; readonly end: bigint }[],
  shift: bigint,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const { start, end } of spans) if (await to.prepare(start + shift, end + shift, signal)) return;
}

function checkRoom(from: Source, to: Destination, { start, end, spans }: Selection, { shift }: Shape): void {
  const last = spans === null ? end : (spans.at(-1)?.end ?? start);
  const needed = last + shift;
  if (to.size === null || needed <= to.size) return;
  const what = needed === from.size && shift === 0n ? `the source's ${from.size}` : `the ${needed} that end there`;
  throw new NbdStrictError(`copy: the destination has ${to.size} bytes, fewer than ${what}`, {
    code: 'ENOSPC',
    syscall: 'copy',
  });
}

/** A source that is written to while it is read is nothing that can be copied. */
function checkApart(source: unknown, destination: unknown, from: Source, to: Destination, { shift }: Shape): void {
  const targets = new Set(Array.isArray(destination) ? (destination as unknown[]) : [destination]);
  const isSame = (Array.isArray(source) ? (source as unknown[]) : [source]).some((each) => targets.has(each));
  const { identity } = from.end;
  // Other connections to one export: reading and writing back what is there is harmless, and how one tests a server.
  const isMoved = shift !== 0n && identity !== undefined && identity === to.end.identity;
  if (isSame || isMoved) throw refuse('copy', 'the source and the destination are the same');
}

function checkHash({ hash, ranges, bitmap, checkpoint }: CopyOptions): void {
  if (hash === undefined) return;
  const other = Object.entries({ ranges, bitmap, checkpoint }).find(([, value]) => value !== undefined);
  if (other !== undefined) throw refuse('copy: hash', `needs all bytes, and cannot be used with ${other[0]}`);
}

function identityOf(from: Source, to: Destination, selection: Selection, shape: Shape): CopyIdentity {
  const blocks = ({ minimum, maximum }: Source['blocks']): string => `${minimum} to ${maximum} bytes`;
  return {
    source: from.end.identity ?? 'not known',
    sourceSize: `${from.size} bytes`,
    sourceBlocks: blocks(from.blocks),
    destination: to.end.identity ?? 'not known',
    destinationSize: to.size === null ? 'without an end' : `${to.size} bytes`,
    destinationBlocks: blocks(to.blocks),
    bitmap: selection.bitmap ?? 'none',
    ranges: selection.spans === null ? 'those of the bitmap' : describeSpans(selection.spans),
    offset: String(selection.start),
    length: String(selection.end - selection.start),
    destinationOffset: String(selection.start + shape.shift),
  };
}
