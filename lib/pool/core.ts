// The life of a pool: its parts joined, writing again what was lost, and its end.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { NbdConnection } from '../client/node.js';
import type { NbdError } from '../errors.js';
import { Dispatcher } from './commands/dispatcher.js';
import { DirectCommands } from './commands/direct.js';
import type { Notify } from './events.js';
import { closedPool, noConnection, unflushed } from './failures.js';
import type { Opened, Opener } from './connections/opener.js';
import type { PoolSettings } from './options.js';
import { restore } from './unflushed/restoration.js';
import { Roster, type RosterOwner } from './connections/roster.js';
import { PoolState } from './state.js';
import { rangesOf } from './unflushed/unflushed.js';

export class PoolCore implements RosterOwner {
  readonly state: PoolState;
  readonly roster: Roster;
  readonly dispatcher: Dispatcher;
  readonly direct: DirectCommands;
  #isRestoring = false;
  #onProgress: (() => void) | null = null;
  /** Connections that were closed with the pool: their servers may still be ending. */
  #closed: readonly NbdConnection[] = [];

  constructor(pool: object, settings: PoolSettings, opener: Opener, first: Opened, notify: Notify) {
    this.state = new PoolState(pool, settings, notify);
    this.roster = new Roster(this.state, opener, first, this);
    const onRest = (): void => {
      this.roster.keepAlive();
      this.#onProgress?.();
    };
    const onLateLoss = (): void => {
      this.state.unflushed.lost(this.state.unflushed.risk.cause);
      this.lost();
    };
    this.dispatcher = new Dispatcher(this.state, this.roster, onRest, onLateLoss);
    this.direct = new DirectCommands(this.dispatcher);
  }

  // RosterOwner.

  joined(): void {
    if (this.#mustRestore) this.#beginRestoring();
    this.dispatcher.pump();
  }

  lost(): void {
    const { risk } = this.state.unflushed;
    if (!risk.isEmpty) this.dispatcher.endanger(risk);
    if (this.#mustRestore) this.#beginRestoring();
    this.#onProgress?.();
  }

  gaveUp(error: unknown, attempts: number): void {
    const within = this.state.settings.reconnect?.within ?? 0;
    const why = `no connection came back (${attempts} attempts, reconnect.within: ${within} ms)`;
    this.dispatcher.rejectWaiting((task) => noConnection(task, why, error));
    this.#onProgress?.();
  }

  failed(error: NbdError): void {
    // Nothing can be flushed any more.
    this.state.unflushed.lost(error);
    this.#end(error);
  }

  // Writing again.

  get #mustRestore(): boolean {
    return this.state.settings.rewrite !== null && !this.state.unflushed.risk.isEmpty;
  }

  #beginRestoring(): void {
    this.state.isHolding = true;
    if (!this.#isRestoring) void this.#restore();
  }

  /** Holds back new commands until the writes at risk have been written again, or until that is impossible. */
  async #restore(): Promise<void> {
    this.#isRestoring = true;
    // Without a connection the next one begins anew, and what waits goes on waiting.
    while (this.state.isHolding) {
      if (await this.#writeAgain()) this.state.isHolding = false;
      else if (this.roster.any === null) break;
    }
    this.#isRestoring = false;
    this.dispatcher.pump();
    this.#onProgress?.();
  }

  /** Returns false when no connection is open to write on. */
  async #writeAgain(): Promise<boolean> {
    const { unflushed: writes, settings } = this.state;
    const { rewrite } = settings;
    const { roster } = this;
    for (;;) {
      // A write in flight could be newer than the bytes that are about to be written.
      await this.dispatcher.whenQuiet();
      await nextTurn();
      const { risk } = writes;
      if (this.state.phase === 'closed' || risk.isEmpty || rewrite === null) return true;
      const member = roster.any;
      if (member === null) return false;
      const { losses } = roster;
      member.begin(0);
      try {
        await restore(member.connection, rangesOf([risk]), rewrite);
        if (losses === roster.losses) {
          risk.isRestored = true;
          writes.forgetRisk(risk);
        }
      } catch (error) {
        if (member.isLiving && losses === roster.losses) {
          risk.cause = error;
          return true;
        }
      } finally {
        member.end(0);
      }
    }
  }

  // Ending.

  get #isDone(): boolean {
    const { phase, unfinished, isHolding } = this.state;
    if (phase === 'closed') return true;
    // Waits for the rewrite as long as it can still succeed.
    return unfinished === 0 && (!isHolding || !this.roster.mayReturn);
  }

  /** Lets what is in flight settle, `closeTimeout` at the most, and ends the connections in good order. */
  async shutdown(flags: number, isAbandoning: boolean): Promise<void> {
    if (this.state.phase === 'open') this.state.phase = 'ending';
    this.roster.stopGrowing();
    if (isAbandoning) {
      this.state.isAbandoning = true;
      this.dispatcher.rejectWaiting((task) => noConnection(task, 'abandoned by shutdown()', closedPool()), true);
      for (const member of this.roster.members) {
        member.isLeaving = true;
        member.isDismissed = true;
        void member.connection.shutdown(flags);
      }
    }
    const leaving = this.roster.members.map(({ connection }) => connection);
    await this.#finished();
    for (const member of this.roster.members) {
      member.isDismissed = true;
      if (!leaving.includes(member.connection)) leaving.push(member.connection);
    }
    await Promise.all([...leaving, ...this.#closed].map((connection) => connection.shutdown()));
    this.#end(null);
  }

  #finished(): Promise<void> {
    const { closeTimeout } = this.state.settings;
    if (this.#isDone) return Promise.resolve();
    return new Promise((resolve) => {
      const finish = (): void => {
        if (timer !== null) clearTimeout(timer);
        this.#onProgress = null;
        resolve();
      };
      const onTime = (): void => {
        finish();
        this.#end(null);
      };
      const timer = closeTimeout > 0 ? setTimeout(onTime, closeTimeout) : null;
      this.#onProgress = () => {
        if (this.#isDone) finish();
      };
    });
  }

  /** The error of writes that are at risk and have not been reported, or null. Reports it. */
  takeRisk(syscall: string): NbdError | null {
    const { unflushed: writes } = this.state;
    const { risk } = writes;
    if (risk.isEmpty) return null;
    writes.forgetRisk(risk);
    return unflushed(syscall, [risk]);
  }

  close(): void {
    this.#end(null);
  }

  #end(error: NbdError | null): void {
    const { state, roster, dispatcher } = this;
    if (state.phase === 'closed') return;
    state.phase = 'closed';
    state.error = error;
    this.#closed = roster.members.map(({ connection }) => connection);
    roster.close();
    dispatcher.releaseQuiet();
    const cause = error ?? closedPool();
    const why = error === null ? 'the pool was closed' : 'the pool has ended';
    dispatcher.rejectWaiting((task) => noConnection(task, why, cause), true);
    state.notify('close', error ?? undefined);
    this.#onProgress?.();
  }

  ref(): void {
    this.state.isReferenced = true;
    this.roster.ref();
  }

  unref(): void {
    this.state.isReferenced = false;
    this.roster.unref();
  }
}
