// How far a copy has come, as it is stored: one line of JSON with a checksum. Invariant: what is read back is what was
// written, or an error that names what is wrong with it; a text that is not a checkpoint is never replaced by one.

import type { ByteCount } from '../../client/export.js';
import { NbdStrictError } from '../../errors.js';
import { nodeModule } from '../../util/platform.js';
import { IntervalSet, type Span } from '../intervals.js';

/**
 * Where a copy keeps how far it has come. The text is opaque, and small: a few kilobytes at most, unless a great many
 * ranges could not be read.
 */
export interface CheckpointStore {
  /** Bytes that are copied, at the most, between two checkpoints. Default 256 MiB. */
  readonly every?: ByteCount | undefined;
  /** What was saved last; null or undefined where there is nothing yet. */
  load(): Promise<string | null | undefined> | string | null | undefined;
  /** Replaces what was saved, at once or not at all. The destination has been flushed by then. */
  save(text: string): Promise<void> | void;
  /**
   * The copy is complete: forget what was saved. Missing: a last text is saved, which lets the next copy begin anew.
   */
  clear?(): Promise<void> | void;
}

/** What has to be the same when a copy goes on: each value as a message shows it. */
export interface CopyIdentity {
  readonly source: string;
  readonly sourceSize: string;
  readonly sourceBlocks: string;
  readonly destination: string;
  readonly destinationSize: string;
  readonly destinationBlocks: string;
  readonly bitmap: string;
  readonly ranges: string;
  readonly offset: string;
  readonly length: string;
  readonly destinationOffset: string;
}

export interface CopyState {
  readonly identity: CopyIdentity;
  /** Of the source. */
  readonly done: IntervalSet;
  readonly missing: IntervalSet;
}

const FORMAT = 'nbd-sdk copy checkpoint';
const VERSION = 1;
const DIGITS = /^\d{1,19}$/;

const NAMES: Readonly<Record<keyof CopyIdentity, string>> = {
  source: 'source',
  sourceSize: 'size of the source',
  sourceBlocks: 'block sizes of the source',
  destination: 'destination',
  destinationSize: 'size of the destination',
  destinationBlocks: 'block sizes of the destination',
  bitmap: 'bitmap',
  ranges: 'ranges',
  offset: 'offset',
  length: 'length',
  destinationOffset: 'offset in the destination',
};

function sha256(text: string): string {
  const crypto = nodeModule('node:crypto');
  if (crypto !== undefined) return crypto.createHash('sha256').update(text).digest('hex');
  // The web's own hashes are asynchronous.
  throw new NbdStrictError('copy: checkpoint: not supported here: it needs node:crypto', {
    code: 'ENOTSUP',
    syscall: 'copy',
  });
}

const pairs = (set: IntervalSet): string[][] => set.spans.map(({ start, end }) => [String(start), String(end)]);

/** The text of a state; null for a copy that is complete. */
export function encodeState(state: CopyState | null): string {
  const body = JSON.stringify(
    state === null
      ? { isComplete: true }
      : { identity: state.identity, done: pairs(state.done), missing: pairs(state.missing) },
  );
  return `${JSON.stringify({ format: FORMAT, version: VERSION, sha256: sha256(body), body })}\n`;
}

/**
 * The state that a text contains; null without one, or if the copy was complete.
 *
 * @throws NbdStrictError `EINVAL` for a text that is not a checkpoint of this version, or is damaged.
 */
export function decodeState(text: unknown): CopyState | null {
  if (text === null || text === undefined) return null;
  if (typeof text !== 'string') throw refused('load() must return a string, or null');
  if (text === '') throw refused('it is empty');
  if (!text.startsWith(`{"format":"${FORMAT}"`.slice(0, text.length)))
    throw refused('it is not a checkpoint of a copy');
  const outer = parsed(text) as { readonly version?: unknown; readonly sha256?: unknown; readonly body?: unknown };
  const { version, body } = outer;
  if (version !== VERSION)
    throw refused(`it has version ${String(version)}, and this release reads version ${VERSION}`);
  if (typeof body !== 'string' || outer.sha256 !== sha256(body)) throw refused('it is damaged: its checksum is wrong');
  const inner = parsed(body) as Partial<Record<string, unknown>> | null;
  if (inner?.['isComplete'] === true) return null;
  const identity = inner?.['identity'];
  const [done, missing] = [spansIn(inner?.['done']), spansIn(inner?.['missing'])];
  if (typeof identity !== 'object' || identity === null || done === null || missing === null) {
    throw refused('its contents are not those of a checkpoint');
  }
  return { identity: identity as CopyIdentity, done, missing };
}

/** The ranges of a list as it is stored; null for anything else, whatever its checksum. */
function spansIn(list: unknown): IntervalSet | null {
  if (!Array.isArray(list)) return null;
  const set = new IntervalSet();
  for (const pair of list as unknown[]) {
    const [start, end] = Array.isArray(pair) ? (pair as unknown[]) : [];
    if (typeof start !== 'string' || typeof end !== 'string' || !DIGITS.test(start) || !DIGITS.test(end)) return null;
    set.add(BigInt(start), BigInt(end));
  }
  return set;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw refused('it was cut short, or is damaged', cause);
  }
}

const refused = (why: string, cause?: unknown): NbdStrictError =>
  new NbdStrictError(
    `copy: checkpoint: cannot use what is stored there: ${why}; nothing was copied, and it was left as it is`,
    { code: 'EINVAL', syscall: 'copy', cause },
  );

/** @throws NbdStrictError `ESTALE` for the first value that differs, with both. */
export function checkIdentity(stored: CopyIdentity, now: CopyIdentity): void {
  for (const key of Object.keys(NAMES) as (keyof CopyIdentity)[]) {
    if (stored[key] === now[key]) continue;
    throw new NbdStrictError(
      `copy: checkpoint: it belongs to another copy: its ${NAMES[key]} is ${stored[key]}, and the one given is ` +
        `${now[key]}; use another checkpoint, or remove this one to copy everything again`,
      { code: 'ESTALE', syscall: 'copy' },
    );
  }
}

/** A list of ranges, however long, as a value that can be compared and shown. */
export function describeSpans(spans: readonly Span[]): string {
  const bytes = spans.reduce((sum, { start, end }) => sum + end - start, 0n);
  const digest = sha256(spans.map(({ start, end }) => `${start}-${end}`).join()).slice(0, 16);
  return `${spans.length} ${spans.length === 1 ? 'range' : 'ranges'}, ${bytes} bytes, sha256 ${digest}`;
}
