// When a checkpoint is saved. Invariant: no more than `every` bytes have been read that no saved checkpoint has; where
// that would be, reading waits for the next one.

export class Keeper {
  readonly #every: number;
  readonly #save: () => Promise<void>;
  /** Bytes that were read, or are being read, since what the last checkpoint has. */
  #unsaved = 0;
  /** Those of them that are at the destination, and for which no checkpoint is being made yet. */
  #arrived = 0;
  #saving: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;
  #waiting: (() => void)[] = [];

  /** `save` flushes the destination, and saves what had arrived when it was called. */
  constructor(every: bigint, save: () => Promise<void>) {
    this.#every = Number(every);
    this.#save = save;
  }

  /** Waits until a piece of this many bytes may be read. */
  async admit(bytes: number): Promise<void> {
    this.check();
    while (this.#unsaved > 0 && this.#unsaved + bytes > this.#every) {
      const turn = new Promise<void>((resolve) => this.#waiting.push(resolve));
      this.#saveIfDue();
      await turn;
      this.check();
    }
    this.#unsaved += bytes;
  }

  /** A piece that was admitted has arrived. */
  arrived(bytes: number): void {
    this.check();
    this.#arrived += bytes;
    this.#saveIfDue();
  }

  /** Throws what a checkpoint has failed with. */
  check(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }

  /** A piece has failed: nothing more is admitted, and no further checkpoint begun. */
  stop(error: unknown): void {
    this.#failure ??= { error };
    this.#resume();
  }

  /** Resolves when no checkpoint is being saved. */
  async idle(): Promise<void> {
    while (this.#saving !== null) await this.#saving;
  }

  #saveIfDue(): void {
    if (this.#saving !== null || this.#failure !== null) return;
    const isStuck = this.#waiting.length > 0 && this.#arrived === this.#unsaved;
    if (this.#arrived * 2 < this.#every && !isStuck) return;
    const covered = this.#arrived;
    this.#arrived = 0;
    this.#saving = this.#save()
      .then(
        () => {
          this.#unsaved -= covered;
        },
        (error: unknown) => {
          this.#failure ??= { error };
        },
      )
      .then(() => {
        this.#saving = null;
        this.#resume();
        this.#saveIfDue();
      });
  }

  #resume(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}
