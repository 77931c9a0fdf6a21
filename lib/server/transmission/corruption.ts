// A backend that changes the data of one request, on the way to the client or to the backend behind it.

import { Buffer } from '../../util/buffer.js';
import { hashOf } from '../seeded.js';
import type { NbdBackend } from '../backends/backend.js';

/** The backend, with `bits` bits of what is read or written inverted; which ones follows from `hash`. */
export function corrupted(backend: NbdBackend, bits: number, hash: number): NbdBackend {
  return {
    size: backend.size,
    fua: backend.fua === true,
    // Without extents() a read is one piece, so that its holes can be hit too.
    read: (buffer, offset) => {
      const pending = backend.read(buffer, offset);
      if (pending === undefined) {
        invert(buffer, bits, hash);
        return undefined;
      }
      return Promise.resolve(pending).then(() => {
        invert(buffer, bits, hash);
      });
    },
    write: (data, offset, options) => {
      // The client's data may be a part of what has arrived of other requests.
      const copy = Buffer.from(data);
      invert(copy, bits, hash);
      return backend.write?.(copy, offset, options);
    },
    flush: () => backend.flush?.(),
  };
}

/** Inverts that many different bits, or all. */
function invert(bytes: Buffer, bits: number, hash: number): void {
  const total = bytes.length * 8;
  const chosen = new Set<number>();
  for (let number = 0; chosen.size < Math.min(bits, total); number += 1) {
    // After many hits, the next free one: a search by chance would not end for all bits of a short read.
    let bit = hashOf(hash, number) % total;
    while (chosen.has(bit)) bit = (bit + 1) % total;
    chosen.add(bit);
    bytes[bit >>> 3] = (bytes[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
  }
}
