// The commands that faults strike: what each sends, how long its request and nbdkit's reply are, and what may be in
// the export afterwards.

import type { NbdConnection } from '../../lib/index.js';
import { content } from '../support/golden.js';
import { GuardedBuffer } from './invariants.js';

const KIB = 1024;
/** Bytes in which a case can write, trim and zero as it likes. */
export const SLOT = 1024 * KIB;
/** What a slot holds before. */
export const OLD = 0x11;
/** What is written there. */
const NEW = 0x5a;
/** What the caller puts into its buffer as soon as it has it back; the export must never have it. */
const LATER = 0xee;

export interface Issued {
  readonly promise: Promise<unknown>;
  /** Called when it has settled, with whether it was well: what is wrong with what it gave. */
  readonly settled: (isWell: boolean) => string[];
  /** What is wrong with the caller's buffers at the end of the case. */
  readonly problems?: () => string[];
}

export interface FaultCommand {
  readonly name: string;
  /** Where a fault strikes inside the payload of its request, and of its reply, counted from the first byte. */
  readonly insideRequestPayload?: number;
  readonly insideReplyPayload?: number;
  /** How much of the slot it changes, and to what. */
  readonly changes?: { readonly length: number; readonly to: number };
  /** `slot` is the offset of the slot. */
  readonly issue: (connection: NbdConnection, slot: number, signal?: AbortSignal) => Issued;
}

const ok = (isRight: boolean, what: string): string[] => (isRight ? [] : [what]);

function reading(length: number, offset: number, read: (buffer: GuardedBuffer) => Promise<unknown>): Issued {
  const buffer = new GuardedBuffer(length, LATER);
  return {
    promise: read(buffer),
    settled: (isWell) => {
      const isRight = !isWell || buffer.bytes.equals(content(offset, length));
      buffer.seal();
      return ok(isRight, 'success with wrong data');
    },
    problems: () => buffer.problems(),
  };
}

function writing(length: number): FaultCommand {
  return {
    name: length < SLOT ? 'pwrite' : 'pwrite of 1 MiB',
    insideRequestPayload: 28 + length / 2,
    changes: { length, to: NEW },
    issue: (connection, slot, signal) => {
      const buffer = new GuardedBuffer(length, NEW);
      return {
        promise: connection.pwrite(buffer.bytes, slot, 0, signal),
        settled: () => {
          buffer.seal(LATER);
          return [];
        },
        problems: () => buffer.problems(),
      };
    },
  };
}

const simple = (
  name: string,
  issue: (connection: NbdConnection, slot: number, signal: AbortSignal | undefined) => Promise<unknown>,
  changes?: FaultCommand['changes'],
): FaultCommand => ({
  name,
  ...(changes === undefined ? {} : { changes }),
  issue: (connection, slot, signal) => ({ promise: issue(connection, slot, signal), settled: () => [] }),
});

export const COMMANDS: readonly FaultCommand[] = [
  {
    name: 'pread',
    insideReplyPayload: 28 + 1000,
    issue: (connection, _slot, signal) => {
      let data: Buffer | undefined;
      return {
        promise: connection.pread(4 * KIB, 512, 0, signal).then((bytes) => (data = bytes)),
        settled: (isWell) => ok(!isWell || data?.equals(content(512, 4 * KIB)) === true, 'success with wrong data'),
      };
    },
  },
  {
    // Large enough for the transport to read straight into the caller's buffer.
    name: 'preadInto',
    insideReplyPayload: 28 + 100_000,
    issue: (connection, _slot, signal) =>
      reading(256 * KIB, 4096, (buffer) => connection.preadInto(buffer.bytes, 4096, 0, signal)),
  },
  {
    name: 'preadStructured',
    insideReplyPayload: 28 + 30_000,
    issue: (connection, _slot, signal) =>
      reading(64 * KIB, 100, (buffer) =>
        connection.preadStructured(
          64 * KIB,
          100,
          (bytes, offset) => void bytes.copy(buffer.bytes, Number(offset) - 100),
          0,
          signal,
        ),
      ),
  },
  writing(4 * KIB),
  writing(SLOT),
  simple('trim', (connection, slot, signal) => connection.trim(64 * KIB, slot, 0, signal), { length: 64 * KIB, to: 0 }),
  simple('zero', (connection, slot, signal) => connection.zero(64 * KIB, slot, 0, signal), { length: 64 * KIB, to: 0 }),
  simple('flush', (connection, _slot, signal) => connection.flush(0, signal)),
  simple('cache', (connection, _slot, signal) => connection.cache(64 * KIB, 0, 0, signal)),
  {
    name: 'blockStatus',
    insideReplyPayload: 20 + 6,
    issue: (connection, _slot, signal) => {
      let isRight = false;
      return {
        promise: connection.blockStatus(64 * KIB, 0, 0, signal).then((map) => {
          const [first] = map.get('base:allocation') ?? [];
          isRight = first?.flags === 0 && first.length >= 64 * KIB;
        }),
        settled: (isWell) => ok(!isWell || isRight, 'success with a wrong map'),
      };
    },
  },
];

/** What is wrong with a slot, read back over a sound connection. */
export function slotProblems({ changes }: FaultCommand, bytes: Buffer, isWell: boolean): string[] {
  if (changes === undefined) return ok(bytes.equals(Buffer.alloc(SLOT, OLD)), 'the export has changed');
  const changed = bytes.subarray(0, changes.length);
  const rest = bytes.subarray(changes.length);
  const isNew = changed.equals(Buffer.alloc(changes.length, changes.to));
  const isOld = changed.equals(Buffer.alloc(changes.length, OLD));
  return [
    ...ok(isNew || !isWell, 'success, and the export does not have it'),
    ...ok(isNew || isOld, 'the export has neither the old bytes nor the new ones'),
    ...ok(rest.equals(Buffer.alloc(rest.length, OLD)), 'the export has changed elsewhere'),
  ];
}
