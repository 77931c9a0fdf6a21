// Copy on write: reads from another backend, and keeps what is written in memory. Invariant: the base changes in
// commit() only, and what commit() has not written completely is still in the overlay.

import { Buffer } from '../../util/buffer.js';
import { checkOptions, type OptionTable, refuse } from '../../util/option-checks.js';
import { add, type U64 } from '../../util/u64.js';
import { aBlockSize, checkSize } from '../block-size.js';
import type { BackendExtent, BackendExtents, BlockSize, NbdBackend, ZeroOptions } from './backend.js';
import { ExtentMap, subtract } from './extent-map.js';
import { MemoryBackend } from './memory.js';

/** Bytes that commit() writes at a time. */
const PIECE = 1 << 20;

/** Options of an {@link OverlayBackend}. */
export interface OverlayBackendOptions {
  /** Block sizes to advertise. Default those of the base. */
  readonly blockSize?: BlockSize | undefined;
}

const OPTIONS: OptionTable<OverlayBackendOptions> = { blockSize: aBlockSize };

/** What the overlay contains: the bytes, and which they are. */
interface Layer {
  readonly bytes: MemoryBackend;
  readonly written: ExtentMap;
}

/**
 * An export that reads as `base` until it is written to, and keeps what is written in memory, so that a test may change
 * a file or a read-only backend. commit() writes the changes to the base, reset() drops them. Serve `changes` as a
 * metadata context and it is a dirty bitmap. Suitable for thousands of separate ranges, not for millions.
 *
 * @example
 * const overlay = new OverlayBackend(await FileBackend.open('golden.img', { readOnly: true }));
 * new NbdServer({ exports: { '': { backend: overlay, metaContexts: { 'qemu:dirty-bitmap:b0': overlay.changes } } } });
 */
export class OverlayBackend implements NbdBackend {
  /** Size in bytes: that of the base. */
  readonly size: number | bigint;
  /** Block sizes to advertise: those of the base, or of the options. */
  readonly blockSize?: BlockSize;
  /** FUA is supported: the content lives as long as the process. */
  readonly fua = true;
  /** The `fast` option of zero() is supported. */
  readonly fastZero = true;
  /** No reference to written data is kept. */
  readonly copiesData = true;
  /** As the base. */
  readonly rotational: boolean;
  /** As the base. */
  readonly sparseReads: boolean;
  /** The changed ranges, with flags 1: a metadata context, to be served as a dirty bitmap. */
  readonly changes: {
    /** The extents of a range. */
    extents(offset: number | bigint, count: number | bigint): Iterable<BackendExtent>;
  };
  readonly #base: NbdBackend;
  #layer: Layer;
  /** Settles when commit() has ended; null while none runs. */
  #committing: Promise<void> | null = null;

  /**
   * Creates an overlay without changes.
   *
   * @throws NbdStrictError `EINVAL` for a base that is not a backend, or for a bad option.
   */
  constructor(base: NbdBackend, options: OverlayBackendOptions = {}) {
    if (typeof (base as NbdBackend | null | undefined)?.read !== 'function') {
      throw refuse('OverlayBackend: base', 'must be a backend');
    }
    const blockSize = checkOptions('OverlayBackend', options, OPTIONS).blockSize ?? base.blockSize;
    this.size = checkSize('OverlayBackend: size of the base', base.size);
    if (blockSize !== undefined) this.blockSize = blockSize;
    this.rotational = base.rotational === true;
    this.sparseReads = base.sparseReads !== false && base.extents !== undefined;
    this.#base = base;
    this.#layer = emptyLayer(this.size);
    this.changes = { extents: (offset, count) => this.#layer.written.extents(offset, count) };
  }

  /** Bytes of memory that the changes take. */
  get allocated(): number {
    return this.#layer.bytes.allocated;
  }

  /** Reads changed bytes from memory, and all others from the base. */
  read(buffer: Buffer, offset: U64): Promise<void> | void {
    const { bytes, written } = this.#layer;
    const reads: Promise<void>[] = [];
    let at = 0;
    for (const { length, flags } of written.extents(offset, buffer.length)) {
      const part = buffer.subarray(at, at + Number(length));
      const from = add(offset, at);
      at += part.length;
      if (flags !== 0) bytes.read(part, from);
      else {
        const pending = this.#base.read(part, from);
        if (pending !== undefined) reads.push(pending);
      }
    }
    return reads.length === 0 ? undefined : Promise.all(reads).then(() => undefined);
  }

  /** Keeps the data. */
  write(data: Buffer, offset: U64): Promise<void> | void {
    return this.#change(({ bytes, written }) => {
      bytes.write(data, offset);
      written.set(offset, data.length, 1);
    });
  }

  /** Keeps that the range is zero. */
  zero(offset: U64, count: U64, options?: ZeroOptions): Promise<void> | void {
    return this.#change(({ bytes, written }) => {
      bytes.zero(offset, count, options);
      written.set(offset, count, 1);
    });
  }

  /** As zero(): the range reads as zeroes. */
  trim(offset: U64, count: U64): Promise<void> | void {
    return this.zero(offset, count);
  }

  /** Does nothing: changes live as long as the process, and commit() flushes the base. */
  flush(): void {
    // No write is deferred.
  }

  /** Has the base prefetch the range, if it can. */
  cache(offset: U64, count: U64): Promise<void> | void {
    return this.#base.cache?.(offset, count);
  }

  /** The extents of changed ranges from memory, and of all others from the base. */
  extents(offset: U64, count: U64): BackendExtents {
    const { bytes, written } = this.#layer;
    const runs = [...located(written, offset, count)];
    const known = runs.map(({ at, length, isChanged }): BackendExtents => {
      if (isChanged) return bytes.extents(at, length);
      return this.#base.extents?.(at, length) ?? [{ length, flags: 0 }];
    });
    const join = (all: readonly Iterable<BackendExtent>[]): BackendExtent[] => {
      const joined: BackendExtent[] = [];
      for (const [index, { length }] of runs.entries()) {
        let left: U64 = length;
        for (const extent of all[index] ?? []) {
          if (left <= 0) break;
          const own = extent.length < left ? extent.length : left;
          joined.push({ length: own, flags: extent.flags });
          left = subtract(left, add(own, 0));
        }
        // The base may reply for less than it was asked: what follows would be at the wrong place.
        if (left > 0) break;
      }
      return joined;
    };
    return known.some((each) => 'then' in each)
      ? Promise.all(known.map((each) => Promise.resolve(each))).then(join)
      : join(known as BackendExtent[][]);
  }

  /**
   * Writes all changes to the base, flushes it, and then drops them from memory. Writes that arrive meanwhile wait. If
   * the base fails, rejects with its error, and all changes are kept. Rejects with `EPERM` if the base is read-only.
   */
  async commit(): Promise<void> {
    while (this.#committing !== null) await this.#committing;
    const base = this.#base;
    if (base.write === undefined || base.readOnly === true) {
      throw refuse('OverlayBackend.commit', 'the base is read-only', 'EPERM');
    }
    const work = this.#commit(base as NbdBackend & Required<Pick<NbdBackend, 'write'>>);
    const ended = (): void => {
      this.#committing = null;
    };
    this.#committing = work.then(ended, ended);
    await work;
  }

  /** Drops all changes: the export reads as the base again. Waits for a commit() that runs. */
  async reset(): Promise<void> {
    while (this.#committing !== null) await this.#committing;
    this.#layer = emptyLayer(this.size);
  }

  /** Closes the base. */
  close(): Promise<void> | void {
    return this.#base.close?.();
  }

  async #commit(base: NbdBackend & Required<Pick<NbdBackend, 'write'>>): Promise<void> {
    const { bytes, written } = this.#layer;
    for (const run of [...located(written, 0, add(this.size, 0))]) {
      if (!run.isChanged) continue;
      let at = run.at;
      for (const { length, flags } of [...bytes.extents(run.at, run.length)]) {
        if (Number(flags) !== 0 && base.zero !== undefined) {
          await base.zero(at, add(length, 0), { fua: false, noHole: false, fast: false });
        } else await writePieces(base, bytes, at, add(length, 0));
        at = add(at, length);
      }
    }
    await base.flush?.();
    this.#layer = emptyLayer(this.size);
  }

  #change(apply: (layer: Layer) => void): Promise<void> | void {
    if (this.#committing !== null) return this.#committing.then(() => this.#change(apply));
    apply(this.#layer);
  }
}

const emptyLayer = (size: number | bigint): Layer => ({ bytes: new MemoryBackend(size), written: new ExtentMap(size) });

/** The runs of a range, changed and not, with their offsets. */
function* located(
  written: ExtentMap,
  offset: U64,
  count: U64,
): Generator<{ readonly at: U64; readonly length: U64; readonly isChanged: boolean }> {
  let at = offset;
  for (const { length, flags } of written.extents(offset, count)) {
    yield { at, length: add(length, 0), isChanged: flags !== 0 };
    at = add(at, length);
  }
}

async function writePieces(
  base: Required<Pick<NbdBackend, 'write'>>,
  bytes: MemoryBackend,
  offset: U64,
  count: U64,
): Promise<void> {
  const end = add(offset, count);
  for (let at = offset; at < end; at = add(at, PIECE)) {
    const left = subtract(end, at);
    // A backend may keep what it is given.
    const piece = Buffer.allocUnsafe(left < PIECE ? Number(left) : PIECE);
    bytes.read(piece, at);
    await base.write(piece, at, { fua: false });
  }
}
