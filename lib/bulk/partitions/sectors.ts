// Reads sectors of an export, whatever block sizes its server has.

import { sourceOfConnections } from '../ends/endpoint.js';
import { Source } from '../ends/ends.js';
import { type ExportLike, multipleOf } from '../facts.js';
import { at } from '../failures.js';

/** Bytes of one command. */
const MOST = 1024 * 1024;

export class Sectors {
  readonly #source: Source;
  readonly #signal: AbortSignal | undefined;

  constructor(from: ExportLike, signal: AbortSignal | undefined) {
    this.#source = new Source(sourceOfConnections(from, 'partitions'), 'partitions: connection');
    this.#signal = signal;
  }

  /** Bytes of the export. */
  get size(): bigint {
    return this.#source.size;
  }

  /** Whole sectors of the export. */
  count(sectorSize: number): bigint {
    return this.size / BigInt(sectorSize);
  }

  /** The bytes from `offset` on; null if they are not all within the export. */
  async read(offset: bigint, length: number): Promise<Buffer | null> {
    if (offset < 0n || offset + BigInt(length) > this.size) return null;
    const bytes = Buffer.alloc(length);
    const { minimum, maximum } = this.#source.blocks;
    // A request that does not begin with a block is read with what is around it, which is up to two blocks.
    const most = multipleOf(minimum, Math.max(Math.min(maximum, MOST) - 2 * minimum, minimum));
    for (let done = 0; done < length;) {
      const start = offset + BigInt(done);
      const count = Math.min(length - done, most - Number(start % BigInt(minimum)));
      const piece = this.#source.read(bytes.subarray(done, done + count), start, 0, this.#signal);
      await at(piece, 'partitions', 'read', start, this.#signal);
      done += count;
    }
    return bytes;
  }
}
