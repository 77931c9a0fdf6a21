// A shadow copy of an export whose server may forget what was not flushed.

/** What a block may hold: a value that was written, 0, or anything (null) after a trim. */
export type Value = number | null;

/** A block of the shadow copy. Versions are numbered from 0 on, which is what it holds at first. */
export class Block {
  /** Those that it may hold, from number `#base` on; the older ones are known to be gone. */
  #versions: Value[] = [0];
  #base = 0;
  /** The last one that was acknowledged. */
  acked = 0;
  /** A loss has put all up to this one in doubt; up to that one a flush has said so. */
  #doubted = -1;
  #reported = -1;

  get last(): Value {
    return this.#versions.at(-1) as Value;
  }

  get isDoubtful(): boolean {
    return this.acked <= this.#doubted && this.acked > this.#base;
  }

  /** A write begins. */
  write(value: Value): void {
    this.#versions.push(value);
  }

  acknowledge(): void {
    this.acked = this.#base + this.#versions.length - 1;
  }

  lose(): void {
    this.#doubted = this.#base + this.#versions.length - 1;
  }

  report(): void {
    this.#reported = this.#doubted;
  }

  /** A flush that began when `acked` was this has succeeded, or has reported other blocks. */
  cover(acked: number): void {
    if (acked <= this.#reported || acked <= this.#base) return;
    this.#versions = this.#versions.slice(acked - this.#base);
    this.#base = acked;
  }

  /** Whether it may hold this; undefined for what no write has left. */
  allows(found: number | undefined): boolean {
    const from = this.acked > this.#doubted ? this.acked - this.#base : 0;
    const allowed = this.#versions.slice(from);
    return allowed.includes(null) || (found !== undefined && allowed.includes(found));
  }

  toString(): string {
    return `${JSON.stringify(this.#versions)} from ${this.#base}, acknowledged ${this.acked}, doubted ${this.#doubted}, reported ${this.#reported}`;
  }
}
