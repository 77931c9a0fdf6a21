// The stateful test: random calls, aborts, answers, faults and endings on one connection with a tiny window, and a
// plain account of what each must come to. After every step the account and the connection must agree.

import { type NbdConnection, NbdError, SHUTDOWN_ABANDON_PENDING } from '../../lib/index.js';
import * as g from '../support/golden.js';
import { openRaw } from '../support/raw-server.js';
import { type Limits, ModelPeer } from './model-peer.js';
import { type Random } from './random.js';

const SIZE = 1 << 20;
const GUARD = 8;
const GUARD_BYTE = 0xa7;
const SCRIBBLE = 0xee;

type ModelLimits = Limits & { readonly maxQueued: number };

/** One call. */
interface Call {
  readonly kind: string;
  readonly cookie: bigint;
  /** Raw calls: whether the completion retires it, leaves it, or is not there. */
  readonly raw: 'retires' | 'leaves' | 'silent' | null;
  readonly offset: number;
  readonly arena: Buffer;
  readonly written: Buffer | null;
  readonly controller: AbortController | null;
  settlements: number;
  ending: string;
  /** The buffer at settlement: nothing may change it afterwards. */
  after: Buffer | null;
  retired: boolean;
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const ABORTED = new Error('aborted by the test');

export class Model {
  readonly #random: Random;
  readonly #limits: ModelLimits;
  readonly #connection: NbdConnection;
  readonly #peer: ModelPeer;
  readonly #calls: Call[] = [];
  readonly #closes: unknown[] = [];
  #cookies = 0n;
  #refused = 0;
  #ending: string | null = null;
  readonly log: string[] = [];
  /** How often each thing happened. */
  readonly counts: Record<string, number> = {};

  private constructor(random: Random, limits: ModelLimits, connection: NbdConnection, peer: ModelPeer) {
    this.#random = random;
    this.#limits = limits;
    this.#connection = connection;
    this.#peer = peer;
    connection.on('close', (error) => this.#closes.push(error));
    connection.on('drain', () => {
      this.#count('drain');
      this.#refused = 0;
      // The one that brought the news may not have been counted off yet.
      if (connection.aioInFlight() > limits.maxInFlight + 1) this.#complain('drain while commands wait');
    });
  }

  static async open(random: Random): Promise<Model> {
    const limits = {
      maxInFlight: random.between(1, 4),
      maxInFlightBytes: random.pick([1, 2000, 8192, 1 << 26]),
      maxQueued: random.pick([0, 1, 3, Infinity]),
    };
    const style = random.pick(['simple', 'structured', 'extended']);
    const { connection, peer } = await openRaw({
      ...{ over: 'memory', size: SIZE, structured: style !== 'simple', extended: style === 'extended' },
      ...(style === 'simple' ? {} : { contexts: { 1: 'base:allocation' } }),
      client: { ...limits, closeTimeout: 0 },
    });
    return new Model(random, limits, connection, new ModelPeer(peer, limits));
  }

  #complain(what: string): void {
    this.#peer.complaints.push(what);
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    this.log.push(what);
  }

  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps && this.#ending === null; step++) {
      const isLast = step === steps - 1;
      if (isLast || this.#random.oneIn(60)) this.#end();
      else await this.#step();
      this.#check();
    }
    await this.#finish();
  }

  async #step(): Promise<void> {
    const what = this.#random.below(100);
    if (what < 45) this.#issue();
    else if (what < 65) {
      if (this.#peer.held.size > 0) {
        this.#count('answer');
        this.#peer.answer(this.#random);
      }
    } else if (what < 75) this.#abort();
    else if (what < 82) this.#retire();
    else if (what < 92) for (let left = this.#random.between(1, 4); left > 0; left--) await tick();
    else await this.#settle();
  }

  // Calls.

  #issue(): void {
    const c = this.#connection;
    const random = this.#random;
    const kinds = ['pread', 'pread', 'pread', 'pwrite', 'pwrite', 'cache', 'flush', 'trim', 'zero'];
    const kind = random.pick(c.canMetaContext('base:allocation') ? [...kinds, 'blockStatus'] : kinds);
    const count = random.pick([1, 512, 4096, 9000]);
    const offset = random.below(SIZE - count);
    const hasData = kind === 'pread' || kind === 'pwrite';
    const arena = Buffer.alloc((hasData ? count : 0) + 2 * GUARD, GUARD_BYTE);
    const buffer = arena.subarray(GUARD, arena.length - GUARD);
    if (kind === 'pwrite') for (let at = 0; at < buffer.length; at++) buffer[at] = random.below(256);
    const raw = random.oneIn(2) ? random.pick(['retires', 'leaves', 'silent'] as const) : null;
    const call: Call = {
      ...{
        kind,
        cookie: this.#cookies + 1n,
        raw,
        offset,
        arena,
        written: kind === 'pwrite' ? Buffer.from(buffer) : null,
      },
      controller: raw === null && random.oneIn(2) ? new AbortController() : null,
      ...{ settlements: 0, ending: 'pending', after: null, retired: false },
    };
    const before = c.aioInFlight();
    const promise = this.#call(call, count, buffer);
    if (c.aioInFlight() === before) {
      this.#count('refused');
      this.#refused++;
      // One that waits may be on its way to a free place.
      if (before === 0 || before < this.#limits.maxQueued) this.#complain(`refused with ${before} in flight`);
      promise?.then(
        () => this.#complain('a refused command resolved'),
        (error: unknown) => {
          if ((error as NbdError).code !== 'EAGAIN') this.#complain(`refused by ${String(error)}`);
        },
      );
      return;
    }
    this.#count(raw === null ? kind : `aio ${kind}`);
    this.#cookies++;
    this.#calls.push(call);
    // A write may have been answered while its payload is still leaving: it has no place any more, and is not over.
    const leaving = this.#calls.filter(({ written, cookie, settlements }) => {
      return written !== null && settlements === 0 && this.#peer.answered.has(cookie);
    });
    const most = this.#limits.maxInFlight + this.#limits.maxQueued + leaving.length;
    if (c.aioInFlight() > most) this.#complain(`${c.aioInFlight()} accepted where ${most} may be`);
    promise?.then(
      () => this.#settled(call, null),
      (error: unknown) => this.#settled(call, error),
    );
  }

  /** Makes the call; a raw one gives no promise. */
  #call(call: Call, count: number, buffer: Buffer): Promise<unknown> | null {
    const c = this.#connection;
    const { kind, offset, raw } = call;
    const signal = call.controller?.signal;
    if (raw === null) {
      if (kind === 'pread') return c.preadInto(buffer, offset, 0, signal);
      if (kind === 'pwrite') return c.pwrite(buffer, offset, 0, signal);
      if (kind === 'flush') return c.flush(0, signal);
      if (kind === 'blockStatus') return c.blockStatus(count, offset, 0, signal);
      return c[kind as 'cache' | 'trim' | 'zero'](count, offset, 0, signal);
    }
    let isOut = false;
    const told = (error: NbdError | null, cookie: bigint): boolean => {
      if (!isOut) this.#complain('a completion before its call returned');
      if (cookie !== call.cookie) this.#complain(`cookie ${cookie} told for ${call.cookie}`);
      this.#settled(call, error);
      call.retired = raw === 'retires';
      return call.retired;
    };
    const completion = raw === 'silent' ? null : told;
    try {
      const cookie =
        kind === 'pread'
          ? c.aioPread(buffer, offset, completion)
          : kind === 'pwrite'
            ? c.aioPwrite(buffer, offset, completion)
            : kind === 'flush'
              ? c.aioFlush(completion)
              : kind === 'blockStatus'
                ? c.aioBlockStatus(count, offset, () => undefined, completion)
                : c[`aio${kind[0]?.toUpperCase()}${kind.slice(1)}` as 'aioCache' | 'aioTrim' | 'aioZero'](
                    ...([count, offset, completion] as const),
                  );
      if (cookie !== call.cookie) this.#complain(`cookie ${cookie} in place of ${call.cookie}`);
    } catch (error) {
      if ((error as NbdError).code !== 'EAGAIN') this.#complain(`thrown: ${String(error)}`);
    }
    isOut = true;
    return null;
  }

  #settled(call: Call, error: unknown): void {
    call.settlements++;
    call.ending =
      error === null ? 'ok' : error === ABORTED ? 'aborted' : error instanceof NbdError ? error.code : 'foreign';
    // The buffer belongs to the caller again and is reused.
    if (call.written !== null) call.arena.fill(SCRIBBLE, GUARD, call.arena.length - GUARD);
    call.after = Buffer.from(call.arena);
  }

  #abort(): void {
    const live = this.#calls.filter(({ controller }) => controller !== null && !controller.signal.aborted);
    if (live.length === 0) return;
    this.#count('abort');
    this.#random.pick(live).controller?.abort(ABORTED);
  }

  #retire(): void {
    const raw = this.#calls.filter((call) => call.raw !== null);
    if (raw.length === 0) return;
    this.#count('retire');
    this.#ask(this.#random.pick(raw));
  }

  /** Issues a raw command: its completion is called once, with what its reply contained. */
  #ask(call: Call): void {
    let told: string;
    try {
      told = this.#connection.aioCommandCompleted(call.cookie) ? 'ok' : 'pending';
    } catch (error) {
      told = (error as NbdError).code;
    }
    if (told === 'pending') {
      if (call.settlements > 0 && !call.retired) this.#complain(`cookie ${call.cookie} has completed, and is not told`);
      return;
    }
    if (call.retired) this.#complain(`cookie ${call.cookie} told twice`);
    call.retired = true;
    if (call.raw === 'silent') {
      call.settlements++;
      call.ending = told;
      call.after = Buffer.from(call.arena);
    } else if (told !== call.ending) this.#complain(`cookie ${call.cookie}: ${told}, and ${call.ending} before`);
  }

  // Endings.

  #end(): void {
    const c = this.#connection;
    const kinds: Record<string, () => void> = {
      close: () => c.close(),
      shutdown: () => void c.shutdown(),
      'shutdown, abandoning': () => void c.shutdown(SHUTDOWN_ABANDON_PENDING),
      disconnect: () => c.aioDisconnect(),
      fault: () => this.#peer.fault(this.#random),
    };
    if (this.#peer.held.size > 0) {
      kinds['ESHUTDOWN'] = () => {
        if (!this.#peer.announceEnd(this.#random)) c.close();
      };
    }
    this.#ending = this.#random.pick(Object.keys(kinds));
    this.#count(this.#ending);
    kinds[this.#ending]?.();
    if (this.#ending === 'close') this.#checkOver();
  }

  /** Until the connection is over the server answers what it has. */
  async #finish(): Promise<void> {
    const c = this.#connection;
    const isOver = (): boolean => c.aioIsClosed() || c.aioIsDead();
    for (let turn = 0; !isOver(); turn++) {
      if (turn > 5000) {
        this.#complain(`still ${c.connectionState()} after ${this.#ending}, ${c.aioInFlight()} in flight`);
        c.close();
      }
      if (this.#peer.held.size > 0) this.#peer.answer(this.#random);
      await tick();
      this.#check();
    }
    for (let turn = 0; turn < 5; turn++) await tick();
    this.#checkOver();
    for (const call of this.#calls) {
      if (call.raw !== null) this.#ask(call);
      this.#checkCall(call);
      if (call.settlements !== 1) this.#complain(`${call.kind} ${call.cookie} settled ${call.settlements} times`);
    }
    if (this.#closes.length !== 1) this.#complain(`${this.#closes.length} close events`);
    if (this.#closes[0] instanceof NbdError !== c.aioIsDead()) this.#complain(`close with ${String(this.#closes[0])}`);
    this.#check();
  }

  #checkOver(): void {
    const c = this.#connection;
    if (c.aioInFlight() !== 0) this.#complain(`${c.aioInFlight()} in flight when it is over`);
    for (const call of this.#calls) {
      const isTold = call.raw === 'retires' || call.raw === 'leaves';
      if (isTold && call.settlements !== 1) this.#complain(`${call.kind} ${call.cookie} is pending when it is over`);
    }
  }

  // What must always be so.

  #check(): void {
    for (const call of this.#calls) this.#checkCall(call);
    if (this.#peer.complaints.length > 0) throw new Error(this.#peer.complaints.join('\n'));
  }

  #checkCall(call: Call): void {
    const { kind, cookie, arena, settlements, ending, offset, after, written } = call;
    const who = `${kind} ${cookie}`;
    if (settlements > 1) this.#complain(`${who} settled ${settlements} times`);
    for (let at = 0; at < GUARD; at++) {
      if (arena[at] !== GUARD_BYTE || arena[arena.length - 1 - at] !== GUARD_BYTE) this.#complain(`${who}: outside`);
    }
    if (after !== null && !after.equals(arena)) this.#complain(`${who}: its buffer changed after it had settled`);
    const answer = this.#peer.answered.get(cookie);
    const request = answer?.request ?? this.#peer.held.get(cookie);
    if (written !== null && request !== undefined && !request.payload.equals(written)) {
      this.#complain(`${who}: the server got other bytes`);
    }
    if (settlements === 0) return;
    if (ending === 'ok') {
      if (answer?.ending !== 'ok') this.#complain(`${who} succeeded, and the server said ${answer?.ending}`);
      const data = arena.subarray(GUARD, arena.length - GUARD);
      if (kind === 'pread' && !data.equals(g.content(offset, data.length))) this.#complain(`${who}: wrong data`);
    } else if (ending === 'aborted') {
      if (call.controller?.signal.aborted !== true) this.#complain(`${who} was not aborted`);
    } else if (ending === 'ENOTCONN' || ending === 'EPROTO') {
      if (this.#ending === null) this.#complain(`${who}: ${ending} on a live connection`);
    } else if (answer?.ending !== ending) {
      this.#complain(`${who}: ${ending} where the server said ${answer?.ending}`);
    }
  }

  /** Lets everything come to rest, and balances the account. */
  async #settle(): Promise<void> {
    for (let turn = 0; turn < 10; turn++) await tick();
    this.#count('balance');
    const { held } = this.#peer;
    const waiting = this.#calls.filter(
      ({ cookie, ending, controller }) =>
        !held.has(cookie) &&
        !this.#peer.answered.has(cookie) &&
        !(ending === 'aborted' || controller?.signal.aborted === true),
    );
    const { maxInFlight, maxInFlightBytes } = this.#limits;
    const inFlight = this.#connection.aioInFlight();
    if (inFlight !== held.size + waiting.length) {
      this.#complain(`${inFlight} in flight, ${held.size} on the wire and ${waiting.length} waiting`);
    }
    const [head] = waiting;
    if (head === undefined) {
      if (this.#refused > 0 && held.size < maxInFlight && maxInFlightBytes > 1e6) this.#complain('no drain came');
      return;
    }
    const weight = head.arena.length - 2 * GUARD;
    const bytes = this.#peer.heldBytes;
    const isFull = held.size === maxInFlight || (bytes > 0 && bytes + weight > maxInFlightBytes);
    if (!isFull) this.#complain(`${head.kind} ${head.cookie} waits although there is room`);
  }
}
