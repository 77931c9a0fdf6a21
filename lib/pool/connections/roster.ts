// The connections of a pool: which one a command goes to, more and fewer of them, and their coming back.

import { NbdConnectionError, type NbdError } from '../../errors.js';
import { trace } from '../events.js';
import { KnownFacts } from '../facts.js';
import { Member } from './member.js';
import type { Opened, Opener } from './opener.js';
import { Reconnector, type ReconnectOwner } from './reconnector.js';
import { Sizing, type SizingOwner } from './sizing.js';
import type { PoolState } from '../state.js';
import { refuse } from '../../util/option-checks.js';

/** What happens to the connections that others have to know. */
export interface RosterOwner {
  /** There is one more, or more room. */
  joined(): void;
  /** One was lost; its commands have not failed yet. */
  lost(error: NbdError | undefined): void;
  /** The attempts to come back have been given up. */
  gaveUp(error: unknown, attempts: number): void;
  /** The pool cannot go on. */
  failed(error: NbdError): void;
}

export class Roster implements ReconnectOwner, SizingOwner {
  readonly #state: PoolState;
  readonly #opener: Opener;
  readonly #owner: RosterOwner;
  readonly #reconnector: Reconnector | null;
  readonly #sizing = new Sizing(this);
  #members: Member[] = [];
  #last: Member;
  #facts: KnownFacts;
  #losses = 0;
  /** Lost connections that no other one has replaced. */
  #missing = 0;
  #limit = 1;
  #awaySince: number | null = null;

  constructor(state: PoolState, opener: Opener, first: Opened, owner: RosterOwner) {
    this.#state = state;
    this.#opener = opener;
    this.#owner = owner;
    const { reconnect, connection } = state.settings;
    this.#reconnector = reconnect === null ? null : new Reconnector(opener, reconnect, this);
    this.#facts = new KnownFacts(first.connection, connection.metaContexts ?? []);
    this.#last = this.#enter(first);
  }

  /** As messages show them. */
  get targets(): readonly string[] {
    return this.#opener.targets.map(({ description }) => description);
  }

  /** That of the most recent connection. */
  get uri(): string {
    const { isShared, description } = this.#last.target;
    if (!isShared) throw refuse('getUri', `${description} has no URI that lasts`);
    return this.#facts.get('getUri');
  }

  get facts(): KnownFacts {
    return this.#facts;
  }

  get members(): readonly Member[] {
    return this.#members;
  }

  /** The most recent one; calls are checked against it while no connection is open. */
  get last(): Member {
    return this.#last;
  }

  get losses(): number {
    return this.#losses;
  }

  get mayReturn(): boolean {
    return this.#members.length > 0 || this.#reconnector?.isRunning === true;
  }

  /** Read for every command. */
  get mayGrow(): boolean {
    return this.#sizing.mayGrow;
  }

  /** The one with the fewest bytes in flight of those that have room. */
  choose(weight: number): Member | null {
    const { settings } = this.#state;
    let best: Member | null = null;
    for (const member of this.#members) {
      if (!member.hasRoom(weight, settings)) continue;
      if (best === null || member.load < best.load) best = member;
    }
    return best;
  }

  /** Any that takes commands. */
  get any(): Member | null {
    return this.#members.find(({ isLeaving }) => !isLeaving) ?? null;
  }

  /** Whether a flush on this connection covers the writes of all others. */
  speaksForAll(member: Member): boolean {
    return this.#facts.get('canMultiConn') && this.#members.every(({ epoch }) => epoch === member.epoch);
  }

  /** All connections are busy and another command comes. */
  considerGrowth(): void {
    const { length } = this.#members;
    if (this.#state.phase === 'open' && length > 0 && length < this.#limit) this.#sizing.grow();
  }

  /** A command waits without a connection. If reconnecting has been given up, each target is tried once more. */
  seek(): void {
    const reconnector = this.#reconnector;
    if (reconnector === null || reconnector.isRunning || this.#members.length > 0) return;
    this.#awaySince ??= performance.now();
    reconnector.once();
  }

  /** A command has succeeded. */
  succeeded(): void {
    if (this.#losses > 0) this.#reconnector?.succeeded();
  }

  #enter({ connection, target }: Opened): Member {
    const { settings, isReferenced } = this.#state;
    const member = new Member(connection, target, this.#losses);
    this.#last = member;
    this.#members.push(member);
    const isOne = !this.#facts.get('canMultiConn') || !target.isShared;
    this.#limit = isOne ? 1 : settings.connections - (this.#reconnector === null ? this.#losses : 0);
    if (!isReferenced) connection.unref();
    connection.on('close', (error) => {
      this.#ended(member, error);
    });
    return member;
  }

  /** Takes a connection in; false where it has ended already, or is not to this export. */
  #join(opened: Opened, attempts: number): boolean {
    const { connection, target } = opened;
    const state = this.#state;
    if (state.phase === 'closed') {
      connection.close();
      return false;
    }
    const { maskExportName = false, metaContexts = [] } = state.settings.connection;
    const facts = new KnownFacts(connection, metaContexts);
    try {
      this.#facts.checkSame(facts, target.description, maskExportName);
    } catch (error) {
      connection.close();
      this.#owner.failed(error as NbdError);
      return false;
    }
    this.#facts = facts;
    this.#enter(opened);
    this.#reconnector?.stop();
    const connections = this.#members.length;
    const since = this.#awaySince;
    this.#awaySince = null;
    this.#owner.joined();
    if (this.#missing > 0) {
      this.#missing--;
      state.counts.reconnects++;
      const detail = { target: target.description, attempts, connections };
      trace('reconnected', state.pool, { connection, ...detail });
      state.notify('reconnected', detail);
    }
    if (since !== null) state.notify('back', { milliseconds: performance.now() - since });
    return true;
  }

  /** SizingOwner. */
  async grow(signal: AbortSignal): Promise<boolean> {
    const { target } = this.#members[0] ?? this.#last;
    return this.#join(await this.#opener.another(target, signal), 1);
  }

  /** SizingOwner. */
  shrink(looks: number): boolean {
    const [first] = this.#members;
    if (first === undefined || this.#members.length < 2) return false;
    for (const member of this.#members) if (!member.isBusy) member.idleLooks++;
    const idle = this.#members.findLast(
      (each) => each !== first && !each.isBusy && !each.isLeaving && each.idleLooks >= looks,
    );
    // Its writes must be covered by a flush on another one.
    if (idle !== undefined && (this.speaksForAll(idle) || !idle.hasUnflushed)) {
      idle.isLeaving = true;
      idle.isDismissed = true;
      void idle.connection.shutdown();
    }
    return true;
  }

  #ended(member: Member, error: NbdError | undefined): void {
    member.isLeaving = true;
    this.#members = this.#members.filter((each) => each !== member);
    const state = this.#state;
    if (member.isDismissed || state.phase === 'closed') return;
    member.isLost = true;
    this.#losses++;
    this.#missing++;
    state.unflushed.lost(error);
    if (this.#reconnector === null && this.#limit > 1) this.#limit--;
    const isAway = this.#members.length === 0;
    if (isAway) this.#awaySince = performance.now();
    this.#owner.lost(error);
    if (isAway && (state.phase === 'open' || state.unfinished > 0 || state.isHolding)) this.#comeBack();
    const detail = {
      target: member.target.description,
      error,
      inFlight: member.inFlight,
      connections: this.#members.length,
    };
    trace('lost', state.pool, { connection: member.connection, ...detail });
    state.notify('lost', detail);
    if (!isAway) return;
    if (!this.#isClosed) state.notify('away', { error });
    if (this.#reconnector === null) this.#owner.failed(notReconnected(error));
  }

  /** A getter, since any listener may close the pool. */
  get #isClosed(): boolean {
    return this.#state.phase === 'closed';
  }

  #comeBack(): void {
    if (this.#reconnector?.isRunning === false) this.#reconnector.start();
    this.keepAlive();
  }

  /** ReconnectOwner. */
  reconnected(opened: Opened, attempts: number): void {
    this.#join(opened, attempts);
  }

  /** ReconnectOwner. */
  gaveUp(error: unknown, attempts: number): void {
    if (this.#isClosed || this.#members.length > 0) return;
    this.#owner.gaveUp(error, attempts);
  }

  /** No more growing. */
  stopGrowing(): void {
    this.#sizing.stop();
  }

  /** Closes every connection at once. */
  close(): void {
    this.#reconnector?.stop();
    this.#sizing.stop();
    for (const { connection } of this.#members.slice()) connection.close();
  }

  ref(): void {
    for (const { connection } of this.#members) connection.ref();
    this.keepAlive();
  }

  unref(): void {
    for (const { connection } of this.#members) connection.unref();
    this.keepAlive();
  }

  /** While no connection is open, the attempts to reconnect keep the process alive as the connection would. */
  keepAlive(): void {
    this.#reconnector?.setReferenced(this.#state.isReferenced || this.#state.unfinished > 0);
  }
}

const notReconnected = (cause: NbdError | undefined): NbdConnectionError =>
  new NbdConnectionError(
    `the pool has lost its last connection (reconnect: false)${cause === undefined ? '' : `: ${cause.message}`}`,
    { code: 'ENOTCONN', ...(cause === undefined ? {} : { cause }) },
  );
