// Where requests of a copy begin and end: on blocks of the destination, as far as the source's blocks allow.

import type { Destination, Source } from '../ends/ends.js';
import { multipleOf } from '../facts.js';
import type { CopyOptions } from './options.js';

export interface Shape {
  /** Added to an offset in the source, it is that in the destination. */
  readonly shift: bigint;
  /** Added to an offset in the source, requests begin and end at multiples of their size. */
  readonly gridShift: bigint;
  /** Bytes of one request. */
  readonly requestSize: number;
  /** The longest request that both ends take. */
  readonly longestRequest: number;
  /** What zeroes are cut to in the source. */
  readonly align: number;
}

const DEFAULT_REQUEST = 256 * 1024;

export function shapeOf(from: Source, to: Destination, shift: bigint, { requestSize, checkpoint }: CopyOptions): Shape {
  const align = Math.max(from.blocks.minimum, to.blocks.minimum);
  const preferred = Math.max(from.blocks.preferred, to.blocks.preferred);
  const isShared = shift % BigInt(from.blocks.minimum) === 0n;
  // Blocks that lie across each other: what is read is rounded to those around it, which must not be too long.
  const readable = isShared ? from.blocks.maximum : from.blocks.maximum - 2 * from.blocks.minimum;
  const limit = Math.min(readable, to.blocks.maximum);
  const every = checkpoint?.every === undefined ? Infinity : Number(checkpoint.every);
  const wanted = Math.min(Math.max(requestSize ?? DEFAULT_REQUEST, preferred), every);
  return {
    shift,
    gridShift: isShared || to.blocks.minimum > 1 ? shift : 0n,
    requestSize: multipleOf(align, Math.min(wanted, limit)),
    longestRequest: multipleOf(align, Math.min(limit, every)),
    align,
  };
}
