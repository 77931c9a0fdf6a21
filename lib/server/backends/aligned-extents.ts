// Extents of a backend in whole blocks, which is what the protocol demands of block status: a hole of a file system may
// be smaller than the minimum block size.

import { add, type U64 } from '../../util/u64.js';
import type { BackendExtent, BackendExtents } from './backend.js';
import { subtract } from './extent-map.js';

/** Runs of whole blocks: one that several runs share has only the flags that all of them have. */
export function alignedExtents(extents: BackendExtents, minimum: number): BackendExtents {
  return 'then' in extents ? extents.then((known) => aligned(known, minimum)) : aligned(extents, minimum);
}

function* aligned(extents: Iterable<BackendExtent>, minimum: number): Generator<BackendExtent, void> {
  // Of the block that is not yet whole.
  let partial = 0;
  let flags = 0;
  let yielded = false;
  for (const extent of extents) {
    if (extent.length <= 0) continue;
    let length: U64 = add(extent.length, 0);
    const own = Number(extent.flags);
    if (partial > 0) {
      flags &= own;
      const missing = minimum - partial;
      if (length < missing) {
        partial += Number(length);
        continue;
      }
      yield { length: minimum, flags };
      yielded = true;
      length = subtract(length, missing);
    }
    const rest = Number(BigInt(length) % BigInt(minimum));
    const whole = subtract(length, rest);
    if (whole > 0) {
      yield { length: whole, flags: own };
      yielded = true;
    }
    partial = rest;
    flags = own;
  }
  // What the backend left open at the end is asked for again, unless that would be no answer at all.
  if (partial > 0 && !yielded) yield { length: minimum, flags: 0 };
}
