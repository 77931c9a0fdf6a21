// A random workload on one connection against a model of every block: reads are compared byte by byte, and what an
// abort or a trim leaves open is settled at the next rest, when nothing is in flight.

import { CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, type NbdConnection } from '../../lib/index.js';
import { type Random } from '../fuzz/random.js';

export const BLOCK = 4096;
const MOST_BLOCKS = 32;
const AT_ONCE = 24;

/** What a block may hold besides the contents of the model, until it has been read again. */
type Doubt = 'old or new' | 'old or zero';

export class Disk {
  readonly bytes: Buffer;
  readonly doubts = new Map<number, { readonly kind: Doubt; readonly other: Buffer }>();

  constructor(size: number) {
    this.bytes = Buffer.alloc(size);
  }

  get blocks(): number {
    return this.bytes.length / BLOCK;
  }

  block(index: number): Buffer {
    return this.bytes.subarray(index * BLOCK, (index + 1) * BLOCK);
  }
}

export class Workload {
  readonly #c: NbdConnection;
  readonly #random: Random;
  readonly #disk: Disk;
  readonly #counts: Record<string, number>;
  /** Blocks that a command in flight reads, or changes. */
  readonly #reading = new Map<number, number>();
  readonly #changing = new Set<number>();
  readonly #running = new Set<Promise<void>>();
  /** One signal for many commands, which is never aborted: it must not gather listeners. */
  readonly #signal: AbortSignal;
  #failure: unknown = null;

  constructor(c: NbdConnection, random: Random, disk: Disk, counts: Record<string, number>, signal: AbortSignal) {
    this.#c = c;
    this.#random = random;
    this.#disk = disk;
    this.#counts = counts;
    this.#signal = signal;
  }

  /** Some hundred commands, then rest. Throws at the first difference. */
  async round(commands: number): Promise<void> {
    for (let left = commands; left > 0 && this.#failure === null; left--) {
      const work = this.#begin();
      if (work === null) continue;
      const settled = work
        .catch((error: unknown) => {
          this.#failure ??= error;
        })
        .finally(() => this.#running.delete(settled));
      this.#running.add(settled);
      if (this.#running.size >= AT_ONCE) await Promise.race(this.#running);
    }
    await this.#rest();
    if (this.#failure !== null) throw this.#failure as Error;
  }

  async #rest(): Promise<void> {
    await Promise.all(this.#running);
    // Aborted commands are over only when the server has answered them.
    while (this.#c.aioInFlight() > 0) await new Promise((resolve) => setImmediate(resolve));
    this.#changing.clear();
    for (const [block, { kind, other }] of this.#disk.doubts) {
      const seen = await this.#c.pread(BLOCK, block * BLOCK);
      const known = this.#disk.block(block);
      const isRight =
        seen.equals(known) ||
        (kind === 'old or new' ? seen.equals(other) : seen.every((byte, at) => byte === 0 || byte === known[at]));
      if (!isRight) throw new Error(`block ${block} is neither ${kind}`);
      seen.copy(known);
    }
    this.#disk.doubts.clear();
  }

  /** All blocks at once, the last thing that is done. */
  async verify(): Promise<void> {
    await this.#rest();
    const step = 256 * BLOCK;
    for (let at = 0; at < this.#disk.bytes.length; at += step) {
      const data = await this.#c.pread(Math.min(step, this.#disk.bytes.length - at), at);
      if (!data.equals(this.#disk.bytes.subarray(at, at + data.length))) throw new Error(`a difference behind ${at}`);
    }
  }

  #count(what: string, bytes: number): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1;
    this.#counts['bytes'] = (this.#counts['bytes'] ?? 0) + bytes;
  }

  #begin(): Promise<void> | null {
    const random = this.#random;
    const first = random.below(this.#disk.blocks);
    const count = random.between(1, Math.min(MOST_BLOCKS, this.#disk.blocks - first));
    const blocks = Array.from({ length: count }, (_, index) => first + index);
    const kind = random.below(100);
    if (kind < 45) return this.#isFree(blocks, false) ? this.#read(blocks) : null;
    if (kind < 51) return this.#plain('cache', this.#c.cache(count * BLOCK, first * BLOCK, 0, this.#signal));
    if (kind < 53) return this.#plain('flush', this.#c.flush(0, this.#signal));
    if (!this.#isFree(blocks, true)) return null;
    if (kind < 80) return this.#write(blocks);
    return kind < 92 ? this.#zero(blocks) : this.#trim(blocks);
  }

  #isFree(blocks: readonly number[], toChange: boolean): boolean {
    return blocks.every(
      (block) => !this.#changing.has(block) && !this.#disk.doubts.has(block) && !(toChange && this.#reading.has(block)),
    );
  }

  async #plain(what: string, work: Promise<void>): Promise<void> {
    await work;
    this.#count(what, 0);
  }

  async #read(blocks: readonly number[]): Promise<void> {
    for (const block of blocks) this.#reading.set(block, (this.#reading.get(block) ?? 0) + 1);
    const skipped = this.#random.below(BLOCK);
    const at = (blocks[0] ?? 0) * BLOCK + skipped;
    const buffer = Buffer.alloc(blocks.length * BLOCK - skipped, 0xdb);
    const [signal, abort] = this.#mayAbort();
    const isAborted = await wasAborted(this.#c.preadInto(buffer, at, 0, signal));
    clearImmediate(abort);
    const isRight = isAborted || buffer.equals(this.#disk.bytes.subarray(at, at + buffer.length));
    for (const block of blocks) {
      const left = (this.#reading.get(block) ?? 0) - 1;
      if (left === 0) this.#reading.delete(block);
      else this.#reading.set(block, left);
    }
    if (!isRight) throw new Error(`a read of ${buffer.length} bytes at ${at} differs from what was written`);
    this.#count(isAborted ? 'aborted read' : 'read', isAborted ? 0 : buffer.length);
  }

  /** One in ten is aborted: at once, or a few turns later. */
  #mayAbort(): [AbortSignal, NodeJS.Immediate | undefined] {
    if (!this.#random.oneIn(10)) return [this.#signal, undefined];
    const controller = new AbortController();
    const abort = (): void => controller.abort(REASON);
    if (this.#random.oneIn(3)) {
      queueMicrotask(abort);
      return [controller.signal, undefined];
    }
    return [controller.signal, setImmediate(abort)];
  }

  /** Does what changes blocks to `contents`; an abort leaves each block with what it had or what it was to get. */
  async #change(
    what: string,
    blocks: readonly number[],
    contents: Buffer | null,
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    for (const block of blocks) this.#changing.add(block);
    const [signal, abort] = this.#mayAbort();
    const isAborted = await wasAborted(work(signal));
    clearImmediate(abort);
    const at = (blocks[0] ?? 0) * BLOCK;
    if (isAborted || contents === null) {
      blocks.forEach((block, index) => {
        const other = contents?.subarray(index * BLOCK, (index + 1) * BLOCK) ?? Buffer.alloc(0);
        this.#disk.doubts.set(block, { kind: contents === null ? 'old or zero' : 'old or new', other });
      });
    } else {
      contents.copy(this.#disk.bytes, at);
    }
    // Where a command may still be on the wire the blocks stay closed until the next rest.
    if (!isAborted) for (const block of blocks) this.#changing.delete(block);
    this.#count(isAborted ? `aborted ${what}` : what, what === 'write' && !isAborted ? blocks.length * BLOCK : 0);
  }

  #write(blocks: readonly number[]): Promise<void> {
    const data = Buffer.alloc(blocks.length * BLOCK, this.#random.between(1, 255));
    for (let at = 0; at < data.length; at += 512) data.writeUInt32BE(this.#random.below(2 ** 32), at);
    const kept = Buffer.from(data);
    const flags = this.#flags();
    return this.#change('write', blocks, kept, async (signal) => {
      try {
        await this.#c.pwrite(data, (blocks[0] ?? 0) * BLOCK, flags, signal);
      } finally {
        // The buffer is ours again; its bytes must have left.
        data.fill(0xee);
      }
    });
  }

  #zero(blocks: readonly number[]): Promise<void> {
    const length = blocks.length * BLOCK;
    const flags = this.#flags() | (this.#random.oneIn(2) ? CMD_FLAG_NO_HOLE : 0);
    return this.#change('zero', blocks, Buffer.alloc(length), (signal) =>
      this.#c.zero(length, (blocks[0] ?? 0) * BLOCK, flags, signal),
    );
  }

  #trim(blocks: readonly number[]): Promise<void> {
    const flags = this.#flags();
    return this.#change('trim', blocks, null, (signal) =>
      this.#c.trim(blocks.length * BLOCK, (blocks[0] ?? 0) * BLOCK, flags, signal),
    );
  }

  #flags(): number {
    return this.#c.canFua() && this.#random.oneIn(5) ? CMD_FLAG_FUA : 0;
  }
}

const REASON = new Error('aborted by the soak test');

/** False when it succeeds, true when it rejects with our own reason; anything else is passed on. */
const wasAborted = (work: Promise<void>): Promise<boolean> =>
  work.then(
    () => false,
    (error: unknown) => {
      if (error !== REASON) throw error;
      return true;
    },
  );
