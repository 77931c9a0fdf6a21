// The commands of a pool, from call to settlement: which connection each goes to, where it waits, what a failed try
// leads to. Invariant: every command that was accepted settles once, whatever becomes of the connections.

import { AbortRegistry } from '../../client/transmission/abort-registry.js';
import { checkSignal } from '../../client/options/options.js';
import { NbdCommandError, type NbdError, NbdQueueFullError, NbdStateError } from '../../errors.js';
import type { Command } from '../../client/transmission/command.js';
import { CMD_FLAG_FUA } from '../../protocol/client-constants.js';
import { checkTask } from './check-task.js';
import type { DirectOwner } from './direct.js';
import { trace } from '../events.js';
import { finalFailure, judge, noConnection, poolEnded, unflushed } from '../failures.js';
import { Line } from './line.js';
import type { Member } from '../connections/member.js';
import type { Roster } from '../connections/roster.js';
import type { PoolState } from '../state.js';
import { FlushTask, ReadIntoTask, type Task } from './task.js';
import { inNextTurn } from '../../util/timers.js';
import type { U64 } from '../../util/u64.js';
import type { Risk } from '../unflushed/unflushed.js';

/** Rejections of commands that waited, in one turn of the event loop. */
const REJECTED_AT_A_TIME = 2000;

export class Dispatcher implements DirectOwner {
  readonly #state: PoolState;
  readonly #roster: Roster;
  readonly #onRest: () => void;
  readonly #onLateLoss: () => void;
  readonly #line = new Line();
  readonly #delayed = new Set<Task>();
  readonly #flushes = new Set<FlushTask>();
  readonly #aborts = new AbortRegistry<Task>((task, reason) => {
    this.#abort(task, reason);
  });
  #order = 0;
  /** Commands that write and are on a connection. */
  #writing = 0;
  #quiet: (() => void) | null = null;
  #owesDrain = false;

  /**
   * `onRest` is called when nothing is unfinished any more, `onLateLoss` when a write turns out to have been acknowledged
   * in the very read that brought the end of its connection.
   */
  constructor(state: PoolState, roster: Roster, onRest: () => void, onLateLoss: () => void) {
    this.#state = state;
    this.#roster = roster;
    this.#onRest = onRest;
    this.#onLateLoss = onLateLoss;
  }

  get waiting(): number {
    return this.#line.length + this.#delayed.size;
  }

  /** Issues a command, or lets it wait. Never throws. */
  run(task: Task): Promise<unknown> {
    const state = this.#state;
    const roster = this.#roster;
    task.order = ++this.#order;
    if (task instanceof FlushTask) this.#watchFlush(task);
    const member = this.ready(task.weight);
    if (member !== null) {
      if (++state.unfinished === 1) roster.keepAlive();
      return this.#issue(task, member);
    }
    try {
      this.#check(task);
    } catch (error) {
      if (task instanceof FlushTask) this.#flushes.delete(task);
      return Promise.reject(error);
    }
    if (++state.unfinished === 1) roster.keepAlive();
    return this.#wait(task, false);
  }

  /** The connection that a new command may be put on now; null where it must wait, or be refused. */
  ready(weight: number): Member | null {
    const state = this.#state;
    const roster = this.#roster;
    if (state.phase !== 'open' || state.isHolding || !this.#line.isEmpty) return null;
    const member = roster.choose(weight);
    if (member !== null && member.inFlight > 0 && roster.mayGrow) roster.considerGrowth();
    return member;
  }

  // DirectOwner.

  begun(command: Command, member: Member): number {
    member.begin(command.weight);
    if (command.spec.writes) this.#writing++;
    if (++this.#state.unfinished === 1) this.#roster.keepAlive();
    return ++this.#order;
  }

  succeeded({ spec, weight, flags, offset, count }: Command, member: Member): void {
    member.end(weight);
    if (spec.writes) {
      this.#wrote(flags, offset, count, member);
      this.#written();
    }
    this.#roster.succeeded();
    if (--this.#state.unfinished === 0) this.#onRest();
    if (this.#owesDrain) this.pump();
  }

  failed(task: Task, member: Member, reason: unknown): void {
    const { resolve, reject } = task;
    task.resolve = null;
    task.reject = null;
    try {
      resolve?.(this.#failed(task, member, reason));
    } catch (error) {
      reject?.(error);
    }
  }

  /** What a connection checks at a call, and whether there is room in the line. */
  #check(task: Task): void {
    const { settings, phase, error } = this.#state;
    if (task instanceof ReadIntoTask && settings.preadInitialize) task.clear();
    checkSignal(task.spec.method, task.abortSignal);
    if (phase !== 'open') throw poolEnded(task, error);
    checkTask(task, this.#roster.last.connection);
    const { length } = this.#line;
    if (length < settings.maxQueued) return;
    this.#owesDrain = true;
    throw new NbdQueueFullError(`${task.what}: ${length} commands are waiting already (maxQueued); wait for 'drain'`, {
      code: 'EAGAIN',
      ...task.details,
    });
  }

  #issue(task: Task, member: Member): Promise<unknown> {
    if (task.tries++ > 0 && task.failure !== null) this.#state.counts.replayed++;
    member.begin(task.weight);
    if (task.spec.writes) this.#writing++;
    const issued = task instanceof FlushTask ? this.#issueFlush(task, member) : task.issue(member.connection);
    return issued.then(
      (value) => this.#succeeded(task, member, value),
      (error: unknown) => this.#failed(task, member, error),
    );
  }

  /** On every connection that has written, unless one flush speaks for all of them. */
  #issueFlush(task: FlushTask, member: Member): Promise<unknown> {
    task.covered = this.#state.unflushed.beginFlush();
    task.failedOn = null;
    const speaksForAll = this.#roster.speaksForAll(member);
    const others = speaksForAll ? [] : this.#roster.members.filter((each) => each !== member && each.hasUnflushed);
    const flushed = [member, ...others];
    const issued = flushed.map((each) =>
      task.issue(each.connection).catch((error: unknown) => {
        task.failedOn ??= each;
        throw error;
      }),
    );
    return Promise.all(issued).then(() => {
      for (const each of flushed) each.flushedThrough = Math.max(each.flushedThrough, task.covered);
    });
  }

  #succeeded(task: Task, member: Member, value: unknown): unknown {
    member.end(task.weight);
    if (task.spec.writes) {
      this.#wrote(task.flags, task.start, task.length, member);
      this.#written();
    }
    this.#roster.succeeded();
    if (task instanceof FlushTask) return this.#flushed(task);
    this.#settled(task);
    return task.finish(value);
  }

  #wrote(flags: number, start: U64, length: U64, member: Member): void {
    // On permanent storage already.
    if ((flags & CMD_FLAG_FUA) !== 0 && this.#roster.facts.get('canFua')) return;
    const { unflushed: writes } = this.#state;
    writes.acknowledged(start, length);
    member.wroteIn = writes.segment;
    if (member.isLost) this.#onLateLoss();
  }

  #flushed(task: FlushTask): unknown {
    const { unflushed: writes, isHolding, phase } = this.#state;
    // What was lost meanwhile is being written again: it has to be covered too.
    if (isHolding && phase !== 'closed') return this.#wait(task, true);
    writes.flushed(task.covered);
    this.#settled(task);
    const risks = [...task.risks].filter(({ isEmpty }) => !isEmpty);
    if (risks.length === 0) return undefined;
    for (const risk of risks) writes.forgetRisk(risk);
    throw unflushed('flush', risks);
  }

  #watchFlush(task: FlushTask): void {
    const { risk } = this.#state.unflushed;
    if (!risk.isEmpty) task.risks.add(risk);
    this.#flushes.add(task);
  }

  /** No flush that has been called may succeed without those writes. */
  endanger(risk: Risk): void {
    for (const flush of this.#flushes) flush.risks.add(risk);
  }

  /** The call is about to settle. */
  #settled(task: Task): void {
    if (task instanceof FlushTask) this.#flushes.delete(task);
    if (--this.#state.unfinished === 0) this.#onRest();
    if (this.#owesDrain) this.pump();
  }

  #failed(task: Task, chosen: Member, error: unknown): unknown {
    const { abortSignal } = task;
    const isAborted = abortSignal?.aborted === true;
    if (isAborted && chosen.isLiving) chosen.abandon(task.weight);
    else chosen.end(task.weight);
    if (task.spec.writes) this.#written();
    if (isAborted) return this.#reject(task, abortSignal.reason);
    const member = task instanceof FlushTask ? (task.failedOn ?? chosen) : chosen;
    switch (judge(task, member, error, this.#state.settings.retry)) {
      case 'reject':
        this.#settled(task);
        task.fail();
        throw finalFailure(task, error);
      case 'retry':
        return this.#retryLater(task, error as NbdError);
      case 'again':
        this.#leave(member, error);
        return this.#again(task, error as NbdError);
    }
  }

  #reject(task: Task, error: unknown): never {
    this.#settled(task);
    throw error;
  }

  /**
   * A server that has announced its end gets no more commands; its connection ends by itself. Nor does a connection that
   * has died: it reports its end only when all of its commands have been settled, which may take several turns.
   */
  #leave(member: Member, error: unknown): void {
    if (error instanceof NbdCommandError || !member.isLiving) {
      member.isLeaving = true;
    } else if (error instanceof NbdStateError) {
      member.isLeaving = true;
      void member.connection.shutdown();
    }
  }

  #again(task: Task, error: NbdError): Promise<unknown> {
    const { phase, error: reason, settings, isAbandoning } = this.#state;
    task.failure = error;
    const now = performance.now();
    task.lostAt ??= now;
    if (phase === 'closed' || isAbandoning) {
      return this.#reject(task, reason === null ? error : noConnection(task, 'the pool has ended', reason));
    }
    const within = settings.reconnect?.within ?? Infinity;
    // Either it is this very command that ends connections, or the link is hardly one.
    if (now - task.lostAt > within) {
      const why = `connections were lost under it for more than ${within} ms (reconnect.within)`;
      return this.#reject(task, noConnection(task, why, error));
    }
    return this.#wait(task, true);
  }

  #retryLater(task: Task, error: NbdError): Promise<unknown> {
    const { counts, phase, pool, notify, settings } = this.#state;
    if (phase === 'closed') return this.#reject(task, error);
    counts.retries++;
    task.retries++;
    task.failure = null;
    const range = { offset: BigInt(task.offset), count: BigInt(task.count) };
    const detail = { method: task.spec.method, ...range, error, attempt: task.retries };
    const promise = this.#pending(task);
    this.#delayed.add(task);
    task.timer = setTimeout(() => {
      task.timer = null;
      this.#delayed.delete(task);
      this.#line.pushAgain(task);
      this.#owesDrain = true;
      this.pump();
    }, settings.retry?.delay);
    trace('retry', pool, detail);
    notify('retry', detail);
    return promise;
  }

  /** Lets a command wait for a connection with room. */
  #wait(task: Task, isAgain: boolean): Promise<unknown> {
    const promise = this.#pending(task);
    if (isAgain) this.#line.pushAgain(task);
    else this.#line.push(task);
    this.#owesDrain = true;
    this.pump();
    return promise;
  }

  #pending(task: Task): Promise<unknown> {
    return new Promise((resolve, reject) => {
      task.resolve = resolve;
      task.reject = reject;
      if (task.abortSignal !== undefined) this.#aborts.watch(task, task.abortSignal);
    });
  }

  #abort(task: Task, reason: unknown): void {
    if (task.reject === null) return;
    if (!this.#delayed.has(task)) this.#line.remove(task);
    this.#refuse(task, reason);
    this.pump();
  }

  /** Rejects a command that has been taken out of where it waited. */
  #refuse(task: Task, reason: unknown): void {
    const { reject } = task;
    this.#delayed.delete(task);
    if (task.timer !== null) clearTimeout(task.timer);
    task.timer = null;
    task.resolve = null;
    task.reject = null;
    this.#aborts.forget(task);
    if (task instanceof FlushTask) this.#flushes.delete(task);
    if (--this.#state.unfinished === 0) this.#onRest();
    reject?.(reason);
  }

  /** Issues what waits while there is room. */
  pump(): void {
    const state = this.#state;
    const roster = this.#roster;
    while (!state.isHolding && state.phase !== 'closed') {
      const task = this.#line.head;
      if (task === undefined) break;
      const member = roster.choose(task.weight);
      if (member === null) break;
      this.#line.shift();
      this.#aborts.forget(task);
      const { resolve } = task;
      task.resolve = null;
      task.reject = null;
      resolve?.(this.#issue(task, member));
    }
    if (!this.#line.isEmpty) {
      if (roster.members.length === 0) roster.seek();
      else if (roster.mayGrow) roster.considerGrowth();
    } else if (this.#owesDrain) {
      this.#owesDrain = false;
      if (state.phase !== 'closed') state.notify('drain');
    }
  }

  #written(): void {
    if (--this.#writing > 0) return;
    this.releaseQuiet();
  }

  /** Resolves when no command that writes is on a connection, or the pool ends. */
  async whenQuiet(): Promise<void> {
    if (this.#writing > 0) await new Promise<void>((resolve) => (this.#quiet = resolve));
  }

  releaseQuiet(): void {
    this.#quiet?.();
    this.#quiet = null;
  }

  /** Rejects what waits, in order; `includingDelayed`: what waits to be tried again, too. */
  rejectWaiting(makeError: (task: Task) => NbdError, includingDelayed = false): void {
    const delayed = includingDelayed ? [...this.#delayed] : [];
    this.#rejectAll([...delayed, ...this.#line.takeAll()], makeError);
  }

  /** In batches, so that a million rejections do not block the event loop. */
  #rejectAll(tasks: Task[], makeError: (task: Task) => NbdError, from = 0): void {
    const to = Math.min(tasks.length, from + REJECTED_AT_A_TIME);
    for (let at = from; at < to; at++) {
      const task = tasks[at] as Task;
      if (task.reject !== null) this.#refuse(task, makeError(task));
    }
    if (to === tasks.length) return;
    inNextTurn(() => {
      this.#rejectAll(tasks, makeError, to);
    });
  }
}
