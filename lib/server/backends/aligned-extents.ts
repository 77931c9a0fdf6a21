// Aligns a backend's extents to whole blocks, as the protocol requires for block status: a hole in a file may be
// smaller than the minimum block size.

import { add, type U64 } from '../../util/u64.js';
import type { BackendExtent, BackendExtents } from './backend.js';
import { subtract } from './extent-map.js';

/** Returns runs of whole blocks. A block that several runs share has only the flags that are common to all of them. */
export function alignedExtents(extents: BackendExtents, minimum: number): BackendExtents {
  return 'then' in extents ? extents.then((known) => aligned(known, minimum)) : aligned(extents, minimum);
}

function* aligned(extents: Iterable<BackendExtent>, minimum: number): Generator<BackendExtent, void> {
  // Length and flags of the incomplete block.
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
  // An incomplete block at the end is left to the client's next query, unless there is nothing else to return.
  if (partial > 0 && !yielded) yield { length: minimum, flags: 0 };
}
