// An export that reads a Blob, such as the file that a user has chosen in a page.

import type { Buffer } from '../../util/buffer.js';
import { refuse, shown } from '../../util/option-checks.js';
import type { NbdBackend } from './backend.js';

/** A Blob or a File, as far as it is used. */
export interface BlobLike {
  /** Size in bytes. */
  readonly size: number;
  /** The part from `start` to before `end`. */
  slice(start: number, end: number): BlobLike;
  /** Reads all of it. */
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** A read-only export of the content of a Blob or File. Nothing of it is read before a client asks for it. */
export class BlobBackend implements NbdBackend {
  readonly size: number;
  readonly readOnly = true;
  readonly #blob: BlobLike;

  /** @throws NbdStrictError `EINVAL` for anything but a Blob. */
  constructor(blob: BlobLike) {
    const given = blob as Partial<BlobLike> | null | undefined;
    if (typeof given?.slice !== 'function' || typeof given.size !== 'number') {
      throw refuse('BlobBackend', `must be a Blob, not ${shown(blob)}`);
    }
    this.#blob = blob;
    this.size = given.size;
  }

  /** Rejects, and the client receives `EIO`, when the file behind the Blob has changed or is gone. */
  async read(buffer: Buffer, offset: number): Promise<void> {
    const { length } = buffer;
    const bytes = new Uint8Array(await this.#blob.slice(offset, offset + length).arrayBuffer());
    if (bytes.length !== length) throw new Error(`the file has ${bytes.length} of ${length} bytes at ${offset}`);
    buffer.set(bytes);
  }
}
