// The public face of a pool: documentation, and delegation in a line or two.

import { inspect } from 'node:util';
import { statusWithOptions, withOptions } from '../client/api/command-options.js';
import type { ByteCount, NbdCommandFlags, NbdExport } from '../client/export.js';
import { checkBits } from '../client/options/options.js';
import type { NbdTarget } from '../client/connect/targets.js';
import { SHUTDOWN_ABANDON_PENDING } from '../protocol/client-constants.js';
import type { ChunkCallback, ExtentCallback } from '../protocol/reply-target.js';
import * as spec from '../protocol/commands.js';
import type { Extents } from '../util/extents.js';
import { PoolCore } from './core.js';
import type { Notify } from './events.js';
import { type Opened, Opener } from './connections/opener.js';
import { NbdPoolFacts, takeFactsFrom } from './pool-facts.js';
import { makePoolSettings, type NbdPoolOptions, type PoolSettings } from './options.js';
import { checkTargets } from './connections/targets.js';
import { FlushTask, StatusTask, StructuredTask, type Task } from './commands/task.js';

/** Counters of a pool. */
export interface PoolStatistics {
  /** Number of open connections. */
  readonly connections: number;
  /** Connections made in place of lost ones. */
  readonly reconnects: number;
  /** Commands tried again after the server reported an error (`retry`). */
  readonly retries: number;
  /** Commands issued again after their connection was lost. */
  readonly replayed: number;
}

/**
 * Several connections to one export that behave as one and reconnect. A pool has the facts and the promise commands of
 * an `NbdConnection`, with the same arguments, checks and errors. A lost connection is replaced, and the commands that
 * were on it are issued again.
 *
 * - A command may be carried out more than once, on one connection after the other. The buffer of a write, and that of
 *   `preadInto`, is in use until the call has settled.
 * - Callbacks (`preadStructured`, block status) run when the reply is complete, with the contents of one reply.
 * - Commands that cannot be issued within `reconnect.within` reject with NbdConnectionError `ENOTCONN`. After the
 *   pool has given up reconnecting, the next command tries each target once.
 */
export class NbdPool extends NbdPoolFacts implements NbdExport {
  readonly #core: PoolCore;
  #ending: Promise<Error | null> | null = null;
  #hasReported = false;

  private constructor(settings: PoolSettings, opener: Opener, first: Opened) {
    super();
    const notify: Notify = (name, ...details) => {
      try {
        // The tuple of a generic name is not known to be the listener's.
        (this.emit as (event: string, ...args: unknown[]) => boolean).call(this, name, ...details);
      } catch (error) {
        // A listener that throws is a bug of its own: it surfaces as an uncaught exception.
        process.nextTick(() => {
          throw error;
        });
      }
    };
    this.#core = new PoolCore(this, settings, opener, first, notify);
    takeFactsFrom(this, this.#core.roster);
  }

  /**
   * Connects to an export, and resolves when the first connection is ready. The others are opened when there is work for
   * them, if the server advertises multi-conn (`canMultiConn`); all of them go to one target at a time.
   *
   * @param targets What `NbdConnection.connect` takes, or a list of it. The targets of a list are tried in turn, now and
   *   after a loss; all of them must lead to the same export. A program (`{ command }`, `{ socketActivation }`) is started
   *   again for every connection, so the pool has one connection at a time. A stream cannot be opened again: it must be
   *   the only target, with `connections: 1` and `reconnect: false`.
   * @throws (rejects) NbdStrictError `EINVAL` for a wrong option or target, before anything is opened; for one target as
   *   `NbdConnection.connect`, for several NbdConnectionError with the failure of each in its message and cause.
   */
  static async connect(targets: NbdTarget | readonly NbdTarget[], options?: NbdPoolOptions): Promise<NbdPool> {
    const settings = makePoolSettings(options);
    const opener = new Opener(checkTargets(targets, settings), settings);
    settings.signal?.throwIfAborted();
    return new NbdPool(settings, opener, await opener.first());
  }

  // ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────
  // The same as those of NbdConnection, which documents them. In addition they reject with NbdConnectionError ENOTCONN if
  // no connection came back in time, ESTALE if the server now has another export, NbdStateError EINVAL after the end.

  #run<Result>(task: Task): Promise<Result> {
    return this.#core.dispatcher.run(task) as Promise<Result>;
  }

  /** Asks the server to prefetch a range. */
  cache(count: ByteCount, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'cache', [count, offset], flags, signal);
    return this.#core.direct.plain(spec.CACHE, count, offset, flags, signal) as Promise<void>;
  }

  /** Reads `count` bytes; resolves with all of them or rejects. */
  pread(count: number, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<Buffer> {
    if (typeof flags === 'object') return withOptions(this, 'pread', [count, offset], flags, signal);
    return this.#core.direct.read(count, offset, flags, signal) as Promise<Buffer>;
  }

  /** Fills the caller's buffer, which is in use until the promise has settled. */
  preadInto(buffer: Uint8Array, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'preadInto', [buffer, offset], flags, signal);
    return this.#core.direct.readInto(buffer, offset, flags, signal) as Promise<void>;
  }

  /** Reads, and reports every chunk of the reply when it is complete. */
  preadStructured(
    count: number,
    offset: ByteCount,
    chunk: ChunkCallback,
    flags: NbdCommandFlags = 0,
    signal?: AbortSignal,
  ): Promise<Buffer> {
    if (typeof flags === 'object') return withOptions(this, 'preadStructured', [count, offset, chunk], flags, signal);
    return this.#run(new StructuredTask(count, offset, chunk, flags, signal));
  }

  /**
   * Writes the buffer, which must not change until the promise has settled: it is sent again if a connection is lost.
   * An acknowledged write is not on permanent storage yet: see {@link flush}.
   */
  pwrite(buffer: Uint8Array, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'pwrite', [buffer, offset], flags, signal);
    return this.#core.direct.write(buffer, offset, flags, signal) as Promise<void>;
  }

  /**
   * Puts every write that has been acknowledged on permanent storage.
   *
   * @throws (rejects) NbdUnflushedError, once after a loss, with the ranges that were written but not flushed before
   *   it, unless `rewrite` has supplied them again. A flush that fails on the server is not tried again: the server may
   *   have dropped what it could not write, and the next flush would succeed without it.
   */
  flush(flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'flush', [], flags, signal);
    return this.#run(new FlushTask(flags, signal));
  }

  /** Informs the server that the range is no longer needed. */
  trim(count: ByteCount, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'trim', [count, offset], flags, signal);
    return this.#core.direct.plain(spec.TRIM, count, offset, flags, signal) as Promise<void>;
  }

  /** Writes zeroes without sending them. */
  zero(count: ByteCount, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'zero', [count, offset], flags, signal);
    return this.#core.direct.plain(spec.ZERO, count, offset, flags, signal) as Promise<void>;
  }

  /** Asks for the extents of a range, with 32-bit lengths and flags. */
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents>>;
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus(count: ByteCount, offset: ByteCount, ...rest: unknown[]): Promise<never> {
    const called = statusWithOptions(this, 'blockStatus', [count, offset], rest);
    return called ?? this.#run(new StatusTask(spec.BLOCK_STATUS, count, offset, rest));
  }

  /** {@link blockStatus} with 64-bit lengths and flags, as bigint. */
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus64(count: ByteCount, offset: ByteCount, ...rest: unknown[]): Promise<never> {
    const called = statusWithOptions(this, 'blockStatus64', [count, offset], rest);
    return called ?? this.#run(new StatusTask(spec.BLOCK_STATUS_64, count, offset, rest));
  }

  /** {@link blockStatus64} for some of the negotiated contexts only. */
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    extent: ExtentCallback<BigUint64Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    ...rest: unknown[]
  ): Promise<never> {
    const called = statusWithOptions(this, 'blockStatusFilter', [count, offset, contexts], rest);
    return called ?? this.#run(new StatusTask(spec.BLOCK_STATUS_FILTER, count, offset, rest, contexts));
  }

  // ── State ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Counters since the pool was created. */
  get statistics(): PoolStatistics {
    const { reconnects, retries, replayed } = this.#core.state.counts;
    return { connections: this.#core.roster.members.length, reconnects, retries, replayed };
  }

  // ── Ending ────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Graceful end: refuses new commands, waits up to `closeTimeout` for pending ones, and ends every connection as
   * `NbdConnection.shutdown` does. It does not flush.
   *
   * @param flags `SHUTDOWN_ABANDON_PENDING`: commands that have not been sent yet reject with `ENOTCONN` instead of being
   *   sent.
   * @throws (rejects) NbdUnflushedError, once, if a loss has put writes at risk that no flush has reported yet; the pool
   *   has ended in good order then. NbdStrictError `EINVAL` for an unknown flag.
   */
  async shutdown(flags = 0): Promise<void> {
    checkBits('shutdown', flags, SHUTDOWN_ABANDON_PENDING);
    const hasReported = this.#hasReported;
    this.#ending ??= this.#end(flags);
    const error = await this.#ending;
    this.#hasReported = true;
    // Calls made before the report reject with it as well; later calls do not.
    if (error !== null && !hasReported) throw error;
  }

  async #end(flags: number): Promise<Error | null> {
    await this.#core.shutdown(flags, flags === SHUTDOWN_ABANDON_PENDING);
    return this.#core.takeRisk('shutdown');
  }

  /** Immediate end: pending commands reject with `ENOTCONN`. Idempotent. */
  close(): void {
    this.#core.close();
  }

  /** {@link shutdown}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }

  /** Reverts {@link unref}: the pool keeps the process alive again. */
  ref(): this {
    this.#core.ref();
    return this;
  }

  /** Lets the process exit while the pool is idle, whether or not it is connected; pending commands keep it alive. */
  unref(): this {
    this.#core.unref();
    return this;
  }

  /** @internal */
  [inspect.custom](_depth: number, options: object): string {
    const { state, roster, dispatcher } = this.#core;
    const inFlight = roster.members.reduce((sum, member) => sum + member.inFlight, 0);
    const shown = {
      state: state.phase === 'closed' ? 'closed' : roster.members.length === 0 ? 'away' : 'connected',
      target: roster.last.target.description,
      size: this.getSize(),
      connections: roster.members.length,
      inFlight,
      waiting: dispatcher.waiting,
    };
    return `NbdPool ${inspect(shown, options)}`;
  }
}
