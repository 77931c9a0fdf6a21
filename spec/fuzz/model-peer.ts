// The server of the stateful test: it takes requests as they come, holds them, and answers when and how the test
// chooses. It checks what no server may see: too much on the wire, and cookies that are not new.

import * as g from '../support/golden.js';
import { type RawPeer, type RawRequest } from '../support/raw-server.js';
import { type Random } from './random.js';

export interface Limits {
  readonly maxInFlight: number;
  readonly maxInFlightBytes: number;
}

const ERRORS: readonly (readonly [number, string])[] = [
  [1, 'EPERM'],
  [5, 'EIO'],
  [28, 'ENOSPC'],
  [22, 'EINVAL'],
];

/** How a command was answered: 'ok' or an errno name. */
export interface Answered {
  readonly request: RawRequest;
  readonly ending: string;
}

/** Bytes that a request moves either way. */
export const weightOf = ({ type, length }: RawRequest): number =>
  type === g.CMD.READ || type === g.CMD.WRITE ? length : 0;

export class ModelPeer {
  /** On the wire and not answered, by cookie. */
  readonly held = new Map<bigint, RawRequest>();
  readonly answered = new Map<bigint, Answered>();
  /** Reads of which a first chunk has gone out. */
  readonly #begun = new Map<bigint, number>();
  readonly complaints: string[] = [];
  isDisconnected = false;
  readonly #peer: RawPeer;
  readonly #limits: Limits;
  #lastCookie = 0n;

  constructor(peer: RawPeer, limits: Limits) {
    this.#peer = peer;
    this.#limits = limits;
    void this.#receive();
  }

  get heldBytes(): number {
    return [...this.held.values()].reduce((sum, request) => sum + weightOf(request), 0);
  }

  async #receive(): Promise<void> {
    try {
      for (;;) this.#take(await this.#peer.request());
    } catch {
      // The client has gone.
    }
  }

  #take(request: RawRequest): void {
    if (this.isDisconnected) this.complaints.push('a request behind NBD_CMD_DISC');
    if (request.cookie <= this.#lastCookie) {
      this.complaints.push(`cookie ${request.cookie} behind ${this.#lastCookie}`);
    }
    this.#lastCookie = request.cookie;
    if (request.type === g.CMD.DISC) {
      this.isDisconnected = true;
      if (this.held.size === 0) this.#peer.stream.end();
      return;
    }
    this.held.set(request.cookie, request);
    const { maxInFlight, maxInFlightBytes } = this.#limits;
    if (this.held.size > maxInFlight) this.complaints.push(`${this.held.size} commands on the wire`);
    const heavy = [...this.held.values()].filter((each) => weightOf(each) > 0).length;
    // A command that is larger than all that is allowed goes when no other has a payload.
    if (this.heldBytes > maxInFlightBytes && heavy > 1) this.complaints.push(`${this.heldBytes} bytes on the wire`);
  }

  /** Answers one of those that are held; true when it was the end of its reply. */
  answer(random: Random): boolean {
    const request = random.pick([...this.held.values()]);
    const failure = random.oneIn(5) && !this.#begun.has(request.cookie) ? random.pick(ERRORS) : null;
    if (failure !== null) this.#fail(request, failure[0]);
    else if (this.#isPartial(request, random)) return false;
    else this.#succeed(request);
    this.#settle(request, failure?.[1] ?? 'ok');
    return true;
  }

  /** The server announces its end with ESHUTDOWN, to a command that has not been answered in part. */
  announceEnd(random: Random): boolean {
    const fresh = [...this.held.values()].filter(({ cookie }) => !this.#begun.has(cookie));
    if (fresh.length === 0) return false;
    const request = random.pick(fresh);
    this.#fail(request, 108);
    this.#settle(request, 'ESHUTDOWN');
    return true;
  }

  #settle(request: RawRequest, ending: string): void {
    this.held.delete(request.cookie);
    this.#begun.delete(request.cookie);
    this.answered.set(request.cookie, { request, ending });
    if (this.isDisconnected && this.held.size === 0) this.#peer.stream.end();
  }

  #frame(request: RawRequest, flags: number, type: number, payload: Uint8Array): Buffer {
    return this.#peer.extended
      ? g.extendedChunk(flags, type, request.cookie, request.offset, payload)
      : g.chunk(flags, type, request.cookie, payload);
  }

  #fail(request: RawRequest, error: number): void {
    const { structured } = this.#peer;
    this.#peer.write(
      structured
        ? this.#frame(request, g.DONE, g.ERROR, g.cat(g.u32(error), g.u16(0)))
        : g.simple(request.cookie, error),
    );
  }

  /** Now and then a read comes in two chunks, with other things in between. */
  #isPartial(request: RawRequest, random: Random): boolean {
    const { type, cookie, offset, length } = request;
    if (type !== g.CMD.READ || !this.#peer.structured || length < 2) return false;
    if (this.#begun.has(cookie) || random.oneIn(2)) return false;
    const first = random.between(1, length - 1);
    this.#begun.set(cookie, first);
    this.#peer.write(this.#frame(request, 0, g.DATA, g.cat(g.u64(offset), g.content(Number(offset), first))));
    return true;
  }

  #succeed(request: RawRequest): void {
    const first = this.#begun.get(request.cookie);
    if (first === undefined) {
      this.#peer.answer(request);
      return;
    }
    const from = Number(request.offset) + first;
    const data = g.content(from, request.length - first);
    this.#peer.write(this.#frame(request, g.DONE, g.DATA, g.cat(g.u64(from), data)));
  }

  /** What a broken server, or network, does. */
  fault(random: Random): void {
    random.pick([
      () => this.#peer.stream.end(),
      () => this.#peer.stream.destroy(),
      () => this.#peer.stream.destroy(new Error('broken')),
      () => this.#peer.write('this is not a reply'),
      () => this.#peer.write(this.#peer.extended ? g.extendedChunk(1, 0, 1 << 30, 0) : g.simple(1 << 30)),
    ])();
  }
}
