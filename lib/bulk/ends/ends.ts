// The ends of whole-export work, checked: connections or an end of the caller's own, with the block sizes that it has.
// What is asked of them may begin and end anywhere; what reaches them is whole blocks.

import { Buffer } from '../../util/buffer.js';
import type { ByteCount } from '../../client/export.js';
import { NbdStrictError } from '../../errors.js';
import {
  aFunction,
  anObject,
  aString,
  byteCount,
  type OptionCheck,
  powerOfTwo,
  refuse,
  wholeNumberOrInfinity,
} from '../../util/option-checks.js';
import { fromBigInt } from '../../util/u64.js';
import { type CopyDestination, type CopySource, destinationOfConnections, sourceOfConnections } from './endpoint.js';
import { type Connections, isConnections, multipleOf } from '../facts.js';

/** Bytes; for a destination without an end Infinity. */
const MAX_SIZE = 2n ** 63n - 1n;

/** The fields that an end of the caller's own may have, and what each has to be. */
const OPTIONAL: Readonly<Record<string, OptionCheck>> = {
  minimumBlock: powerOfTwo(1),
  preferredBlock: wholeNumberOrInfinity(1),
  maximumRequest: wholeNumberOrInfinity(1),
  read: aFunction,
  zeroRuns: aFunction,
  zero: aFunction,
  flush: aFunction,
  changedRuns: aFunction,
  identity: aString,
  keep: aFunction,
};

function checkEnd(end: object, where: string, needs: readonly string[]): void {
  const fields = anObject(where, end) as Record<string, unknown>;
  for (const name of needs) aFunction(`${where}.${name}`, fields[name]);
  for (const [name, check] of Object.entries(OPTIONAL)) {
    if (fields[name] !== undefined) check(`${where}.${name}`, fields[name]);
  }
}

/** What source and destination have in common. */
class Blocks {
  readonly minimum: number;
  readonly preferred: number;
  /** The longest request, a multiple of the minimum. */
  readonly maximum: number;

  constructor(end: CopySource<ByteCount> | CopyDestination<ByteCount>) {
    this.minimum = end.minimumBlock ?? 1;
    this.preferred = Math.max(end.preferredBlock ?? 1, this.minimum);
    this.maximum = multipleOf(this.minimum, end.maximumRequest ?? Number.MAX_SAFE_INTEGER);
  }

  /** The whole blocks around a range, within `size`. */
  around(start: bigint, end: bigint, size: bigint): [start: bigint, end: bigint] {
    const minimum = BigInt(this.minimum);
    const above = end + minimum - 1n;
    const until = above - (above % minimum);
    return [start - (start % minimum), until < size ? until : size];
  }
}

/** A source to read from, at any place. */
export class Source {
  readonly size: bigint;
  readonly blocks: Blocks;
  readonly end: CopySource<ByteCount>;

  constructor(end: CopySource<ByteCount>, where: string) {
    checkEnd(end, where, ['read']);
    this.size = BigInt(byteCount()(`${where}.size`, end.size));
    this.blocks = new Blocks(end);
    this.end = end;
  }

  /** Fills the buffer. A range that is no whole blocks is read with what is around it. */
  async read(buffer: Buffer, offset: bigint, lane: number, signal?: AbortSignal): Promise<void> {
    const end = offset + BigInt(buffer.length);
    const [first, last] = this.blocks.around(offset, end, this.size);
    if (first === offset && last === end) {
      await this.end.read(buffer, fromBigInt(offset), lane, signal);
      return;
    }
    const blocks = Buffer.allocUnsafeSlow(Number(last - first));
    await this.end.read(blocks, fromBigInt(first), lane, signal);
    blocks.copy(buffer, 0, Number(offset - first));
  }
}

/**
 * By the owner of a destination, the last change of each block of which a part is being written: two parts of one block
 * come one after the other, whichever stream or copy they belong to.
 */
const CHANGES = new WeakMap<object, Map<bigint, Promise<void>>>();

/** A destination to write to, at any place: a block of which only a part is written is read first. */
export class Destination {
  /** Null where there is no end. */
  readonly size: bigint | null;
  readonly blocks: Blocks;
  readonly end: CopyDestination<ByteCount>;
  readonly #syscall: string;
  readonly #changes: Map<bigint, Promise<void>>;

  /** `owner` is what all that writes there has in common: the connection, or the end. */
  constructor(end: CopyDestination<ByteCount>, where: string, owner: object = end) {
    checkEnd(end, where, ['write']);
    this.#syscall = where.split(':', 1)[0] ?? where;
    this.size = end.size === Infinity ? null : BigInt(byteCount()(`${where}.size`, end.size));
    this.blocks = new Blocks(end);
    this.end = end;
    this.#changes = CHANGES.get(owner) ?? new Map<bigint, Promise<void>>();
    CHANGES.set(owner, this.#changes);
  }

  get canZero(): boolean {
    return this.end.zero !== undefined;
  }

  /**
   * Makes sure that a range can be written, before anything is: its first and last block are read where only a part of
   * them is going to be written. Resolves with whether that was needed.
   */
  async prepare(start: bigint, end: bigint, signal?: AbortSignal): Promise<boolean> {
    if (start === end) return false;
    const [first, last] = this.blocks.around(start, end, this.#size);
    const minimum = BigInt(this.blocks.minimum);
    for (const [isPart, block] of [
      [first !== start, first],
      [last !== end, end - (end % minimum)],
    ] as const) {
      if (isPart) await this.#readBlock(block, signal);
    }
    return first !== start || last !== end;
  }

  /** The whole blocks around a range. */
  around(start: bigint, end: bigint): [start: bigint, end: bigint] {
    return this.blocks.around(start, end, this.#size);
  }

  async write(buffer: Buffer, offset: bigint, lane: number, signal?: AbortSignal): Promise<void> {
    const parts = this.#parts(offset, offset + BigInt(buffer.length));
    if (parts === null) {
      await this.end.write(buffer, fromBigInt(offset), lane, signal);
      return;
    }
    await this.#eachPart(parts, async ([start, end, isWhole]) => {
      const bytes = buffer.subarray(Number(start - offset), Number(end - offset));
      if (isWhole) await this.end.write(bytes, fromBigInt(start), lane, signal);
      else await this.#change(start, bytes, signal);
    });
  }

  /** False where it cannot; nothing has been done then. */
  async zero(offset: bigint, length: bigint, allocate: boolean, lane: number, signal?: AbortSignal): Promise<boolean> {
    const zero = this.end.zero?.bind(this.end);
    if (zero === undefined) return false;
    const parts = this.#parts(offset, offset + length);
    if (parts === null) return zero(fromBigInt(offset), fromBigInt(length), allocate, lane, signal);
    const whole = parts.find(([, , isWhole]) => isWhole);
    if (whole !== undefined) {
      const [start, end] = whole;
      if (!(await zero(fromBigInt(start), fromBigInt(end - start), allocate, lane, signal))) return false;
    }
    const rest = parts.filter((part) => part !== whole);
    await this.#eachPart(rest, ([start, end]) => this.#change(start, Buffer.alloc(Number(end - start)), signal));
    return true;
  }

  get #size(): bigint {
    return this.size ?? MAX_SIZE;
  }

  /** Null for whole blocks; else the part of the first block, the whole ones, and the part of the last one. */
  #parts(start: bigint, end: bigint): Part[] | null {
    const [first, last] = this.blocks.around(start, end, this.#size);
    if (first === start && last === end) return null;
    const minimum = BigInt(this.blocks.minimum);
    const wholeStart = first === start ? start : first + minimum;
    const wholeEnd = last === end ? end : end - (end % minimum);
    if (wholeStart > wholeEnd) return [[start, end, false]];
    const parts: Part[] = [
      [start, wholeStart, false],
      [wholeStart, wholeEnd, true],
      [wholeEnd, end, false],
    ];
    return parts.filter(([from, to]) => from < to);
  }

  /** All have settled before it does. */
  async #eachPart(parts: readonly Part[], work: (part: Part) => Promise<void>): Promise<void> {
    for (const settled of await Promise.allSettled(parts.map(work))) {
      if (settled.status === 'rejected') throw settled.reason;
    }
  }

  /** Writes a part of one block. */
  async #change(offset: bigint, bytes: Buffer, signal: AbortSignal | undefined): Promise<void> {
    const block = offset - (offset % BigInt(this.blocks.minimum));
    const change = (async (previous): Promise<void> => {
      await previous;
      const whole = await this.#readBlock(block, signal);
      bytes.copy(whole, Number(offset - block));
      // One connection for both, whatever is promised of several.
      await this.end.write(whole, fromBigInt(block), 0, signal);
    })(this.#changes.get(block));
    const settled = change.catch(() => undefined);
    this.#changes.set(block, settled);
    try {
      await change;
    } finally {
      if (this.#changes.get(block) === settled) this.#changes.delete(block);
    }
  }

  async #readBlock(block: bigint, signal: AbortSignal | undefined): Promise<Buffer> {
    const rest = this.#size - block;
    const { minimum } = this.blocks;
    if (this.end.read === undefined) {
      throw new NbdStrictError(
        `${this.#syscall}: the destination takes whole blocks of ${minimum} bytes, and cannot be read to complete the ` +
          `one at offset ${block}`,
        { code: 'EINVAL', syscall: this.#syscall, offset: block },
      );
    }
    const bytes = Buffer.allocUnsafeSlow(rest < BigInt(minimum) ? Number(rest) : minimum);
    await this.end.read(bytes, fromBigInt(block), 0, signal);
    return bytes;
  }
}

type Part = readonly [start: bigint, end: bigint, isWhole: boolean];

/** Checks what was given as a source. `name` is the argument's. */
export function toSource(value: unknown, syscall: string, name: string): Source {
  const where = `${syscall}: ${name}`;
  return new Source(isConnections(value) ? sourceOfConnections(value, syscall) : anEnd(value, where), where);
}

/** Checks what was given as a destination. */
export function toDestination(value: unknown, syscall: string, name: string): Destination {
  const where = `${syscall}: ${name}`;
  if (!isConnections(value)) return new Destination(anEnd(value, where), where);
  const [owner] = Array.isArray(value) ? (value as object[]) : [value];
  return new Destination(destinationOfConnections(value, syscall), where, owner);
}

/** What whole-export functions read from: connections, or a source of your own. */
export type SourceLike = Connections | CopySource<ByteCount>;
/** What whole-export functions write to: connections, or a destination of your own. */
export type DestinationLike = Connections | CopyDestination<ByteCount>;

function anEnd(value: unknown, where: string): never {
  if (typeof value === 'object' && value !== null) return value as never;
  throw refuse(where, `must be a connection, an array of them, or an end of your own, not ${String(value)}`);
}
